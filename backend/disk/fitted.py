"""A model as it was found on disk, and the calibration that belongs to it."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from backend.block_memory import Memory
from backend.calib import Calibration
from backend.common.errors import DamagedCalibration, StaleModel, StorageError
from backend.common.profiles import ProfileName, profile_of
from backend.common.roi_key import RoiKey
from backend.disk.calibration_file import parse_calibration, read_calibration, read_calibration_bytes
from backend.disk.calibration_inputs import CalibrationInputs, read_inputs
from backend.disk.layout import Layout, ModelFiles, current_files
from backend.disk.rollback import next_calibration, read_next_calibration
from backend.tiles import detail_of

CalibrationState = Literal["none", "applied", "stale"]


@dataclass(frozen=True)
class FittedRoi:
    """A model as it was found on disk.

    Attributes:
        memory: the memory bank.
        memory_id: hash of its embeddings.
        metadata: what the fit recorded about it; empty in files of other backends.
        key: the ROI that it is stored under: that of the default recipe, if the recipe has no model.
        layout: ``"current"``, or the older layout it was found in: ``"L0"`` … ``"L4"``.
        calibration: the calibration made for this memory bank, if there is one.
        calibration_state: ``"stale"`` if the only calibration belongs to another memory bank, or to other scores.
        calibrated: the ROI of this calibration; `key` if none is applied.
    """

    memory: Memory
    memory_id: str
    metadata: dict[str, Any]
    key: RoiKey
    layout: Layout
    calibration: Calibration | None
    calibration_state: CalibrationState
    calibrated: RoiKey

    @property
    def profile(self) -> ProfileName:
        """Of the memory bank."""
        return profile_of(self.metadata)

    @property
    def detail(self) -> int:
        """Tiles along each side of the ROI, of the memory bank."""
        return detail_of(self.metadata)


class JudgedBy(NamedTuple):
    """`memory_id`, `calibration` and `calibrated` of a `FittedRoi`."""

    memory_id: str
    calibration: Calibration | None
    calibrated: RoiKey


def calibrated_as(key: RoiKey, stored: RoiKey) -> RoiKey:
    """The ROI under which the calibration of `key` is stored, if its memory bank is that of `stored`."""
    return key if key.recipe_id is None else replace(key, role_id=stored.role_id, model_key=stored.model)


def applicable(calibration: Calibration | None, memory_id: str, blur_sigma: float | None) -> Calibration | None:
    """A calibration, if its scores match those that a memory bank gives now.

    Args:
        calibration: as it was read.
        memory_id: identity of the bank.
        blur_sigma: of the current maps; None applies calibrations of any blur.
    """
    if calibration is None or calibration.memory_id != memory_id:
        return None
    is_of_other_maps = None not in (blur_sigma, calibration.blur_sigma) and calibration.blur_sigma != blur_sigma
    return None if is_of_other_maps else calibration


def calibration_for(
    root: Path, key: RoiKey, files: ModelFiles, memory_id: str, blur_sigma: float | None
) -> tuple[Calibration | None, CalibrationState, RoiKey]:
    """The calibration for a memory bank, its state, and its ROI.

    Args:
        root: the models folder.
        key: the requested ROI.
        files: where its memory bank was found.
        memory_id: identity of the bank.
        blur_sigma: as for `applicable`.

    Raises:
        StorageError: a calibration is damaged or cannot be read.
    """
    own = current_files(root, calibrated_as(key, files.key))
    owners = {own.calibration: own.key}
    if files.layout == "current":
        owners.setdefault(files.calibration, files.key)
    ours = []
    for file, owner in owners.items():
        if files.layout == "current" and file == files.calibration:
            # Asked first, as it becomes the other: who asks in this order and misses it has read the other too
            # early.
            next_one = applicable(read_next_calibration(files.memory), memory_id, blur_sigma)
            if next_one is not None:
                return next_one, "applied", files.key
        calibration = read_calibration(file)
        if applicable(calibration, memory_id, blur_sigma) is not None:
            return calibration, "applied", owner
        ours.append(calibration)
    # Older backends did not write which memory a calibration belongs to: it is the one it lies beside. Beside a
    # memory of ours, a calibration that names no memory or another one was made for an earlier fit.
    beside = None if files.layout == "current" else read_calibration(files.calibration)
    if beside is not None and beside.memory_id is None:
        return beside, "applied", files.key
    return None, "none" if all(calibration is None for calibration in ours) else "stale", files.key


def refuse_if_calibrated_since(
    root: Path, key: RoiKey, files: ModelFiles, fitted: FittedRoi, blur_sigma: float | None
) -> None:
    """Check that the calibration of a model has not changed since it was read; the caller holds the lock.

    Args:
        root, key, files, blur_sigma: as for `calibration_for`.
        fitted: the model as it was read; it has the same memory bank now.

    Raises:
        StaleModel: it has changed.
        StorageError: as `calibration_for`.
    """
    now, _, whose = calibration_for(root, key, files, fitted.memory_id, blur_sigma)
    if (now, whose) != (fitted.calibration, fitted.calibrated):
        raise StaleModel(f"{key} was calibrated anew meanwhile; nothing was stored: send it again")


def inputs_of(root: Path, fitted: FittedRoi) -> CalibrationInputs | None:
    """The inputs of the calibration of a model.

    Args:
        root: the models folder.
        fitted: the model, with its calibration.

    Returns:
        None if they were not stored: by an earlier version, or because there were too many scores.

    Raises:
        StaleModel: the model was calibrated again since it was read.
        StorageError: the file cannot be read.
    """
    files = current_files(root, fitted.calibrated)
    for path in (next_calibration(files.memory), files.calibration):
        with contextlib.suppress(DamagedCalibration):  # the other one is what it was read from
            content = read_calibration_bytes(path)
            if content is not None and parse_calibration(content) == fitted.calibration:
                return _read_inputs(files.calibration, content)
    if fitted.layout != "current":
        return None
    raise StaleModel(f"{fitted.key} was calibrated anew meanwhile: send it again")


def _read_inputs(calibration: Path, content: bytes) -> CalibrationInputs | None:
    try:
        return read_inputs(calibration, content)
    except OSError as exc:
        raise StorageError(f"the scores of the calibration cannot be read ({exc.strerror})") from exc
