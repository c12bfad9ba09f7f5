"""What a fit does to calibrations."""

from typing import Any

import structlog

from backend.common.errors import StorageError, StoreUnavailable
from backend.common.roi_key import RoiKey
from backend.disk.fitted import CalibrationState
from backend.service.inspection import InspectionService

log: Any = structlog.get_logger(__name__)


def calibration_state(service: InspectionService, key: RoiKey) -> CalibrationState:
    """The state of the ROI's calibration after a fit; the log warns if none applies any more.

    Raises:
        StoreUnavailable: the state is unknown now; the fit is stored.
    """
    try:
        fitted = service.store.load(key)
        state = fitted.calibration_state if fitted else "none"
    except StoreUnavailable:
        raise
    except StorageError:  # a damaged one applies no more either, and inferences say what to do
        state = "stale"
    if state == "stale":
        log.warning("calibration.stale", role_id=key.role_id, roi_id=key.roi_id, hint="fitted anew: calibrate again")
    for other in _stale_in_recipes(service, key):
        log.warning(
            "calibration.stale",
            role_id=other.role_id,
            roi_id=other.roi_id,
            recipe_id=other.recipe_id,
            hint="the model of the default recipe was fitted anew: calibrate again",
        )
    return state


def _stale_in_recipes(service: InspectionService, key: RoiKey) -> list[RoiKey]:
    try:
        return service.store.stale_in_recipes(key)
    except (OSError, StorageError) as exc:  # the model is stored, and no fit fails for what comes after
        log.warning("stale_calibrations.not_counted", reason=str(exc))
        return []
