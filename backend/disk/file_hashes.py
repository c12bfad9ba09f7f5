"""Hashes of files, in memory: a file that did not change is not read again."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from backend.common.files import read_whole
from backend.disk.memory_cache import FileIdentity, identity_of

_MAX_KEPT = 50_000  # some 15 MB


class FileHashes:
    """The sha256 of files, as hexadecimal digits. Safe for many threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[FileIdentity, str]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, path: Path) -> str | None:
        """The hash of a file that was read before and has not changed since; else None.

        Raises:
            OSError: there is no such file.
        """
        identity = identity_of(path.stat())
        with self._lock:
            kept = self._kept.get(str(path))
        return kept[1] if kept is not None and kept[0] == identity else None

    def of(self, path: Path) -> str:
        """The hash of a file, which is read if it has to be.

        Raises:
            OSError: it cannot be read.
        """
        if (known := self.known(path)) is not None:
            return known
        # Before it is read: of a file that is replaced meanwhile, the hash is not used again.
        identity = identity_of(path.stat())
        digest = hashlib.sha256(read_whole(path)).hexdigest()
        with self._lock:
            self._kept[str(path)] = identity, digest
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return digest
