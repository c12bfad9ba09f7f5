"""Requests and replies about the known scores of stored images."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from backend.api.schemas.common import ModelReply, Reply, RoiIds, RoiReply, empty_is_none
from backend.api.schemas.datasets import Label
from backend.api.schemas.inspection import DecidedBy, UploadedAs
from backend.common.errors import ErrorCode


class ScoresQuery(RoiIds):
    """Query of ``GET /datasets/scores``."""

    label: Annotated[Label | None, BeforeValidator(empty_is_none)] = Field(
        None, description="default: both classes", examples=[None]
    )
    offset: int = Field(0, ge=0, le=10_000_000, description="number of images to skip", examples=[0])
    limit: int = Field(1000, ge=1, le=10_000, description="most images in a reply", examples=[1000])


class KnownScoreReply(Reply):
    """A stored image, with its score if it is known."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    uploaded_as: UploadedAs = None
    known: bool = Field(description="false: the score is unknown; /infer_dataset and /infer make one", examples=[True])
    score: float | None = Field(None, description="left out if it is unknown", examples=[0.4312])
    honest: bool | None = Field(
        None,
        description="whether the memory bank that gave the score contains neither the image nor one that looks "
        "nearly the same; left out if this is unknown",
        examples=[True],
    )
    in_fit: bool | None = Field(
        None, description="whether it is an image of the fit; left out if this is unknown", examples=[True]
    )
    error: str | None = Field(None, description="why the image cannot be scored")
    code: ErrorCode | None = Field(None, description="error code for programs; left out like error")


class ScoresReply(RoiReply):
    """The stored images of a ROI with their known scores."""

    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    threshold: float | None = Field(
        None, description="threshold that /infer applies; left out if there is none", examples=[0.5512]
    )
    decide_by: DecidedBy = None
    calib: dict[str, Any] | None = Field(
        None,
        description="the calibration that /infer applies; left out if there is none",
        examples=[{"threshold": 0.5512, "p99_ok": 0.4394}],
    )
    score_percentile: float = Field(description="percentile of the distance map that is the score", examples=[99.0])
    images: list[KnownScoreReply]
    n_total: int = Field(
        description="number of stored images, including those that are not in this reply", examples=[1]
    )
    n_unknown: int = Field(description="number of images of this reply without a score", examples=[0])
    model: ModelReply
