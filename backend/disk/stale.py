"""Calibrations that no longer apply: of an earlier memory bank, of maps of another blur, or damaged."""

import contextlib
from pathlib import Path

from backend.common.errors import StorageError
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey
from backend.disk.calibration_file import read_calibration
from backend.disk.candidates import candidates
from backend.disk.fitted import applicable
from backend.disk.layout import (
    CALIBRATION_FILE,
    MEMORY_FILE,
    calibrations,
    calibrations_in_recipes,
    current_files,
    key_of,
)
from backend.disk.memory_cache import FileIdentity, identity_of
from backend.disk.memory_file import written_memory_id
from backend.disk.rollback import read_next_calibration


class StaleCalibrations:
    """Finds the calibrations below one models folder that are not of the scores that images get now.

    Args:
        root: the models folder.
        blur_sigma: Gaussian σ of the maps that images are scored by; None takes calibrations of any.
    """

    def __init__(self, root: Path, blur_sigma: float | None) -> None:
        self._root = root
        self._blur_sigma = blur_sigma
        self._memory_ids: dict[Path, tuple[FileIdentity, str | None]] = {}

    def count(self) -> int:
        """How many calibrations of this service are not of the scores that images get now, or are damaged.

        In a recipe that is the fit of the default recipe, where the recipe has no model of its own.

        Raises:
            OSError: files cannot be read.
        """
        known, self._memory_ids = self._memory_ids, {}  # those of models that were deleted are forgotten
        return sum(self._is_stale(calibration, known) for calibration in calibrations(self._root))

    def in_recipes(self, key: RoiKey) -> list[RoiKey]:
        """Who is served this model of the default recipe, and has a calibration of its own that is stale.

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
            read = identity, written_memory_id(memory)
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
        """The memory bank that a calibration is for; None where there is none of this service."""
        memory = calibration.with_name(MEMORY_FILE)
        if memory.exists():
            return memory
        key = key_of(self._root, calibration)
        if not any(files.memory.exists() for files in candidates(self._root, key, older=False)):
            return None
        found = next((files for files in candidates(self._root, key) if files.memory.exists()), None)
        return found.memory if found is not None and found.layout == "current" else None
