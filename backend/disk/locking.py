"""One writer at a time per folder, across threads and processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from backend.common.errors import StorageError
from backend.common.files import TEMPORARY_PREFIX, delete, make_folder

LOCK_FILE = ".lock"
_TIMEOUT_S = 30


@contextlib.contextmanager
def writing(folder: Path, what: str, timeout_s: float = _TIMEOUT_S) -> Iterator[None]:
    """Make the folder, hold its lock, and delete files of killed writers; the system frees the lock of a dead process.

    Args:
        folder: of the files that are written.
        what: their name in messages: "model".
        timeout_s: how long to wait for the lock, in seconds.

    Raises:
        StorageError: another process holds the lock for too long, or writing failed.
    """
    try:
        make_folder(folder)
        with filelock.FileLock(folder / LOCK_FILE, timeout=timeout_s):
            for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
                delete(leftover)
            yield
    except filelock.Timeout as exc:
        raise StorageError(f"another process has been writing this {what} for too long; retry") from exc
    except OSError as exc:
        raise StorageError(f"the {what} cannot be stored ({exc.strerror}); check the models folder") from exc
