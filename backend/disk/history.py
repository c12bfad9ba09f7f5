"""The earlier versions of a model: which exist, and their contents as models."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from backend.common.errors import (
    Conflict,
    DamagedCalibration,
    DamagedMemory,
    IncompatibleMemory,
    StorageError,
    VersionNotFound,
)
from backend.common.files import make_folder, open_to_read, replace, sync_folder
from backend.common.roi_key import RoiKey
from backend.disk import versions
from backend.disk.calibration_file import read_calibration
from backend.disk.calibration_inputs import kept_inputs, tidy_inputs
from backend.disk.fitted import CalibrationState, FittedRoi, applicable
from backend.disk.layout import CALIBRATION_FILE, HISTORY_FOLDER, MEMORY_FILE, ModelFiles
from backend.disk.memory_file import StoredMemory, read_memory, summarise
from backend.disk.rollback import next_calibration
from backend.disk.versions import Version
from backend.utils import utc_now

Find = Callable[[RoiKey], tuple[ModelFiles, StoredMemory] | None]
"""What the model of a ROI is served from."""

log: Any = structlog.get_logger(__name__)


def served(files: ModelFiles) -> tuple[dict[str, Any], list[Path]]:
    """The `VersionFacts` of the served model, and its files: memory, calibration, and the inputs of the calibration.

    Nothing if this service wrote no memory bank for this ROI, or if it is damaged: those are not kept.
    """
    memory = summarise(files.memory)
    if memory is None or memory.owner not in (None, files.key):
        return {}, []
    calibration = None
    with contextlib.suppress(StorageError):
        calibration = read_calibration(files.calibration)
    belongs = calibration is not None and calibration.memory_id == memory.facts["memory_id"]
    inputs = kept_inputs(files.calibration) if belongs else None
    return memory.facts, [files.memory, *([files.calibration] if belongs else []), *([inputs] if inputs else [])]


def replaced(files: ModelFiles) -> list[Version]:
    """The kept versions, without one that is still served: it was kept for a change that has not happened.

    Raises:
        StorageError: they cannot be read.
    """
    try:
        kept = versions.kept(files.memory.parent)
    except OSError as exc:
        raise StorageError(f"the kept versions cannot be read ({exc.strerror}); check the models folder") from exc
    with contextlib.suppress(OSError):  # files are replaced meanwhile: then it has come
        if kept and kept[0].holds(served(files)[1]):
            return kept[1:]
    return kept


def choose(key: RoiKey, files: ModelFiles, number: int | None, find: Find) -> Version:
    """The version with a number.

    Args:
        key: the ROI.
        files: of its own model.
        number: None names the newest.
        find: gives the model that the ROI uses.

    Raises:
        VersionNotFound: there is no such version.
        Conflict: the ROI has no model of its own, and uses that of another ROI.
        StorageError: the versions cannot be read.
    """
    kept = replaced(files)
    for version in kept:
        if number in (None, version.number):
            return version
    if kept:
        numbers = ", ".join(str(version.number) for version in reversed(kept))
        raise VersionNotFound(f"{key} has no version {number}; its versions are {numbers}")
    with contextlib.suppress(StorageError, IncompatibleMemory):  # its own, which a fit mends
        found = find(key)
        if found is not None and found[0].memory != files.memory:
            raise Conflict(
                f"{key} has no model of its own to roll back: it uses that of {found[0].key}, layout "
                f"{found[0].layout}; ask for the versions of that model by its ids"
            )
    raise VersionNotFound(f"no earlier model of {key} is kept: the model was not replaced yet, or KEEP_VERSIONS is 0")


def first_readable(candidates: Sequence[Version], owner: RoiKey, blur_sigma: float | None) -> Version:
    """The first version that is not damaged.

    Args:
        candidates: at least one.
        owner, blur_sigma: as for `read_version`.

    Raises:
        DamagedMemory: all are damaged; the message is about the first.
        IncompatibleMemory, StorageError: as `read_version`.
    """
    damaged = []
    for version in candidates:
        try:
            read_version(version, owner, blur_sigma)
        except DamagedMemory as exc:
            damaged.append(exc)
            log.warning("version.not_read", version=version.number, reason=str(exc))
        else:
            return version
    raise damaged[0]


def read_version(version: Version, owner: RoiKey, blur_sigma: float | None) -> FittedRoi:
    """The model of a version.

    Args:
        version: to be read.
        owner: the ROI that it must have been fitted for.
        blur_sigma: as for `applicable`.

    Raises:
        DamagedMemory: its memory bank or its calibration is damaged.
        IncompatibleMemory: it is another ROI's, or its embeddings are not L2-normalised.
        StorageError: it cannot be read.
    """
    name = f"{MEMORY_FILE} of version {version.number}"
    try:
        with open_to_read(version.folder / MEMORY_FILE) as file:
            loaded = read_memory(file, name)
    except FileNotFoundError as exc:
        raise DamagedMemory(f"the stored {name} is missing; nothing was changed") from exc
    except OSError as exc:
        raise StorageError(f"the stored {name} cannot be read ({exc.strerror}); nothing was changed") from exc
    if loaded.memory_id != version.facts.memory_id:  # written over, and it is the same file as the model's
        raise DamagedMemory(f"the stored {name} is damaged: it holds another memory bank; nothing was changed")
    if (other := loaded.owner) not in (None, owner):
        raise IncompatibleMemory(f"version {version.number} was fitted for {other}, not for {owner}: refit instead")
    try:
        calibration = read_calibration(version.folder / CALIBRATION_FILE)
    except DamagedCalibration as exc:
        raise DamagedMemory(
            f"the {CALIBRATION_FILE} of version {version.number} is damaged; nothing was changed"
        ) from exc
    belongs = calibration is not None and calibration.memory_id == loaded.memory_id
    calibration = applicable(calibration, loaded.memory_id, blur_sigma)
    state: CalibrationState = "applied" if calibration else "stale" if belongs else "none"
    return FittedRoi(loaded.memory, loaded.memory_id, loaded.metadata, owner, "current", calibration, state, owner)


def tidy(files: ModelFiles, served_files: Sequence[Path], most: int, spare: int | None) -> None:
    """Delete versions as `versions.tidy` does, and files that belong to no calibration.

    If this fails, the log warns, and the next change repeats it.
    """
    try:
        versions.tidy(files.memory.parent, served_files, most, spare)
        tidy_inputs(files.calibration.parent, [files.calibration, next_calibration(files.memory)])
    except OSError as exc:  # the next change does it: no change fails for it
        log.warning("versions.not_tidied", reason=exc.strerror)


def set_aside_if_damaged(calibration: Path) -> None:
    """Move away a calibration that would make a new model fail; the caller holds the lock."""
    try:
        read_calibration(calibration)
    except DamagedCalibration as damaged:
        history = calibration.parent / HISTORY_FOLDER
        try:
            make_folder(history)
            replace(calibration, history / f"calib-unreadable-{utc_now():%Y%m%d-%H%M%S-%f}.json")
            sync_folder(history)
            sync_folder(calibration.parent)
        except OSError as exc:  # the model is stored, and no fit fails for what comes after
            log.warning("calibration.not_set_aside", reason=exc.strerror)
        else:
            log.warning("calibration.set_aside", reason=str(damaged))
    except StorageError as exc:  # which may pass, and says nothing of what is in it
        log.warning("calibration.not_read", reason=str(exc))
