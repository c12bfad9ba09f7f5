"""Files that are complete or absent, whatever stops the process or the machine."""

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

TEMPORARY_PREFIX = ".tmp-"
# Windows refuses to replace, rename and delete what somebody has open, and to open what is about to be deleted: a
# reader has it for an instant, a virus scanner or an indexer for some seconds. Elsewhere a refusal is final.
_WINDOWS = sys.platform == "win32"
_DIR_NOT_EMPTY = 145  # of a folder whose last file is about to be deleted
_REPLACE_PATIENCE_S = 10.0  # reading the largest banks takes seconds
_OPEN_PATIENCE_S = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.001, 0.02
# Of files of settings, calibrations and metadata: each is a few hundred bytes, and metadata 64 Ki characters at most,
# which JSON may write with twelve bytes each.
MAX_JSON_FILE_BYTES = 1 << 20

_Result = TypeVar("_Result")


def read_small(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file that should be small.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `max_bytes`; not more was read.
    """
    with open_to_read(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path.name} is larger than {max_bytes} bytes")
    return content


def write_atomic(files: Mapping[Path, bytes], *, durable: bool = True) -> None:
    """Replace files of one folder, so that a reader or a crash sees the complete old or the complete new content.

    First, all are written beside the old ones (``.tmp-…``) and synced. Then they are renamed one after the other, and
    the folder is synced. So a full disk replaces nothing, and the last file commits the others.

    Args:
        files: content by path.
        durable: False does not wait for the disk: only a crash of the machine may undo or damage the change.

    Raises:
        OSError: a file could not be written or renamed; those after it were not replaced.
    """
    temporaries = {path: path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}") for path in files}
    try:
        for path, temporary in temporaries.items():
            with temporary.open("xb") as file:
                file.write(files[path])
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            replace(temporary, path)
    except BaseException:
        for temporary in temporaries.values():
            delete(temporary)
        raise
    if durable:
        sync_folder(next(iter(files)).parent)


def open_to_read(path: Path) -> BinaryIO:
    """Open a file to read its bytes, which another process may be replacing meanwhile.

    Raises:
        OSError: it cannot be opened.
    """
    return _patiently(lambda: path.open("rb"), _OPEN_PATIENCE_S)


def read_whole(path: Path) -> bytes:
    """The bytes of a file, which another process may be replacing meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    with open_to_read(path) as file:
        return file.read()


def replace(source: Path, target: Path) -> None:
    """Rename a file or a folder; an existing file with the new name is replaced, when nobody has it open.

    Raises:
        OSError: it cannot be renamed; nothing changed.
    """
    _patiently(lambda: source.replace(target), _REPLACE_PATIENCE_S)


def rename_on_windows(source: Path, target: Path) -> None:
    """Rename a file, when nobody has it open. Only Windows refuses a name that exists.

    Raises:
        OSError: it cannot be renamed; nothing changed.
    """
    _patiently(lambda: source.rename(target), _REPLACE_PATIENCE_S)


def delete(path: Path) -> None:
    """Delete a file if it exists, when nobody has it open.

    Raises:
        OSError: it cannot be deleted.
    """
    _patiently(lambda: path.unlink(missing_ok=True), _REPLACE_PATIENCE_S)


def delete_folder(folder: Path) -> None:
    """Delete a folder with its contents, when nobody has a file of it open.

    Raises:
        OSError: something cannot be deleted.
    """
    _patiently(lambda: shutil.rmtree(folder), _REPLACE_PATIENCE_S)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, so that they survive a crash of the machine.

    Raises:
        OSError: one cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        OSError: the disk failed.
    """
    if os.name == "posix":  # Windows cannot open folders, and journals renames by itself
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _patiently(action: Callable[[], _Result], patience_s: float) -> _Result:
    """Retry for a while an operation that Windows refuses while somebody else has the file open."""
    deadline = time.monotonic() + patience_s
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return action()
        except OSError as exc:
            may_pass = isinstance(exc, PermissionError) or getattr(exc, "winerror", None) == _DIR_NOT_EMPTY
            if not (_WINDOWS and may_pass) or time.monotonic() > deadline:
                raise
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
