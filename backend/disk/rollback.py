"""Putting a kept version back in place, so that a death at any instant leaves the one model or the other.

The rename of the memory bank is what decides, as for a fit. Its calibration waits beside it until then, and is applied
from the moment that the bank is there. Where both have the same bank, and differ in what else is known about it, the
threshold that was served is served until the version's comes after.
"""

from pathlib import Path

from backend.calib import Calibration
from backend.common.errors import StorageError
from backend.common.files import sync_folder
from backend.disk import versions
from backend.disk.calibration_file import read_calibration
from backend.disk.layout import CALIBRATION_FILE, INDEX_FILE, MEMORY_FILE, Place
from backend.disk.memory_file import written_memory_id
from backend.disk.versions import Version

_NEXT_CALIBRATION_FILE = ".calib.next.json"


def put_back(place: Place, version: Version, *, with_calibration: bool) -> None:
    """Replace the model at a place by a version, with its calibration or none; the caller holds the lock."""
    calibration = version.folder / CALIBRATION_FILE if with_calibration else None
    memory = version.folder / MEMORY_FILE
    if not (place.memory.exists() and versions.same(memory, place.memory)):
        # So that each bank is found with its own calibration, before the rename and after; what is there may be it.
        # Of the same bank, in a file that says other things about its making, it would be found too early.
        is_other_bank = written_memory_id(place.memory) != written_memory_id(memory)
        is_there = place.calibration.exists() and calibration and versions.same(calibration, place.calibration)
        if calibration and is_other_bank and not is_there:
            versions.put_back(calibration, place.memory.with_name(_NEXT_CALIBRATION_FILE))
        place.memory.with_name(INDEX_FILE).unlink(missing_ok=True)
        versions.put_back(memory, place.memory)
        finish_put_back(place)
        if calibration and not is_other_bank:
            versions.put_back(calibration, place.calibration)
    elif calibration:
        versions.put_back(calibration, place.calibration)
    if not calibration:
        place.calibration.unlink(missing_ok=True)
        sync_folder(place.calibration.parent)


def finish_put_back(place: Place) -> None:
    """Give the calibration that waits for its memory bank its name, if that came; the caller holds the lock."""
    waiting = place.memory.with_name(_NEXT_CALIBRATION_FILE)
    calibration = read_next_calibration(place.memory)
    if calibration is not None and calibration.memory_id == written_memory_id(place.memory):
        waiting.replace(place.calibration)
        sync_folder(waiting.parent)
    else:
        waiting.unlink(missing_ok=True)


def read_next_calibration(memory: Path) -> Calibration | None:
    """The calibration that waits for the memory bank of this file; None where there is none, or a damaged one."""
    try:
        return read_calibration(memory.with_name(_NEXT_CALIBRATION_FILE))
    except StorageError:
        return None
