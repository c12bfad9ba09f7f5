"""Requests and replies of calibrations."""

from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, field_validator

from backend.api.schemas.common import ModelReply, Reply, RoiFields, RoiReply, TellsUnknown, empty_is_none, json_number
from backend.calib import DecideBy, RuleName, ThresholdOptions

Score = Annotated[FiniteFloat, Field(strict=True, ge=-1e6, le=1e6)]
# One bad score is named, and not a million of them.
Scores = Annotated[list[Score], Field(fail_fast=True)]
TargetRate = Annotated[FiniteFloat, Field(ge=1e-6, lt=1)]
TARGET_RATE = (
    "choose the threshold so that the next good part is rejected with at most this probability, for any distribution "
    "of scores; default: p99 of OK, or the midpoint between it and p5 of NG"
)

ManualThreshold = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
EscapeCost = Annotated[FiniteFloat, Field(gt=0, le=1e9)]
DefectRate = Annotated[FiniteFloat, Field(gt=0, lt=1)]
Positions = Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(max_length=1_000_000)]
RULE = (
    "contract: p99 of OK, or the midpoint between it and p5 of NG; recommended: the limit that about 2.5 % of good "
    "parts exceed, estimated from the OK scores that do not stand out, and lowered if NG scores are below it"
)
DECIDE_BY = (
    "what makes a part NG. score: its score reaches the threshold; region: a region of at least area_mm2_thr is at "
    "or above a pixel threshold, which is chosen from the same images; either: at least one of the two"
)
PIXEL_THRESHOLD = "use this pixel threshold; needs decide_by=region or decide_by=either"
MANUAL = "use this threshold, and report what it promises"
ESCAPE_COST = "choose the threshold at which a part costs least: what an escaped defective part costs, in rejected "
ESCAPE_COST += "good parts; with defect_rate, and at least 10 NG images"
DEFECT_RATE = "share of defective parts in production; needs escape_cost"
KEEP = "OK scores that stand out but belong to good parts: rule=recommended counts them"
NOT_GOOD = "OK scores that do not belong to good parts: they do not count for the threshold or for its promise"


class ThresholdFields(Protocol):
    """The fields of a request about the choice of the threshold."""

    rule: RuleName
    target_false_reject_rate: float | None
    threshold: float | None
    escape_cost: float | None
    defect_rate: float | None


def threshold_options(fields: ThresholdFields) -> ThresholdOptions:
    """How a request wants its threshold to be chosen."""
    return ThresholdOptions(
        rule=fields.rule,
        target_false_reject_rate=fields.target_false_reject_rate,
        threshold=fields.threshold,
        escape_cost=fields.escape_cost,
        defect_rate=fields.defect_rate,
    )


class CalibrateFields(RoiFields):
    """The fields of a calibration besides its scores."""

    area_mm2_thr: Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    score_percentile: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )
    target_false_reject_rate: TargetRate | None = Field(None, description=TARGET_RATE, examples=[None])
    rule: RuleName = Field("contract", description=RULE, examples=["contract"])
    threshold: ManualThreshold | None = Field(None, description=MANUAL, examples=[None])
    escape_cost: EscapeCost | None = Field(None, description=ESCAPE_COST, examples=[None])
    defect_rate: DefectRate | None = Field(None, description=DEFECT_RATE, examples=[None])
    decide_by: DecideBy = Field("score", description=DECIDE_BY, examples=["score"])
    pixel_threshold: ManualThreshold | None = Field(None, description=PIXEL_THRESHOLD, examples=[None])

    def threshold_options(self) -> ThresholdOptions:
        """How the threshold is chosen, without `keep` and `not_good`."""
        return threshold_options(self)


class CalibrateRequest(CalibrateFields, TellsUnknown):
    """Body of ``POST /calibrate_ng``."""

    ok_scores: Scores = Field(
        min_length=1,
        max_length=1_000_000,
        description="scores of good parts from /infer",
        examples=[[0.41, 0.44, 0.39]],
    )
    ng_scores: Scores | None = Field(
        None, max_length=1_000_000, description="scores of defective parts, if there are any", examples=[[0.72, 0.66]]
    )
    keep: Positions = Field([], description=f"{KEEP}; positions in ok_scores, from 0", examples=[[]])
    not_good: Positions = Field([], description=f"{NOT_GOOD}; positions in ok_scores, from 0", examples=[[]])
    memory_id: Annotated[Annotated[str, Field(max_length=128)] | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="memory bank that gave the scores, as /fit_ok and /infer name it; 409 if the ROI has another one "
        "now; default: the stored one",
        examples=[None],
    )

    @field_validator(
        *("mm_per_px", "area_mm2_thr", "score_percentile", "target_false_reject_rate"),
        *("threshold", "pixel_threshold", "escape_cost", "defect_rate"),
        mode="before",
    )
    @classmethod
    def _are_numbers(cls, value: Any) -> Any:
        return json_number(value)


class PromiseReply(Reply):
    """What the threshold promises for future parts from the same process as the scored ones."""

    model_config = ConfigDict(from_attributes=True)

    confidence: float = Field(description="confidence of each upper bound", examples=[0.95])
    text: str = Field(
        description="the same in words",
        examples=[
            "at most 76 % of good parts are rejected (95 % confidence), if the scores are ok_scores of the fit or of "
            "parts that were not in the fit; 3 OK scores are too few to promise 1 %: 415 more are needed; at most "
            "88 % of parts like the NG ones escape (95 % confidence)"
        ],
    )
    n_rejected: int | None = Field(None, description="OK scores at or above the threshold", examples=[0])
    false_reject_rate: float | None = Field(
        None, description="expected share of good parts at or above the threshold", examples=[0.25]
    )
    false_reject_rate_at_most: float | None = Field(
        None,
        description="upper bound of the share, for any distribution of scores; left out, like the other members "
        "about false rejects, if an OK image was in the fit and its score by the memory bank of the others is unknown",
        examples=[0.7534],
    )
    n_ok_needed: int | None = Field(
        None,
        description="number of OK scores with which this rule promises 1 %, if no more of them are rejected than "
        "now; left out if the rule never does, such as p99 of OK scores alone",
        examples=[418],
    )
    n_ok_missing: int | None = Field(
        None, description="number of OK scores that are still missing; 0 if 1 % is promised", examples=[415]
    )
    n_ok_missing_for_target: int | None = Field(
        None, description="number of further OK scores that target_false_reject_rate needs", examples=[None]
    )
    n_escaped: int | None = Field(None, description="NG scores below the threshold", examples=[0])
    escape_rate: float | None = Field(
        None, description="expected share of defective parts below the threshold", examples=[0.3333]
    )
    escape_rate_at_most: float | None = Field(None, description="upper bound of the share", examples=[0.8775])


class CandidateReply(Reply):
    """How well a percentile separates the images."""

    model_config = ConfigDict(from_attributes=True)

    score_percentile: float = Field(examples=[99.5])
    auroc: float = Field(description="probability that an NG image scores above an OK one", examples=[0.94])
    gap: float = Field(description="lowest NG minus highest OK score", examples=[-0.05])
    gain_in_errors: float | None = Field(
        None,
        description="how far its AUROC is above that of 99, in standard errors; the percentile is chosen from 2.33 "
        "on with many images, from 3.75 on with 5 of a class (Student's 99 %)",
        examples=[0.4],
    )


class PercentileChoiceReply(Reply):
    """Which percentile was chosen, and why."""

    model_config = ConfigDict(from_attributes=True)

    chosen: float = Field(examples=[99])
    reason: str = Field(examples=["99 is kept (AUROC 0.9377): no other percentile separates significantly better"])
    candidates: list[CandidateReply]


class UnusualReply(Reply):
    """An image or a score that influenced the threshold."""

    position: int = Field(description="position among the scores of its class, from 0", examples=[2])
    score: float = Field(examples=[0.61])
    filename: str | None = Field(None, description="name of the image; left out if only scores were sent")
    uploaded_as: str | None = Field(None, description="original name of a stored image")


class RecommendedReply(Reply):
    """The threshold of rule=recommended for the same scores."""

    threshold: float = Field(examples=[0.5126])
    why: str = Field(
        description="basis of the threshold, in words",
        examples=[
            "about 2.5 % of good parts score above 0.5126, estimated from 3 OK scores; 3 are few: 10 or more show "
            "how much good parts vary"
        ],
    )
    positions: list[int] = Field(
        description="positions of the OK scores that stand out and do not count, from 0", examples=[[]]
    )
    threshold_with_unusual: float | None = Field(
        None, description="threshold if these scores counted; left out if none stands out"
    )


class CalibrationNumbers(RoiReply):
    """The numbers of a calibration, in every reply about it."""

    threshold: float = Field(
        description="midpoint of p99_ok and p5_ng, or p99_ok without NG, unless the request chose another threshold",
        examples=[0.5512],
    )
    p99_ok: float = Field(description="99th percentile of the OK scores", examples=[0.4394])
    p5_ng: float | None = Field(None, description="5th percentile of the NG scores", examples=[0.663])
    ok_mean: float = Field(examples=[0.4133])
    ng_mean: float | None = Field(None, examples=[0.69])
    mm_per_px: float = Field(examples=[0.2])
    area_mm2_thr: float = Field(examples=[1.0])
    n_ok: int = Field(examples=[3])
    n_ng: int = Field(examples=[2])
    overlap: bool | None = Field(
        None,
        description="whether an OK score reaches the lowest NG score, so that no threshold separates them",
        examples=[False],
    )
    warning: str | None = Field(
        None,
        description="what the numbers cannot promise, and what in the request is probably a mistake or had no effect",
    )
    target_false_reject_rate: float | None = Field(None, description="the requested rate, if any", examples=[None])
    rule: Literal["recommended", "cost", "manual"] | None = Field(
        None, description="rule that chose the threshold; left out for the rule of the contract", examples=[None]
    )
    why: str | None = Field(
        None, description="basis of the threshold, in words; only with rule=recommended", examples=[None]
    )
    unusual: list[UnusualReply] | None = Field(
        None, description="OK images that stand out and do not count; only with rule=recommended"
    )
    threshold_with_unusual: float | None = Field(None, description="threshold if these images counted", examples=[None])
    lowered_by: list[UnusualReply] | None = Field(
        None, description="NG images that lowered the threshold; only with rule=recommended"
    )
    threshold_of_ok: float | None = Field(None, description="threshold from the OK images alone", examples=[None])
    promise: PromiseReply | None = None
    decide_by: Literal["region", "either"] | None = Field(
        None, description="what decides; left out if the score decides", examples=[None]
    )
    pixel_threshold: float | None = Field(
        None, description="map values at or above it are defects; only with decide_by", examples=[None]
    )
    pixel_why: str | None = Field(None, description="like why, for pixel_threshold", examples=[None])
    pixel_unusual: list[UnusualReply] | None = Field(
        None, description="like unusual, for pixel_threshold; score is the score of the regions"
    )
    pixel_overlap: bool | None = Field(None, description="like overlap, for regions", examples=[None])
    model: ModelReply | None = Field(
        None, description="the stored model that the calibration belongs to; left out before a fit"
    )


class CalibrateReply(CalibrationNumbers):
    """The stored calibration."""

    score_percentile: int | float = Field(examples=[99])
    recommended: RecommendedReply = Field(description="threshold of rule=recommended for the same scores")
