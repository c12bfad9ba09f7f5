"""Putting a kept version back in place, so that a death at any instant leaves the one model or the other.

The rename of the memory bank is what decides, as for a fit. Its calibration waits beside it until then, and is applied
from the moment that the bank is there. Where both have the same bank, and differ in what else is known about it, the
threshold that was served is served until the version's comes after.
"""

from pathlib import Path

from backend.calib import Calibration
from backend.common.errors import StorageError
from backend.common.files import delete, replace, sync_folder, write_atomic
from backend.disk import versions
from backend.disk.calibration_file import read_calibration
from backend.disk.calibration_inputs import CalibrationInputs, is_of_inputs, with_inputs
from backend.disk.layout import CALIBRATION_FILE, INDEX_FILE, MEMORY_FILE, ModelFiles
from backend.disk.memory_file import written_memory_id
from backend.disk.versions import Version

NEXT_CALIBRATION_FILE = ".calib.next.json"


def restore_model(files: ModelFiles, version: Version, *, with_calibration: bool) -> None:
    """Replace the model at a place by a version, with its calibration or none; the caller holds the lock."""
    calibration = version.folder / CALIBRATION_FILE if with_calibration else None
    memory = version.folder / MEMORY_FILE
    if calibration:  # first, as it is written before its calibration
        for inputs in (path for path in version.folder.iterdir() if is_of_inputs(path.name)):
            versions.restore_file(inputs, files.calibration.with_name(inputs.name))
    if not (files.memory.exists() and versions.same(memory, files.memory)):
        # So that each bank is found with its own calibration, before the rename and after; what is there may be it.
        # Of the same bank, in a file that says other things about its making, it would be found too early.
        is_other_bank = written_memory_id(files.memory) != written_memory_id(memory)
        is_there = files.calibration.exists() and calibration and versions.same(calibration, files.calibration)
        if calibration and is_other_bank and not is_there:
            versions.restore_file(calibration, next_calibration(files.memory))
        delete(files.memory.with_name(INDEX_FILE))
        versions.restore_file(memory, files.memory)
        finish_restore(files)
        if calibration and not is_other_bank:
            versions.restore_file(calibration, files.calibration)
    elif calibration:
        versions.restore_file(calibration, files.calibration)
    if not calibration:
        delete(files.calibration)
        sync_folder(files.calibration.parent)


def finish_restore(files: ModelFiles) -> None:
    """Give the calibration that waits for its memory bank its name, if that came; the caller holds the lock."""
    waiting = next_calibration(files.memory)
    calibration = read_next_calibration(files.memory)
    if calibration is not None and calibration.memory_id == written_memory_id(files.memory):
        replace(waiting, files.calibration)
        sync_folder(waiting.parent)
    else:
        delete(waiting)


def next_calibration(memory: Path) -> Path:
    """Where a calibration waits for its memory bank: in force from the moment that the bank is there."""
    return memory.with_name(NEXT_CALIBRATION_FILE)


def write_next_calibration(files: ModelFiles, content: bytes, inputs: CalibrationInputs | None) -> None:
    """Let a calibration wait for its memory bank; the caller holds the lock, writes that, and calls `finish_restore`.

    Args:
        files: of the model.
        content: of the calibration.
        inputs: what it was made from, kept beside it.

    Raises:
        OSError: it cannot be written; nothing changed.
    """
    named = with_inputs(files.calibration, content, inputs)
    write_atomic({next_calibration(files.memory) if path == files.calibration else path: named[path] for path in named})


def read_next_calibration(memory: Path) -> Calibration | None:
    """The calibration that waits for the memory bank of this file; None if there is none, or a damaged one."""
    try:
        return read_calibration(next_calibration(memory))
    except StorageError:
        return None
