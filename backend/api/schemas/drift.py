"""Requests and replies about the drift of a production."""

from typing import Literal

from pydantic import Field

from backend.api.schemas.common import KnownOnly, Reply, RoiIds, RoiReply


class DriftResetRequest(RoiIds, KnownOnly):
    """Body of ``POST /drift/reset``."""

    reference: Literal["calibration", "production"] = Field(
        "calibration",
        description="reference from now on: the OK scores of the calibration (409 if they are unknown), or the next "
        "parts",
        examples=["calibration"],
    )


class ScoreSummaryReply(Reply):
    """A summary of scores."""

    n: int = Field(examples=[200])
    p5: float = Field(examples=[0.41])
    p50: float = Field(examples=[0.44])
    p95: float = Field(examples=[0.49])


class RecentReply(ScoreSummaryReply):
    """The last parts, at most 200."""

    mean: float = Field(examples=[0.446])
    reject_rate: float | None = Field(
        None, description="share at or above the threshold; left out without a threshold", examples=[0.02]
    )


class DriftNumbers(Reply):
    """What is known about the production of a ROI."""

    verdict: Literal["ok", "drift", "collecting", "none"] = Field(
        description="none: no calibration is applied; collecting: too few scores for a comparison", examples=["ok"]
    )
    reason: str = Field(examples=["no sign of a change in 48210 parts"])
    direction: Literal["higher", "lower", "rejects"] | None = Field(
        None, description="what changed, if the verdict is drift: the accepted scores or the reject rate"
    )
    since_utc: str | None = Field(None, description="when the drift was noticed")
    since_part: int | None = Field(None, description="number of parts that had been inspected then")
    started_at_utc: str | None = Field(
        None, description="time since which parts are counted", examples=["2026-11-22T21:04:55+00:00"]
    )
    last_at_utc: str | None = Field(
        None, description="time of the last counted part", examples=["2026-11-23T06:10:02+00:00"]
    )
    n_parts: int = Field(examples=[48210])
    n_rejected: int = Field(examples=[961])
    recent: RecentReply | None = Field(None, description="left out before the first part")
    reference: ScoreSummaryReply | None = Field(
        None,
        description="OK scores of the calibration below the threshold; left out if the first parts are the reference",
    )
    evidence: float | None = Field(
        None,
        description="evidence for a change, as the gain of bets on it; drift is reported at alarm_at",
        examples=[5.2],
    )
    alarm_at: float = Field(
        description="mean number of parts until a false alarm, at least, without a change", examples=[1e6]
    )
    tolerated_reject_rate: float | None = Field(
        None,
        description="share of rejected parts that does not count as drift: DRIFT_REJECT_RATE, plus the share of the "
        "other parts that the calibration rejects of its OK scores, at the upper 99 % confidence bound",
        examples=[0.16],
    )


class DriftReply(RoiReply, DriftNumbers):
    """Whether the production of a ROI drifts away from its calibration."""


class DriftingRoiReply(DriftNumbers):
    """A ROI that drifts."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(examples=["default"])
    model_key: str = Field(examples=["Pattern"])


class DriftingReply(Reply):
    """All ROIs that drift, the oldest first."""

    rois: list[DriftingRoiReply]
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])
