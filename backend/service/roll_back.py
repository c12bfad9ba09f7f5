"""Restoring an earlier model of a ROI."""

from functools import partial

from backend.common.errors import IncompatibleMemory, ScaleLocked
from backend.common.roi_key import RoiKey
from backend.common.telemetry import annotate
from backend.disk.fitted import FittedRoi
from backend.disk.recipes import same_scale
from backend.disk.versions import Version
from backend.service.inspection import InspectionService, differences_from


def roll_back(service: InspectionService, key: RoiKey, version: int | None = None) -> tuple[Version, FittedRoi]:
    """Restore an earlier version of the ROI's own model, with the calibration of that time.

    Args:
        service: the service.
        key: the ROI.
        version: number of the version; None is the newest.

    Returns:
        The version, and the model that is served now.

    Raises:
        VersionNotFound, Conflict, InvalidRequest, StorageError: as `ModelStore.roll_back`.
        IncompatibleMemory: the version was built by another extractor; nothing was changed.
        ScaleLocked: its scale differs from that of the recipe; nothing was changed.
    """
    chosen, fitted = service.store.roll_back(key, version, accept=partial(_accept, service, key))
    service.drift.forget(key)
    annotate(version=chosen.number, memory_id=fitted.memory_id, calibration=fitted.calibration_state)
    return chosen, fitted


def _accept(service: InspectionService, key: RoiKey, version: Version, fitted: FittedRoi) -> None:
    name = f"version {version.number} of {key}"
    if differences := differences_from(service.features_beside(fitted), fitted):
        raise IncompatibleMemory(
            f"{name} was built by another extractor ({'; '.join(differences)}) and cannot be served; nothing was "
            "changed: roll back to another version, or refit"
        )
    locked, recorded = service.recipes.mm_per_px(key.recipe_id), fitted.metadata.get("mm_per_px")
    if locked is not None and isinstance(recorded, int | float) and not same_scale(locked, recorded):
        raise ScaleLocked(
            f"{name} was fitted at mm_per_px {recorded:g}, but its recipe is locked to {locked:g}; nothing was "
            "changed: roll back to another version, or refit"
        )
