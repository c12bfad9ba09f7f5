"""Requests and replies about stored judgements."""

from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from backend.api.schemas.common import MEMORY_ID, Reply, RoiIds, RoiReply, empty_is_none
from backend.api.schemas.datasets import Label

_MOST = (1 << 63) - 1


def _in_utc(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)


def _with_plus(value: Any) -> Any:
    """In a query, an unencoded plus of ``+00:00`` arrives as a blank."""
    return value.replace(" ", "+") if isinstance(value, str) and "T" in value else empty_is_none(value)


_Time = Annotated[Annotated[datetime, AfterValidator(_in_utc)] | None, BeforeValidator(_with_plus)]


class HistoryQuery(RoiIds):
    """Query of ``GET /history``."""

    decision: Annotated[Label | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="decision of the judgements; default: any, including those without a threshold",
        examples=[None],
    )
    since_utc: _Time = Field(
        None, description="only judgements from this time on, ISO 8601; UTC if it has no offset", examples=[None]
    )
    until_utc: _Time = Field(None, description="only judgements before this time", examples=[None])
    before: int | None = Field(
        None, ge=1, le=_MOST, description="only judgements with smaller numbers: next of a reply", examples=[None]
    )
    limit: int = Field(100, ge=1, le=1000, description="most judgements in a reply", examples=[100])


class JudgementNumber(RoiIds):
    """Query of requests about one stored judgement."""

    number: int = Field(ge=1, le=_MOST, description="number of the judgement in /history", examples=[1])


class JudgementReply(Reply):
    """The judgement of one inference."""

    number: int = Field(description="number of the judgement, greater than those of all earlier ones", examples=[48222])
    at_utc: str = Field(examples=["2026-11-23T02:10:24.123456+00:00"])
    score: float = Field(examples=[0.6121])
    threshold: float | None = Field(None, description="left out without a threshold", examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(None, description="left out without a threshold", examples=["ng"])
    decide_by: Literal["region", "either"] | None = Field(
        None, description="what decided; left out if the score decides", examples=[None]
    )
    pixel_threshold: float | None = Field(None, description="left out if the score decides", examples=[None])
    mm_per_px: float = Field(examples=[0.2])
    memory_id: str = MEMORY_ID
    request_id: str | None = Field(None, examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class HistoryReply(RoiReply):
    """Stored judgements of a ROI, the newest first."""

    keeps: int = Field(description="number of judgements that are kept: HISTORY", examples=[1000])
    judgements: list[JudgementReply]
    next: int | None = Field(None, description="send it as before for older judgements; left out if there are none")
