"""Restoring an earlier version, so that a crash at any moment leaves one of the two models.

The rename of the memory bank decides, as for a fit. Until then, the calibration waits beside it, and it applies from
the moment that the bank is there. If both versions have the same bank and differ only in its metadata, the old
threshold applies until that of the version follows.
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
    """Replace the model at a place with a version, with or without its calibration; the caller holds the lock."""
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
    """Rename the waiting calibration to its final name, if its memory bank is there; the caller holds the lock."""
    waiting = next_calibration(files.memory)
    calibration = read_next_calibration(files.memory)
    if calibration is not None and calibration.memory_id == written_memory_id(files.memory):
        replace(waiting, files.calibration)
        sync_folder(waiting.parent)
    else:
        delete(waiting)


def next_calibration(memory: Path) -> Path:
    """The file of a calibration that waits for its memory bank: it applies from the moment that the bank is there."""
    return memory.with_name(NEXT_CALIBRATION_FILE)


def write_next_calibration(files: ModelFiles, content: bytes, inputs: CalibrationInputs | None) -> None:
    """Store a calibration that waits for its memory bank; the caller holds the lock, and calls `finish_restore` later.

    Args:
        files: of the model.
        content: of the calibration.
        inputs: its inputs, stored beside it.

    Raises:
        OSError: it cannot be written; nothing changed.
    """
    named = with_inputs(files.calibration, content, inputs)
    write_atomic({next_calibration(files.memory) if path == files.calibration else path: named[path] for path in named})


def read_next_calibration(memory: Path) -> Calibration | None:
    """The calibration that waits for the memory bank of this file; None if there is none, or if it is damaged."""
    try:
        return read_calibration(next_calibration(memory))
    except StorageError:
        return None
