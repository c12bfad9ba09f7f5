"""Replacing the files of a model, under the lock of its folder: a crash at any moment leaves the old or the new."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from backend.block_memory import Memory
from backend.common.files import delete, write_atomic
from backend.disk import history, versions
from backend.disk.calibration_inputs import CalibrationInputs, with_inputs
from backend.disk.layout import INDEX_FILE, ModelFiles
from backend.disk.locking import writing
from backend.disk.memory_cache import MemoryCache
from backend.disk.name_clashes import refuse_clashes
from backend.disk.path_lengths import refuse_long_paths
from backend.disk.rollback import finish_restore, write_next_calibration
from backend.disk.versions import Change, VersionFacts
from backend.patchcore import FaissIndex
from backend.utils import utc_now


class ModelWriter:
    """Replaces the files of models below one folder.

    Args:
        root: the models folder.
        keep_versions: how many versions are kept of each model.
        cache: of memory banks that were read.
    """

    def __init__(self, root: Path, keep_versions: int, cache: MemoryCache) -> None:
        self._root = root
        self._keep_versions = keep_versions
        self._cache = cache

    @contextlib.contextmanager
    def replacing(self, files: ModelFiles, change: Change, spare: int | None = None) -> Iterator[None]:
        """Hold the lock of a model's folder, and keep the old model as a version if the model has changed at the end.

        Args:
            files: of the model.
            change: the name of the change.
            spare: a version that stays, in addition to the newest ones.

        Raises:
            InvalidRequest: the path of its ids is too long, or the file system confuses them with those of another ROI;
                nothing was written.
            StorageError: see `writing`; also if the model could not be kept: then it is not changed.
        """
        folder = files.memory.parent
        refuse_long_paths(folder)
        refuse_clashes(self._root, folder)
        with writing(folder, "model"):
            refuse_clashes(self._root, folder)  # again: another may have made it
            finish_restore(files)
            facts, served = history.served(files)
            history.tidy(files, served, self._keep_versions, spare)
            if served and self._keep_versions:
                versions.keep(folder, served, VersionFacts(utc_now().isoformat(), change, **facts))
            try:
                yield
            finally:
                history.tidy(files, history.served(files)[1], self._keep_versions, spare)

    def write(
        self,
        files: ModelFiles,
        memory: Memory,
        content: bytes,
        calibration: bytes | None,
        inputs: CalibrationInputs | None,
        *,
        is_same_bank: bool,
    ) -> None:
        """Write a memory bank, and its calibration if there is one; the caller is `replacing` them.

        Args:
            files: of the model.
            memory: the memory bank.
            content: of its file.
            calibration: content of the file of its calibration; None does not change it.
            inputs: of the calibration.
            is_same_bank: whether the embeddings equal those of the stored memory bank.

        Raises:
            OSError: something cannot be written.
        """
        if calibration is None:
            self._write_memory(files, memory, content, {})
        elif is_same_bank:  # it judges as before: what decides is the calibration alone
            self._write_memory(files, memory, content, with_inputs(files.calibration, calibration, inputs))
        else:
            write_next_calibration(files, calibration, inputs)
            try:
                self._write_memory(files, memory, content, {})
            finally:
                finish_restore(files)

    def _write_memory(self, files: ModelFiles, memory: Memory, content: bytes, before: dict[Path, bytes]) -> None:
        """Write a memory bank; `before` are files of its folder that are replaced immediately before it."""
        index = files.memory.with_name(INDEX_FILE)
        if isinstance(memory.index, FaissIndex):
            try:
                write_atomic({**before, index: memory.index.serialized(), files.memory: content})
            except OSError:
                self._cache.forget(files.memory)  # so that the next load compares the index with the memory
                raise
        else:
            delete(index)
            write_atomic({**before, files.memory: content})
