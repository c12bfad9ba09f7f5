"""The routes of drift: what is known about the production of a ROI, and the reset after its cause is repaired."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.schemas.common import RoiIds
from backend.api.schemas.drift import (
    DriftingReply,
    DriftingRoiReply,
    DriftReply,
    DriftResetRequest,
    RecentReply,
    ScoreSummaryReply,
)
from backend.scores.drift_detector import ALARM_AT
from backend.scores.drift_statistics import RoiDrift
from backend.service.drift import DriftLog, DriftStatus

router = APIRouter()


@router.get(
    "/drift",
    summary="Tell whether the production of a ROI drifts.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["read"],
)
def drift(ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe) -> DriftReply:
    """Whether the production of a ROI drifts away from its calibration; up to two seconds old."""
    key = roi_key(ids, recipe)
    status = service.drift.status(key, service.state(key).fitted)
    return DriftReply(**ids_of(key, request_id), **_numbers(service.drift, status))


@router.get(
    "/drift/rois",
    summary="List the ROIs that drift.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["/runs"],
)
def drifting(service: Service, request_id: RequestId) -> DriftingReply:
    """Every ROI that drifts."""
    rois = []
    for found in service.drift.drifting():
        ids = ids_of(found.key, request_id)
        del ids["request_id"]
        rois.append(DriftingRoiReply(**ids, **_numbers(service.drift, service.drift.judge(found))))
    return DriftingReply(rois=rois, request_id=request_id)


@router.post(
    "/drift/reset",
    summary="Restart the statistics after a drift.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["/drift/reset"],
)
def reset(body: DriftResetRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> DriftReply:
    """Restart the statistics, after the cause of a drift is repaired or accepted."""
    key = roi_key(body, recipe)
    fitted = service.fitted(key)
    service.drift.reset(key, fitted, body.reference)
    return DriftReply(**ids_of(key, request_id), **_numbers(service.drift, service.drift.status(key, fitted)))


def _numbers(log: DriftLog, status: DriftStatus) -> dict[str, Any]:
    found = status.drift
    numbers: dict[str, Any] = {
        "verdict": status.verdict,
        "reason": status.reason,
        "n_parts": 0,
        "n_rejected": 0,
        "alarm_at": ALARM_AT,
    }
    if found is None:
        return numbers
    numbers |= {
        "started_at_utc": found.started_utc,
        "last_at_utc": found.last_utc,
        "n_parts": found.n_parts,
        "n_rejected": found.n_rejected,
        "tolerated_reject_rate": found.tolerated(log.defective),
        "recent": _recent(found),
        "reference": _reference(found),
    }
    if found.threshold is not None:
        numbers["evidence"] = found.detector(log.defective).evidence
    if found.alarm is not None:
        numbers |= {"direction": found.alarm, "since_utc": found.alarm_utc, "since_part": found.alarm_part}
    return numbers


def _recent(found: RoiDrift) -> RecentReply | None:
    if not found.recent:
        return None
    scores = np.asarray(found.recent)
    p5, p50, p95 = np.percentile(scores, (5, 50, 95)).tolist()
    rate = None if found.threshold is None else float(np.mean(scores >= found.threshold))
    return RecentReply(n=len(scores), p5=p5, p50=p50, p95=p95, mean=float(scores.mean()), reject_rate=rate)


def _reference(found: RoiDrift) -> ScoreSummaryReply | None:
    if found.reference_summary is None:
        return None
    p5, p50, p95 = found.reference_summary
    return ScoreSummaryReply(n=sum(found.reference.values()), p5=p5, p50=p50, p95=p95)
