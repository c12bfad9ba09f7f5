"""What a calibration is asked for, and what it replies."""

from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, field_validator

from backend.api.schemas.common import ModelReply, Reply, RoiFields, RoiReply, TellsUnknown, empty_is_none, json_number
from backend.calib import DecideBy, RuleName, ThresholdOptions

Score = Annotated[FiniteFloat, Field(strict=True, ge=-1e6, le=1e6)]
# One bad score is named, and not a million of them.
Scores = Annotated[list[Score], Field(fail_fast=True)]
TargetRate = Annotated[FiniteFloat, Field(ge=1e-6, lt=1)]
TARGET_RATE = (
    "choose the threshold so that the next good part is rejected with this probability at most, whatever the "
    "distribution of scores; default: p99 of OK, or its midpoint with p5 of NG"
)

ManualThreshold = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
EscapeCost = Annotated[FiniteFloat, Field(gt=0, le=1e9)]
DefectRate = Annotated[FiniteFloat, Field(gt=0, lt=1)]
Positions = Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(max_length=1_000_000)]
RULE = (
    "contract: p99 of OK, or its midpoint with p5 of NG; recommended: the limit that about 2.5 % of good parts exceed, "
    "by the OK scores that do not stand out, lowered where NG scores lie below it"
)
DECIDE_BY = (
    "what makes a part NG. score: its score reaches the threshold; region: a region of area_mm2_thr or more stands at "
    "or above a pixel threshold, which is chosen from the same images; either: one of the two"
)
PIXEL_THRESHOLD = "take this pixel threshold; with decide_by=region or decide_by=either"
MANUAL = "take this threshold, and say what it promises"
ESCAPE_COST = "choose the threshold at which a part costs least: what an escaped defective part costs, in rejected "
ESCAPE_COST += "good parts; with defect_rate, and at least 10 NG images"
DEFECT_RATE = "share of defective parts among all that come; with escape_cost"
KEEP = "OK scores that stand out and are of good parts all the same: by rule=recommended they count then"
NOT_GOOD = "OK scores that are not of good parts: they count nowhere, neither for the threshold nor for its promise"


class ThresholdFields(Protocol):
    """What a request names about the choice of its threshold."""

    rule: RuleName
    target_false_reject_rate: float | None
    threshold: float | None
    escape_cost: float | None
    defect_rate: float | None


def threshold_options(fields: ThresholdFields) -> ThresholdOptions:
    """How a threshold is chosen, as a request names it."""
    return ThresholdOptions(
        rule=fields.rule,
        target_false_reject_rate=fields.target_false_reject_rate,
        threshold=fields.threshold,
        escape_cost=fields.escape_cost,
        defect_rate=fields.defect_rate,
    )


class CalibrateFields(RoiFields):
    """What a calibration names beside its scores."""

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
        """How the threshold is chosen, but for `keep` and `not_good`."""
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
        description="memory bank that the scores came from, as /fit_ok and /infer name it; 409 if the ROI has another "
        "one by now. Without it the stored one is meant",
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
    """What the threshold promises for parts to come, from the same process as the scored ones."""

    model_config = ConfigDict(from_attributes=True)

    confidence: float = Field(description="of each upper bound by itself", examples=[0.95])
    text: str = Field(
        description="the same in words",
        examples=[
            "at most 76 % of good parts are rejected (95 % confidence), if the scores are ok_scores of the fit, "
            "or of parts that were not in it; 3 OK scores are too few to promise 1 %: 415 more are needed; at most "
            "88 % of parts like the NG ones escape (95 % confidence)"
        ],
    )
    n_rejected: int | None = Field(None, description="OK scores at or above the threshold", examples=[0])
    false_reject_rate: float | None = Field(
        None, description="share of good parts to be expected at or above the threshold", examples=[0.25]
    )
    false_reject_rate_at_most: float | None = Field(
        None,
        description="its upper bound, for any distribution; this and what is about false rejects is left out where an "
        "OK image was in the fit and its score by the memory bank of the others is not known",
        examples=[0.7534],
    )
    n_ok_needed: int | None = Field(
        None,
        description="OK scores from which this rule promises 1 %, if no more of them are rejected than now; left out "
        "where it never does, as p99 of the OK scores alone",
        examples=[418],
    )
    n_ok_missing: int | None = Field(
        None, description="how many there are too few; 0 where 1 % is promised", examples=[415]
    )
    n_ok_missing_for_target: int | None = Field(
        None, description="OK scores that target_false_reject_rate needs beyond those there are", examples=[None]
    )
    n_escaped: int | None = Field(None, description="NG scores below the threshold", examples=[0])
    escape_rate: float | None = Field(
        None, description="share of defective parts to be expected below the threshold", examples=[0.3333]
    )
    escape_rate_at_most: float | None = Field(None, description="its upper bound", examples=[0.8775])


class CandidateReply(Reply):
    """How well a percentile separates the images."""

    model_config = ConfigDict(from_attributes=True)

    score_percentile: float = Field(examples=[99.5])
    auroc: float = Field(description="probability that an NG image scores above an OK one", examples=[0.94])
    gap: float = Field(description="lowest NG minus highest OK score", examples=[-0.05])
    gain_in_errors: float | None = Field(
        None,
        description="how much better than 99 its AUROC is, in standard errors; chosen from 2.33 on where "
        "there are many images, from 3.75 on with 5 of a class (Student's 99 %)",
        examples=[0.4],
    )


class PercentileChoiceReply(Reply):
    """Which percentile was chosen, and why."""

    model_config = ConfigDict(from_attributes=True)

    chosen: float = Field(examples=[99])
    reason: str = Field(examples=["99 is kept (AUROC 0.9377): none separates better by more than chance would"])
    candidates: list[CandidateReply]


class UnusualReply(Reply):
    """An image, or a score, that decided about the threshold."""

    position: int = Field(description="among the scores of its class, from 0", examples=[2])
    score: float = Field(examples=[0.61])
    filename: str | None = Field(None, description="of the image; left out where only scores were sent")
    uploaded_as: str | None = Field(None, description="of a stored image the name that it came with")


class RecommendedReply(Reply):
    """The threshold of rule=recommended for the same scores."""

    threshold: float = Field(examples=[0.5126])
    why: str = Field(
        description="what it rests on, in words",
        examples=[
            "about 2.5 % of good parts score above 0.5126, by 3 OK scores; 3 are few: 10 or more tell how good "
            "parts scatter"
        ],
    )
    positions: list[int] = Field(description="of the OK scores that stand out and do not count, from 0", examples=[[]])
    threshold_with_unusual: float | None = Field(
        None, description="what the threshold would be if they counted; left out where none stands out"
    )


class CalibrationNumbers(RoiReply):
    """What every reply about a calibration says of it."""

    threshold: float = Field(
        description="midpoint of p99_ok and p5_ng, or p99_ok without NG, unless a member of the request chose another",
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
        description="whether an OK score reaches the lowest NG score: no threshold separates them",
        examples=[False],
    )
    warning: str | None = Field(
        None,
        description="what the numbers cannot promise, and what was asked for and can hardly be meant, or had no effect",
    )
    target_false_reject_rate: float | None = Field(None, description="where it was asked for", examples=[None])
    rule: Literal["recommended", "cost", "manual"] | None = Field(
        None, description="what the threshold was chosen by; left out for the contract's rule", examples=[None]
    )
    why: str | None = Field(
        None, description="what the threshold rests on, in words, by rule=recommended", examples=[None]
    )
    unusual: list[UnusualReply] | None = Field(
        None, description="OK images that stand out and do not count, by rule=recommended"
    )
    threshold_with_unusual: float | None = Field(
        None, description="what the threshold would be if they counted", examples=[None]
    )
    lowered_by: list[UnusualReply] | None = Field(
        None, description="NG images that lowered the threshold, by rule=recommended"
    )
    threshold_of_ok: float | None = Field(None, description="what the OK images alone would give", examples=[None])
    promise: PromiseReply | None = None
    decide_by: Literal["region", "either"] | None = Field(
        None, description="what decides; left out where the score does", examples=[None]
    )
    pixel_threshold: float | None = Field(
        None, description="map values at or above it are defects; with decide_by", examples=[None]
    )
    pixel_why: str | None = Field(None, description="as why, of pixel_threshold", examples=[None])
    pixel_unusual: list[UnusualReply] | None = Field(
        None, description="as unusual, of pixel_threshold; score is that of their regions"
    )
    pixel_overlap: bool | None = Field(None, description="as overlap, of regions", examples=[None])
    model: ModelReply | None = Field(None, description="the stored model that it was made for; left out before a fit")


class CalibrateReply(CalibrationNumbers):
    """The stored calibration."""

    score_percentile: int | float = Field(examples=[99])
    recommended: RecommendedReply = Field(description="what rule=recommended chooses from the same scores")
