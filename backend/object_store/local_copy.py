"""A cache of the files that this process has read from the store, in the form of a models folder.

No confirmed data exists only here. The copy belongs to this process and is deleted with it. The copies of killed
processes are deleted by the next process that starts.
"""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import filelock

from backend.common.files import delete_folder, replace
from backend.object_store.manifest import Entry

_PREFIX = "roi-anomaly-models-"
_OWNER_FILE = ".owner"
_INCOMING = ".incoming"
_YOUNG_S = 60.0


class ReadersAndWriter:
    """A lock for many readers or one writer; a waiting writer goes before later readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writers_waiting = 0
        self._is_writing = False
        self._own = threading.local()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hold off writers; may be nested."""
        depth = getattr(self._own, "depth", 0)
        if depth == 0:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_writing and not self._writers_waiting)
                self._readers += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if depth == 0:
                with self._changed:
                    self._readers -= 1
                    self._changed.notify_all()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off everybody else; the caller must not be a reader."""
        with self._changed:
            self._writers_waiting += 1
            self._changed.wait_for(lambda: not self._is_writing and not self._readers)
            self._writers_waiting -= 1
            self._is_writing = True
        try:
            yield
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()


class LocalCopy:
    """Files of the store in a folder of this process.

    Args:
        folder: its place; None creates a temporary folder, which is deleted with the process.

    Attributes:
        root: the copy, in the form of a models folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            _clear_those_of_killed()
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._owner = filelock.FileLock(folder / _OWNER_FILE)
        self._owner.acquire()
        self._folder = folder
        self.root = folder / "models"
        self.root.mkdir(exist_ok=True)
        (folder / _INCOMING).mkdir(exist_ok=True)
        self._access = ReadersAndWriter()

    def close(self) -> None:
        """Delete it."""
        self._owner.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def beside(self, name: str) -> Path:
        """A folder for derived files, which is deleted with the copy; the caller creates it."""
        return self._folder / name

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Files of a unit stay consistent meanwhile: nobody replaces any."""
        return self._access.reading()

    def incoming(self) -> Path:
        """The path for a file that will be moved into place."""
        return self._folder / _INCOMING / uuid.uuid4().hex

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty models folder for a change, on the same file system."""
        folder = self._folder / _INCOMING / uuid.uuid4().hex
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def link(self, path: str, folder: Path) -> Path:
        """Give a file of the copy a second name below another folder; the caller is `reading`."""
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        link(self.root / path, target)
        return target

    def replace(self, gone: Set[str], come: Mapping[str, tuple[Path, Entry]]) -> None:
        """Change files in one step for all readers.

        Args:
            gone: paths of deleted files.
            come: by path, a file that is moved there, and its entry.
        """
        for source, entry in come.values():
            os.utime(source, ns=(entry.mtime_ns, entry.mtime_ns))
        with self._access.writing():
            for path in gone - come.keys():
                (self.root / path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # as long as something else is in it
                    (self.root / path).parent.rmdir()
            for path, (source, _) in come.items():
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                replace(source, self.root / path)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it if the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _clear_those_of_killed() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, filelock.Timeout):  # another user's, or one that is in use
            status = folder.lstat()
            if not _is_own(status) or time.time() - status.st_mtime < _YOUNG_S:  # somebody may be about to lock it
                continue
            with filelock.FileLock(folder / _OWNER_FILE, timeout=0):
                pass
            delete_folder(folder)


def _is_own(status: os.stat_result) -> bool:
    """Whether it is a folder of this user, because anybody may put links to other folders into a shared folder."""
    if not stat.S_ISDIR(status.st_mode):
        return False
    return sys.platform == "win32" or status.st_uid == os.getuid()
