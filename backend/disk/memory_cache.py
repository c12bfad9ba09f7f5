"""Memory banks in memory: read once for all requests, kept up to 512 MB, read again if their file has changed."""

import errno
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import structlog

from backend.block_memory import Memory
from backend.common.errors import StorageError
from backend.common.files import open_to_read, read_whole, write_atomic
from backend.disk.layout import INDEX_FILE
from backend.disk.locking import writing
from backend.disk.memory_file import StoredMemory, read_memory
from backend.patchcore import FaissIndex

_CACHE_BYTES = 512 << 20

FileIdentity = tuple[int, int, int]

log: Any = structlog.get_logger(__name__)


def identity_of(stat: os.stat_result) -> FileIdentity:
    """The identity of a file, which changes if the file is replaced."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class MemoryCache:
    """Reads memory banks, each once for all requests, and keeps the last ones. Safe for many threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, tuple[FileIdentity, StoredMemory]] = OrderedDict()
        self._lock = Lock()
        self._readers: WeakValueDictionary[Path, Lock] = WeakValueDictionary()

    def read(self, path: Path, *, repair: bool = True) -> StoredMemory | None:
        """The memory in a file, None if there is none; `repair` is False for callers that hold the lock of its folder.

        If several threads need a file that is not in memory yet, one reads it and the others wait, because reading
        takes several times the memory of the result.

        Raises:
            StorageError: it is damaged or cannot be read.
        """
        try:
            if (cached := self._cached(path)) is not None:
                return cached
            if not repair:  # and not kept either, so that the next load does
                return _read_file(path)[1]
            with self._lock:
                reader = self._readers.setdefault(path, Lock())
            with reader:
                if (cached := self._cached(path)) is not None:
                    return cached
                identity, loaded = _read_file(path)
                self._keep_cached(path, identity, loaded)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            # An id that no older backend could store: too long, or with what Windows has in no name, such as ``*``.
            if exc.errno in (errno.ENAMETOOLONG, errno.EINVAL):
                return None
            raise StorageError(f"the stored memory cannot be read ({exc.strerror}); check the models folder") from exc
        if loaded.version is not None:
            self.repair_index(path, identity, loaded.memory)
        return loaded

    def forget(self, path: Path) -> None:
        """Read the file again at the next `read`, and compare the index with it."""
        with self._lock:
            self._kept.pop(path, None)

    def repair_index(self, path: Path, identity: FileIdentity, memory: Memory) -> None:
        """Write the index beside a memory bank again if it is missing, stale or damaged.

        Args:
            path: file of the memory bank.
            identity: of that file, when it was read.
            memory: what was in it.
        """
        # The index of a flat bank holds the bank and nothing else, so what serves is built from memory.npz and
        # index.faiss is kept for other readers. Comparing bytes never hands a damaged file to FAISS's native reader.
        if not isinstance(memory.index, FaissIndex):
            return
        file = path.parent / INDEX_FILE
        expected = memory.index.serialized()
        try:
            if file.is_file() and file.stat().st_size == len(expected) and read_whole(file) == expected:
                return
            with writing(path.parent, "model"):
                if identity_of(path.stat()) == identity:
                    write_atomic({file: expected})
                    log.info("index.rebuilt")
        except (OSError, StorageError) as exc:
            log.warning("index.not_rebuilt", reason=str(exc))

    def _cached(self, path: Path) -> StoredMemory | None:
        identity = identity_of(path.stat())
        with self._lock:
            cached = self._kept.get(path)
            if cached is None or cached[0] != identity:
                return None
            self._kept.move_to_end(path)
            return cached[1]

    def _keep_cached(self, path: Path, identity: FileIdentity, loaded: StoredMemory) -> None:
        with self._lock:
            self._kept[path] = (identity, loaded)
            self._kept.move_to_end(path)
            while len(self._kept) > 1 and self._cached_bytes() > _CACHE_BYTES:
                self._kept.popitem(last=False)

    def _cached_bytes(self) -> int:
        # Twice: the index holds a copy of the embeddings.
        return sum(2 * loaded.memory.nbytes for _, loaded in self._kept.values())


def _read_file(path: Path) -> tuple[FileIdentity, StoredMemory]:
    with open_to_read(path) as file:
        return identity_of(os.fstat(file.fileno())), read_memory(file, path.name)
