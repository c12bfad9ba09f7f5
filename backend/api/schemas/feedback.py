"""What feedback on one image says, and what it replies."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from backend.api.schemas.calibration import PromiseReply, UnusualReply
from backend.api.schemas.common import (
    MEMORY_ID,
    MillimetresPerPixel,
    ModelReply,
    Reply,
    RoiIds,
    RoiReply,
    TellsUnknown,
    empty_is_none,
)
from backend.service.consequences import Known

_MOST_IMAGES = 100


class FeedbackFields(RoiIds, TellsUnknown):
    """Form fields of ``POST /feedback`` beside the image."""

    mm_per_px: Annotated[MillimetresPerPixel | None, BeforeValidator(empty_is_none)] = Field(
        None, description="millimetres per pixel of the image; default that of the calibration", examples=[None]
    )

    verdict: Literal["good", "bad"] = Field(
        description="what the part is: good, so that rejecting it was wrong, or bad, so that accepting it was",
        examples=["good"],
    )
    shape: str | None = Field(None, description="mask in pixels of the uploaded image, as of /infer", examples=[None])
    dry_run: bool = Field(False, description="only say what would change", examples=[True])

    @field_validator("dry_run", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if isinstance(value, str) and not value.strip() else value


class KnownReply(Reply):
    """The known images by a threshold: those whose scores it was chosen from."""

    threshold: float = Field(examples=[0.5512])
    n_ok: int = Field(description="good images that count", examples=[30])
    n_rejected: int = Field(description="those of them at or above the threshold", examples=[1])
    rejected: list[UnusualReply] = Field(description=f"which, {_MOST_IMAGES} at most", examples=[[]])
    n_ng: int = Field(description="defective images", examples=[12])
    n_escaped: int = Field(description="those of them below the threshold", examples=[0])
    escaped: list[UnusualReply] = Field(description=f"which, {_MOST_IMAGES} at most", examples=[[]])


def known_reply(known: Known) -> KnownReply:
    """The known images, as clients read it."""
    images = {
        name: [
            UnusualReply(
                position=position, score=image.score, filename=image.name, uploaded_as=image.uploaded_as or None
            )
            for position, image in of_kind[:_MOST_IMAGES]
        ]
        for name, of_kind in (("rejected", known.rejected), ("escaped", known.escaped))
    }
    return KnownReply(
        threshold=known.threshold,
        n_ok=len(known.good),
        n_rejected=len(known.rejected),
        n_ng=known.n_ng,
        n_escaped=len(known.escaped),
        **images,
    )


class FeedbackReply(RoiReply):
    """What feedback changed; with dry_run what it would change."""

    verdict: Literal["good", "bad"] = Field(examples=["good"])
    dry_run: bool = Field(description="true: nothing was stored", examples=[True])
    changed: bool = Field(
        description="false: the image counted as that before, so nothing changes; the warning says so", examples=[True]
    )
    text: str = Field(
        description="what it means, in words",
        examples=[
            "part7.png scores 0.6121 and is rejected at 0.5512. The threshold goes from 0.5512 to 0.5893: of good "
            "images 1 of 31 are rejected (before: 0 of 30), of defective images 0 of 12 escape (before: 0 of 12). 9 "
            "patches of it join the memory bank (706 then); by that bank it scores 0.4127. Scores of the other known "
            "images stay as they were: their embeddings are not stored, so they are not scored by the new memory bank."
        ],
    )
    score: float = Field(description="of the image by the model before", examples=[0.6121])
    decision: Literal["ok", "ng"] = Field(description="on it before", examples=["ng"])
    score_after: float | None = Field(
        None, description="by the memory bank that it joins; left out for bad images", examples=[0.4127]
    )
    before: KnownReply = Field(description="the known images by the calibration before")
    after: KnownReply = Field(description="by the one after; honest scores of older images stay as they were")
    n_rejected_if_caught: int = Field(
        description="known good images that score as high as this image, or higher: a threshold that rejects it "
        "rejects them, too",
        examples=[1],
    )
    n_added: int = Field(description="embeddings that the memory bank gains", examples=[9])
    coreset_size: int = Field(description="embeddings in the memory bank afterwards", examples=[706])
    memory_id: str = MEMORY_ID
    rule: Literal["recommended", "cost", "manual"] | None = Field(
        None, description="by which it is calibrated again; left out for the contract's", examples=[None]
    )
    why: str | None = Field(None, description="what the threshold rests on, by rule=recommended", examples=[None])
    promise: PromiseReply | None = Field(None, description="of the threshold afterwards")
    warning: str | None = Field(None, description="what is doubtful, pointless or dangerous about it")
    model: ModelReply = Field(description="afterwards, with dry_run as it would be")
