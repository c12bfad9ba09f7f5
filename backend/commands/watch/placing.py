"""Moving and copying files into other folders: completely or not at all, and never over another file."""

import contextlib
import errno
import os
import shutil
from pathlib import Path, PurePath

from backend.commands.watch.arrivals import Identity, identity_of
from backend.common.files import TEMPORARY_PREFIX, delete, make_folder, read_whole, rename_on_windows, sync_folder

# Of file systems that have no second names for a file, or forbid one for another user's file.
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_TIME_STEP_NS = 2_000_000_000


class Changed(Exception):
    """The file has been replaced or deleted."""


def place(source: Path, identity: Identity, folder: Path, path: str, part_id: str, *, copy: bool) -> Path:
    """Move or copy a file into a folder, under the same path; if it is taken, with 8 digits of its id.

    After a crash, the same call continues: files that are already placed stay there.

    Args:
        source: the file.
        identity: its expected identity.
        folder: the target; it is created if it is missing.
        path: below it, with ``/`` between folders.
        part_id: of the part.
        copy: keep the original file.

    Returns:
        Its new path.

    Raises:
        Changed: see there. Nothing was placed.
        OSError: it cannot be placed, and stays where it was.
    """
    wanted = folder / PurePath(path)
    other = wanted.with_name(f"{wanted.stem}-{part_id[:8]}{wanted.suffix}")
    if identity_of(source) != identity:
        for target in (other, wanted):
            if not copy and _is_as(target, identity):
                return target
        raise Changed
    make_folder(wanted.parent)
    for target in (other, wanted):
        if _is_same(source, target, identity):
            if not copy:
                _forget(source, identity)
            return target
    for target in (wanted, other):
        with contextlib.suppress(FileExistsError):
            _place_new(source, identity, target, part_id, copy=copy)
            return target
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(other))


def _is_same(source: Path, target: Path, identity: Identity) -> bool:
    """Whether the target is the file itself, or a complete copy of it."""
    if not target.is_file() or target.is_symlink():
        return False
    if target.samefile(source):
        return True
    return _is_as(target, identity) and read_whole(source) == read_whole(target)


def _is_as(target: Path, identity: Identity) -> bool:
    """Whether a file may have this identity: copies keep the time, on FAT in steps of 2 seconds."""
    found = identity_of(target)
    return found is not None and found[0] == identity[0] and abs(found[1] - identity[1]) <= _TIME_STEP_NS


def _place_new(source: Path, identity: Identity, target: Path, part_id: str, *, copy: bool) -> None:
    """Place a file under a free name.

    Raises:
        FileExistsError: the name is taken.
    """
    if target.exists() or target.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if not copy:
        try:
            _rename(source, target, identity)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
        else:
            return
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{part_id}")
    delete(temporary)  # of a run that was killed
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if identity_of(source) != identity:
            raise Changed
        _rename(temporary, target)
    except BaseException:
        delete(temporary)
        raise
    if not copy:
        _forget(source, identity)


def _rename(source: Path, target: Path, identity: Identity | None = None) -> None:
    """Rename a file, unless the name is taken.

    Args:
        source: the file.
        target: its new name.
        identity: its expected identity; None if nobody else can write it.

    Raises:
        FileExistsError: the name is taken.
        Changed: the file was replaced at this moment.
        OSError: it cannot be renamed.
    """
    if os.name == "nt":
        rename_on_windows(source, target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        target.touch(exist_ok=False)  # the name is ours
        source.replace(target)
        sync_folder(target.parent)
        sync_folder(source.parent)
        return
    sync_folder(target.parent)
    if identity is not None and identity_of(target) != identity:
        delete(target)
        raise Changed
    _forget(source, identity)


def _forget(source: Path, identity: Identity | None) -> None:
    """Delete the old name of a moved file, but not a new file in its place."""
    if identity is not None and identity_of(source) != identity:
        return
    delete(source)
    sync_folder(source.parent)
