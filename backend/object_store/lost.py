"""Files whose bytes the store has lost or changed: the error messages, and the repair."""

import hashlib
from collections.abc import Mapping

from backend.common.errors import DamagedCalibration, DamagedMemory, StorageError
from backend.disk.layout import CALIBRATION_FILE, MEMORY_FILE
from backend.disk.versions import FOLDER as VERSIONS_FOLDER
from backend.object_store.manifest import Entry


def how_lost(content: bytes | None, entry: Entry) -> str:
    """The error of the bytes of a file, in words.

    Args:
        content: the bytes in the store instead; None if there are none.
        entry: of the file.
    """
    if content is None:
        return f"its bytes are gone from the object store ({entry.blob_key})"
    digest = hashlib.sha256(content).hexdigest()
    return f"the object store holds other bytes, of sha256 {digest} ({entry.blob_key})"


def mend(path: str) -> str:
    """How to repair a lost file."""
    if is_of_a_version(path):
        return "versions with this file cannot be rolled back to"
    if path.endswith(f"/{MEMORY_FILE}"):
        return "fit this ROI again, or roll it back"
    if path.endswith(f"/{CALIBRATION_FILE}"):
        return "calibrate this ROI again"
    return "delete this image and upload it again" if "/datasets/" in path else "write it again"


def error_about(lost: Mapping[str, str]) -> StorageError:
    """The error about needed files that are lost.

    Args:
        lost: the error of each file, by path; at least one.
    """
    path = min(lost, key=lambda path: (not path.endswith(f"/{MEMORY_FILE}"), path))  # a fit mends all of a model
    more = f"; {len(lost) - 1} more files are lost" if len(lost) > 1 else ""
    message = f"{path}: {lost[path]}; {mend(path)}{more}; roi-anomaly models check lists all"
    if path.endswith(f"/{MEMORY_FILE}") and not is_of_a_version(path):
        return DamagedMemory(message)
    if path.endswith(f"/{CALIBRATION_FILE}") and not is_of_a_version(path):
        return DamagedCalibration(message)
    return StorageError(message)


def is_of_a_version(path: str) -> bool:
    """Whether it is a file of an earlier version of a model."""
    return f"/{VERSIONS_FOLDER}/" in path
