"""Files that are there whole or not at all, whatever stops the process or the machine."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
# Of files of settings, calibrations and metadata: each is a few hundred bytes, and metadata 64 Ki characters at most,
# which JSON may write with twelve bytes each.
MAX_JSON_FILE_BYTES = 1 << 20


def read_small(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file that is small unless somebody tampered with it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `max_bytes`; no more than that was read.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path.name} is larger than {max_bytes} bytes")
    return content


def write_atomic(files: Mapping[Path, bytes], *, durable: bool = True) -> None:
    """Replace files of one folder so that a reader or a crash sees all of a file's old content or all of its new.

    Writes all of them beside the old ones (``.tmp-…``) and syncs them, then renames one after the other and syncs the
    folder. So a full disk replaces nothing, and the last file is the one that commits the others.

    Args:
        files: content by path.
        durable: False does not wait for the disk: a crash of the machine, and of nothing less, may undo or damage it.

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
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(next(iter(files)).parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a crash of the machine takes none of them away again.

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
