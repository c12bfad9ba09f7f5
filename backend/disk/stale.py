"""Calibrations that no longer apply: for an earlier memory bank, for maps with another blur, or damaged."""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from backend.common.errors import StorageError
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey
from backend.disk.calibration_file import read_calibration
from backend.disk.candidates import candidates
from backend.disk.fitted import applicable
from backend.disk.layout import (
    CALIBRATION_FILE,
    MEMORY_FILE,
    calibrations_in_recipes,
    current_files,
    folders_of_ids,
    key_of,
    model_folders,
    recipe_folders,
)
from backend.disk.memory_cache import FileIdentity, identity_of
from backend.disk.memory_file import written_memory_id
from backend.disk.rollback import read_next_calibration

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# The time of a folder has steps of up to two seconds: what came within the same step would not be seen.
_SETTLED_NS = 3_000_000_000


class StaleCalibrations:
    """Finds the calibrations below one models folder that do not match the current scores.

    Args:
        root: the models folder.
        blur_sigma: Gaussian σ of the current maps; None accepts calibrations of any.
        memory_id_of: gives the identity of the memory bank in a file; None reads it there.
    """

    def __init__(
        self,
        root: Path,
        blur_sigma: float | None,
        memory_id_of: Callable[[Path], str | None] | None = None,
    ) -> None:
        self._root = root
        self._blur_sigma = blur_sigma
        self._memory_id_of = memory_id_of
        self._memory_ids: dict[Path, tuple[FileIdentity, str | None]] = {}
        self._judged: dict[str, tuple[tuple[FileIdentity, FileIdentity], bool]] = {}
        self._folders = _FolderLists()

    def count(self) -> int:
        """How many calibrations of this service do not match the current scores, or are damaged.

        In a recipe without a model of its own, the fit of the default recipe counts. Further calls examine two files
        for each model and read only changed ones. Only one thread at a time may call it.

        Raises:
            OSError: files cannot be read.
        """
        known, self._memory_ids = self._memory_ids, {}  # those of models that were deleted are forgotten
        judged, self._judged = self._judged, {}
        self._folders = _FolderLists(self._folders)
        n_stale = 0
        for folder in model_folders(self._root, recipe_folders(self._root), self._folders):
            path = f"{folder}{os.sep}{CALIBRATION_FILE}"
            calibration = _identity(path)
            memory = _identity(f"{folder}{os.sep}{MEMORY_FILE}") if calibration else None
            if calibration is None:
                continue
            if memory is None:  # that of another ROI is used, or none
                n_stale += self._is_stale(Path(path), known)
                continue
            before = judged.get(path)
            if before is None or before[0] != (calibration, memory):
                before = (calibration, memory), self._is_stale(Path(path), known)
            self._judged[path] = before
            n_stale += before[1]
        return n_stale

    def in_recipes(self, key: RoiKey) -> list[RoiKey]:
        """The ROIs that use this model of the default recipe and have a stale calibration of their own.

        Raises:
            OSError: files cannot be read.
        """
        own = current_files(self._root, key)
        if key.recipe != DEFAULT_RECIPE:
            return []
        files = [
            file
            for file in calibrations_in_recipes(self._root, key)
            if self._memory_of(file) == own.memory and self._is_stale(file, self._memory_ids)
        ]
        return [key_of(self._root, file) for file in files]

    def _is_stale(self, file: Path, known: dict[Path, tuple[FileIdentity, str | None]]) -> bool:
        if not file.exists():
            return False
        try:
            calibration = read_calibration(file)
        except StorageError:
            return True
        memory = self._memory_of(file)
        if calibration is None or memory is None:
            return False
        identity = identity_of(memory.stat())
        read = self._memory_ids.get(memory) or known.get(memory)
        if read is None or read[0] != identity:
            read = identity, (self._memory_id_of or written_memory_id)(memory)
        self._memory_ids[memory] = read
        memory_id = read[1]
        if memory_id is None or applicable(calibration, memory_id, self._blur_sigma) is not None:
            return False
        others = [read_next_calibration(memory)]
        if memory.parent != file.parent:
            with contextlib.suppress(StorageError):  # which is counted where it lies
                others.append(read_calibration(memory.with_name(CALIBRATION_FILE)))
        return all(applicable(other, memory_id, self._blur_sigma) is None for other in others)

    def _memory_of(self, calibration: Path) -> Path | None:
        """The memory bank of a calibration; None if there is none of this service."""
        memory = calibration.with_name(MEMORY_FILE)
        if memory.exists():
            return memory
        key = key_of(self._root, calibration)
        if not any(files.memory.exists() for files in candidates(self._root, key, older=False)):
            return None
        found = next((files for files in candidates(self._root, key) if files.memory.exists()), None)
        return found.memory if found is not None and found.layout == "current" else None


class _FolderLists:
    """Folders of ids in folders; an unchanged folder is not listed again.

    Args:
        before: the result of the last time.

    Attributes:
        seen: the result of this time.
    """

    def __init__(self, before: "_FolderLists | None" = None) -> None:
        self._known = before.seen if before else {}
        self.seen: dict[Path, tuple[tuple[int, int, int], list[Path]]] = {}

    def __call__(self, folder: Path) -> list[Path]:
        try:
            stat = folder.stat()
        except OSError:
            return folders_of_ids(folder)  # which tells what is none from what cannot be read
        identity = stat.st_dev, stat.st_ino, stat.st_mtime_ns
        known = self._known.get(folder)
        if known is not None and known[0] == identity:
            self.seen[folder] = known
            return known[1]
        is_settled = time.time_ns() - stat.st_mtime_ns > _SETTLED_NS
        listed = folders_of_ids(folder)
        if is_settled:
            self.seen[folder] = identity, listed
        return listed


def _identity(path: str) -> FileIdentity | None:
    """See `identity_of`; None if there is no such file."""
    try:
        return identity_of(os.stat(path))  # noqa: PTH116 - a third of the time of Path(path).stat
    except OSError as exc:
        if exc.errno in _ABSENT:
            return None
        raise
