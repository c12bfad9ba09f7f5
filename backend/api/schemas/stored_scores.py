"""What a request for known scores of stored images says, and what it gets back."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from backend.api.schemas.common import ModelReply, Reply, RoiIds, RoiReply, empty_is_none
from backend.api.schemas.datasets import Label
from backend.api.schemas.inspection import DecidedBy, UploadedAs
from backend.common.errors import ErrorCode


class ScoresQuery(RoiIds):
    """Query of ``GET /datasets/scores``."""

    label: Annotated[Label | None, BeforeValidator(empty_is_none)] = Field(
        None, description="left out: both classes", examples=[None]
    )
    offset: int = Field(0, ge=0, le=10_000_000, description="how many images to pass over", examples=[0])
    limit: int = Field(1000, ge=1, le=10_000, description="how many to list at most", examples=[1000])


class KnownScoreReply(Reply):
    """A stored image, and its score where that is known."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    uploaded_as: UploadedAs = None
    known: bool = Field(description="false: no score is known; /infer_dataset and /infer give one", examples=[True])
    score: float | None = Field(None, description="left out where it is not known", examples=[0.4312])
    honest: bool | None = Field(
        None,
        description="whether the memory bank that gave the score has not seen the image, or one that looks nearly the "
        "same; left out where nobody can tell",
        examples=[True],
    )
    in_fit: bool | None = Field(
        None, description="whether it is an image of the fit; left out where nobody can tell", examples=[True]
    )
    error: str | None = Field(None, description="why it cannot be scored")
    code: ErrorCode | None = Field(None, description="the same for programs; left out like error")


class ScoresReply(RoiReply):
    """The stored images of a ROI with their known scores."""

    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    threshold: float | None = Field(None, description="that /infer applies; left out without one", examples=[0.5512])
    decide_by: DecidedBy = None
    score_percentile: float = Field(description="of the distance map, that is the score", examples=[99.0])
    images: list[KnownScoreReply]
    n_total: int = Field(description="stored images, with those that are not in this reply", examples=[1])
    n_unknown: int = Field(description="images of this reply without a score", examples=[0])
    model: ModelReply
