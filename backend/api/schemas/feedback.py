"""Requests and replies of feedback on one image."""

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
    """Form fields of ``POST /feedback`` besides the image."""

    mm_per_px: Annotated[MillimetresPerPixel | None, BeforeValidator(empty_is_none)] = Field(
        None, description="millimetres per pixel of the image; default: the scale of the calibration", examples=[None]
    )

    verdict: Literal["good", "bad"] = Field(
        description="good: rejecting the part was wrong; bad: accepting it was wrong",
        examples=["good"],
    )
    shape: str | None = Field(None, description="mask in pixels of the uploaded image, as in /infer", examples=[None])
    dry_run: bool = Field(False, description="only report what would change", examples=[True])

    @field_validator("dry_run", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if isinstance(value, str) and not value.strip() else value


class KnownReply(Reply):
    """The known images at a threshold: those whose scores it was chosen from."""

    threshold: float = Field(examples=[0.5512])
    n_ok: int = Field(description="number of good images that count", examples=[30])
    n_rejected: int = Field(description="number of those at or above the threshold", examples=[1])
    rejected: list[UnusualReply] = Field(description=f"these images, at most {_MOST_IMAGES}", examples=[[]])
    n_ng: int = Field(description="number of defective images", examples=[12])
    n_escaped: int = Field(description="number of those below the threshold", examples=[0])
    escaped: list[UnusualReply] = Field(description=f"these images, at most {_MOST_IMAGES}", examples=[[]])


def known_reply(known: Known) -> KnownReply:
    """The known images, in the form of the reply."""
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
    """What the feedback changed; with dry_run, what it would change."""

    verdict: Literal["good", "bad"] = Field(examples=["good"])
    dry_run: bool = Field(description="true: nothing was stored", examples=[True])
    changed: bool = Field(
        description="false: the image already counted like that, so nothing changes; the warning says so",
        examples=[True],
    )
    text: str = Field(
        description="what the change means, in words",
        examples=[
            "part7.png scores 0.6121 and is rejected at 0.5512. The threshold changes from 0.5512 to 0.5893: 1 of 31 "
            "good images are rejected (before: 0 of 30), and 0 of 12 defective images escape (before: 0 of 12). 9 of "
            "its patches join the memory bank, which then has 706; by that bank it scores 0.4127. The scores of the "
            "other known images stay the same: their embeddings are not stored, so the new memory bank cannot score "
            "them."
        ],
    )
    score: float = Field(description="score of the image by the previous model", examples=[0.6121])
    decision: Literal["ok", "ng"] = Field(description="previous decision on the image", examples=["ng"])
    score_after: float | None = Field(
        None, description="score by the memory bank that the image joins; left out for bad images", examples=[0.4127]
    )
    before: KnownReply = Field(description="the known images with the previous calibration")
    after: KnownReply = Field(
        description="the known images with the new calibration; honest scores of older images stay the same"
    )
    n_rejected_if_caught: int = Field(
        description="number of known good images with the same score or a higher one: a threshold that rejects this "
        "image also rejects them",
        examples=[1],
    )
    n_added: int = Field(description="number of embeddings that the memory bank gains", examples=[9])
    coreset_size: int = Field(description="number of embeddings in the memory bank afterwards", examples=[706])
    memory_id: str = MEMORY_ID
    rule: Literal["recommended", "cost", "manual"] | None = Field(
        None, description="rule of the new calibration; left out for the rule of the contract", examples=[None]
    )
    why: str | None = Field(None, description="basis of the threshold, with rule=recommended", examples=[None])
    promise: PromiseReply | None = Field(None, description="promise of the new threshold")
    warning: str | None = Field(None, description="what is doubtful, useless or dangerous about the change")
    model: ModelReply = Field(description="model afterwards; with dry_run, as it would be")
