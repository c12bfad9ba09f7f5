"""The contract: requests and replies as pydantic models, with the examples that ``/docs`` shows."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from backend.calib import Calibration
from backend.infer import Region
from backend.layout import RoiKey, canonical_recipe
from backend.utils import MAX_MM_PER_PX, MIN_MM_PER_PX
from backend.versions import Change, Version

Identifier = Annotated[str, Field(min_length=1, max_length=128)]
MillimetresPerPixel = Annotated[
    FiniteFloat,
    Field(
        ge=MIN_MM_PER_PX, le=MAX_MM_PER_PX, description="millimetres per pixel of the uploaded image", examples=[0.2]
    ),
]
Score = Annotated[FiniteFloat, Field(strict=True, ge=-1e6, le=1e6)]
# One bad score is named, and not a million of them.
Scores = Annotated[list[Score], Field(fail_fast=True)]

HEATMAP_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


class _Fields(BaseModel):
    """Unknown fields are ignored: newer clients send more."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


def _zero_is_none(value: Any) -> Any:
    return None if isinstance(value, int | float) and value == 0 else value


def _or_zero(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "number", "const": 0})


def _number(value: Any) -> Any:
    """In JSON a text or a truth value is no number, as in the OpenAPI document; in a form all is text."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "Input should be a valid number")
    return value


_JsonNumber = BeforeValidator(_number)


def _empty_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


class RoiIds(_Fields):
    """What every request names."""

    role_id: Identifier = Field(description="inspection role, as the GUI names it", examples=["Master1"])
    roi_id: Identifier = Field(description="region of interest within the role", examples=["Pattern"])
    recipe_id: Annotated[Annotated[str, Field(max_length=1000)] | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        description="recipe (the GUI's layout), without regard to case; default is the header X-Recipe-Id, else none",
        examples=["line 1"],
    )
    model_key: Annotated[Annotated[str, Field(max_length=128)] | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        description="which model of the ROI, default is roi_id; of no effect without a recipe",
        examples=["Pattern"],
    )

    def roi_key(self, other_recipe: str | None = None) -> RoiKey:
        """The ROI that is meant.

        Args:
            other_recipe: recipe where the request names none.
        """
        return RoiKey(self.role_id, self.roi_id, canonical_recipe(self.recipe_id or "") or other_recipe, self.model_key)


class RoiFields(RoiIds):
    """What every request names that is about images of its own."""

    mm_per_px: MillimetresPerPixel


class FitFields(RoiFields):
    """Form fields of ``POST /fit_ok`` beside the images."""

    memory_fit: bool = Field(False, description="keep every embedding instead of a coreset", examples=[False])
    use_dataset: bool = Field(False, description="fit on the stored OK images; then send no files", examples=[False])
    append: bool = Field(
        False, description="keep the memory bank that there is and add what it lacks of these images", examples=[False]
    )
    thumbnails: bool = Field(
        False, description="keep a small picture of every image with the memory, for /explain", examples=[False]
    )
    shape: str | None = Field(
        None,
        description="mask in pixels of the images, as of /infer, within which ok_scores are made; stored images have "
        "their own",
        examples=['{"kind":"circle","cx":128,"cy":128,"r":120}'],
    )

    @field_validator("memory_fit", "use_dataset", "append", "thumbnails", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if value is None or (isinstance(value, str) and not value.strip()) else value


class InferFields(RoiFields):
    """Form fields of ``POST /infer`` beside the image."""

    shape: str | None = Field(
        None,
        description="mask in pixels of the uploaded image, as JSON: rect (x, y, w, h), circle (cx, cy, r) or annulus "
        "(cx, cy, r, r_inner)",
        examples=['{"kind":"circle","cx":128,"cy":128,"r":120}'],
    )


class ExplainFields(InferFields):
    """Form fields of ``POST /explain`` beside the image."""

    x: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="the pixel that is asked about, with y; default the regions",
        examples=[140],
    )
    y: int | None = Field(None, ge=0, le=1_000_000, description="the pixel that is asked about, with x", examples=[80])
    pictures: bool = Field(True, description="with a picture of each place", examples=[True])

    @model_validator(mode="after")
    def _both_or_neither(self) -> "ExplainFields":
        if (self.x is None) != (self.y is None):
            raise ValueError("send x and y, or neither")
        return self

    @property
    def place(self) -> tuple[int, int] | None:
        """(x, y), if a pixel is asked about."""
        return None if self.x is None or self.y is None else (self.x, self.y)


TargetRate = Annotated[FiniteFloat, Field(ge=1e-6, lt=1)]
_TARGET_RATE = (
    "choose the threshold so that the next good part is rejected with this probability at most, whatever the "
    "distribution of scores; default: p99 of OK, or its midpoint with p5 of NG"
)


class CalibrateFields(RoiFields):
    """What a calibration names beside its scores."""

    area_mm2_thr: Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    score_percentile: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )
    target_false_reject_rate: TargetRate | None = Field(None, description=_TARGET_RATE, examples=[None])


class CalibrateRequest(CalibrateFields):
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

    @field_validator("mm_per_px", "area_mm2_thr", "score_percentile", "target_false_reject_rate", mode="before")
    @classmethod
    def _are_numbers(cls, value: Any) -> Any:
        return _number(value)


Label = Annotated[
    Literal["ok", "ng"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]


class SampleClass(RoiIds):
    """Query of what is about one class of stored images."""

    label: Label = Field(description="good or defective", examples=["ok"])


class SampleName(SampleClass):
    """Query of what is about one stored image."""

    filename: str = Field(
        min_length=1,
        max_length=1000,
        description="its name in /datasets/list, or the filename in its metadata",
        examples=["20261122-210455-123456-1a2b3c4d.png"],
    )


class _DatasetRequest(RoiIds):
    default_mm_per_px: Annotated[MillimetresPerPixel | None, BeforeValidator(_zero_is_none), _JsonNumber] = Field(
        None,
        description="for images whose metadata does not say, of a recipe that is not locked; 0 is none",
        examples=[0.2],
        json_schema_extra=_or_zero,
    )


class CalibrateDatasetRequest(_DatasetRequest):
    """Body of ``POST /calibrate_dataset``."""

    score_percentile: Annotated[Annotated[int, Field(gt=0, le=100)] | None, _JsonNumber] = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )
    area_mm2_thr: Annotated[Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None, _JsonNumber] = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    require_ng: Annotated[StrictBool, BeforeValidator(lambda value: True if value is None else value)] = Field(
        True, description="refuse without NG images", examples=[True]
    )
    target_false_reject_rate: Annotated[TargetRate | None, _JsonNumber] = Field(
        None, description=_TARGET_RATE, examples=[None]
    )
    choose_percentile: Annotated[StrictBool, BeforeValidator(lambda value: False if value is None else value)] = Field(
        False,
        description="choose the percentile that separates OK from NG images best, 99 unless another does so by more "
        "than chance; needs NG images",
        examples=[False],
    )


class InferDatasetRequest(_DatasetRequest):
    """Body of ``POST /infer_dataset``."""

    labels: list[Label] | None = Field(
        None, max_length=100, description="empty or left out: both", examples=[["ok", "ng"]]
    )
    include_heatmap: StrictBool = Field(False, description="with the heatmap of each image", examples=[False])


class RollbackRequest(RoiIds):
    """Body of ``POST /rollback``."""

    version: Annotated[Annotated[int, Field(ge=1, le=1_000_000_000)] | None, _JsonNumber] = Field(
        None, description="its number in /versions; left out: the newest", examples=[3]
    )


class _Reply(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class ErrorReply(_Reply):
    """The body of every error."""

    error: str = Field(description="what went wrong and what to do about it")
    trace: str = Field(description="where, without absolute paths; empty with TRACE=false")


class MinimalHealthReply(_Reply):
    """That the service is there: all that is told without an API key, where there are keys."""

    status: Literal["ok", "starting", "failed", "draining"] = Field(
        description="failed: it could not load, see reason, and tries again; draining: it is about to stop",
        examples=["ok"],
    )
    device: str = Field(description="where the network runs, or shall run", examples=["cpu"])
    model: str = Field(examples=["vit_small_patch14_dinov2.lvd142m"])
    version: str = Field(description="version of the service", examples=["1.0.0"])
    recipe_id: str = Field(description="recipe that the header X-Recipe-Id names", examples=["default"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class HealthReply(MinimalHealthReply):
    """The state of the service."""

    runtime: str | None = Field(
        None, description="left out, like what follows, until it is loaded", examples=["openvino"]
    )
    precision: str | None = Field(None, examples=["float32"])
    block: int | None = Field(
        None, description="block whose tokens are compared; left out where it is the last", examples=[10]
    )
    input_size: int | None = Field(None, description="side of the network input in pixels", examples=[448])
    token_shape: list[int] | None = Field(None, description="token grid [rows, columns]", examples=[[32, 32]])
    weights_sha256: str | None = Field(
        None, examples=["46a3827c3d504b167dcae6c5505ae17672c90fc799ab34987d5deadd279db413"]
    )
    stale_calibrations: int | None = Field(
        None,
        description="ROIs that were fitted anew since they were calibrated, so that no threshold applies",
        examples=[0],
    )
    drifting_rois: int | None = Field(
        None, description="ROIs whose production left what was calibrated; see /drift/rois", examples=[0]
    )
    reason: str | None = Field(
        None, description="why it could not load, or why the network does not run where DEVICE asked for"
    )


class _RoiReply(_Reply):
    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(description="recipe that was meant", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class ModelReply(_Reply):
    """The stored model that was used."""

    role_id: str = Field(examples=["Master1"])
    recipe_id: str = Field(description="default where the recipe has no model of its own", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    layout: Literal["current", "L4", "L3", "L2", "L1", "L0"] = Field(
        description="current, or the older backend's that stored it", examples=["current"]
    )


class ReadyReply(_Reply):
    """The service takes work."""

    status: Literal["ok"] = Field(examples=["ok"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class SuspiciousReply(_Reply):
    """An image of a fit that may be defective."""

    index: int = Field(description="position among the images of the fit, from 0", examples=[2])
    filename: str = Field(examples=["part7.png"])
    score: float = Field(examples=[0.93])


class FitReply(_RoiReply):
    """What a fit built."""

    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: the one there was is not applied any more; calibrate again", examples=["none"]
    )
    n_embeddings: int = Field(description="patch embeddings of all images", examples=[34816])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    ok_scores: list[float] | None = Field(
        None,
        description="score of each image by a memory bank of the others, in the order they were sent: what fresh good "
        "parts score; left out where there are no others, or they are so many that it would take minutes",
        examples=[[0.43, 0.41, 0.47]],
    )
    suspicious: list[SuspiciousReply] = Field(
        description="images that score far above the others: look at them before you trust the model", examples=[[]]
    )


class PromiseReply(_Reply):
    """What the threshold promises for parts to come, from the same process as the scored ones."""

    model_config = ConfigDict(from_attributes=True)

    confidence: float = Field(description="of each upper bound by itself", examples=[0.95])
    text: str = Field(
        description="the same in words",
        examples=[
            "at most 76 % of good parts are rejected (95 % confidence); 3 OK scores are too few to promise 1 %: 415 "
            "more are needed; at most 88 % of parts like the NG ones escape (95 % confidence)"
        ],
    )
    n_rejected: int | None = Field(None, description="OK scores at or above the threshold", examples=[0])
    false_reject_rate: float | None = Field(
        None, description="share of good parts to be expected at or above the threshold", examples=[0.25]
    )
    false_reject_rate_at_most: float | None = Field(
        None,
        description="its upper bound, for any distribution; this and what is about false rejects is left out where the "
        "OK images were in the fit",
        examples=[0.7534],
    )
    n_ok_needed: int | None = Field(
        None, description="OK scores, all below the threshold, from which 1 % is promised", examples=[418]
    )
    n_ok_missing: int | None = Field(None, description="how many there are too few", examples=[415])
    n_ok_missing_for_target: int | None = Field(
        None, description="OK scores that target_false_reject_rate needs beyond those there are", examples=[None]
    )
    n_escaped: int | None = Field(None, description="NG scores below the threshold", examples=[0])
    escape_rate: float | None = Field(
        None, description="share of defective parts to be expected below the threshold", examples=[0.3333]
    )
    escape_rate_at_most: float | None = Field(None, description="its upper bound", examples=[0.8775])


class CandidateReply(_Reply):
    """How well a percentile separates the images."""

    model_config = ConfigDict(from_attributes=True)

    score_percentile: float = Field(examples=[99.5])
    auroc: float = Field(description="probability that an NG image scores above an OK one", examples=[0.94])
    gap: float = Field(description="lowest NG minus highest OK score", examples=[-0.05])
    gain_in_errors: float | None = Field(
        None,
        description="how much better than 99 its AUROC is, in standard errors; chosen from 2.326 on",
        examples=[0.4],
    )


class PercentileChoiceReply(_Reply):
    """Which percentile was chosen, and why."""

    model_config = ConfigDict(from_attributes=True)

    chosen: float = Field(examples=[99])
    reason: str = Field(examples=["99 is kept (AUROC 0.9377): none separates better by more than chance would"])
    candidates: list[CandidateReply]


class _CalibrationReply(_RoiReply):
    threshold: float = Field(
        description="midpoint of p99_ok and p5_ng, or p99_ok without NG, or what target_false_reject_rate takes",
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
    warning: str | None = Field(None, description="what the numbers cannot promise")
    target_false_reject_rate: float | None = Field(None, description="where it was asked for", examples=[None])
    promise: PromiseReply | None = None
    model: ModelReply | None = Field(None, description="the stored model that it was made for; left out before a fit")


class CalibrateReply(_CalibrationReply):
    """The stored calibration."""

    score_percentile: int | float = Field(examples=[99])


class RegionReply(_Reply):
    """A connected defect, in pixels of the uploaded image."""

    bbox: list[int] = Field(description="[x, y, w, h]", examples=[[41, 100, 23, 17]])
    x: int = Field(examples=[41])
    y: int = Field(examples=[100])
    w: int = Field(examples=[23])
    h: int = Field(examples=[17])
    area_px: float = Field(examples=[250.0])
    area_mm2: float = Field(examples=[10.0])
    contour: list[list[int]] = Field(
        description="outer boundary [[x, y], …]", examples=[[[41, 100], [41, 116], [63, 100]]]
    )


def region_reply(region: Region) -> RegionReply:
    """A region, as clients read it."""
    return RegionReply(bbox=[region.x, region.y, region.w, region.h], **vars(region))


class InferReply(_RoiReply):
    """The judgement of one image."""

    score: float = Field(description="percentile of the masked distance map, 0..2", examples=[0.61])
    threshold: float | None = Field(None, description="left out before calibration", examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(
        None, description="ng when score >= threshold; left out before calibration", examples=["ng"]
    )
    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: there is one, made for an earlier fit; it is not applied", examples=["applied"]
    )
    heatmap_png_base64: str = Field(
        description="8-bit grey PNG of the uploaded image's size, 0 outside the mask", examples=[HEATMAP_EXAMPLE]
    )
    regions: list[RegionReply]
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    model: ModelReply


class GoodPatchReply(_Reply):
    """The good patch that comes nearest to a place."""

    index: int = Field(description="which image of the fit, from 0", examples=[3])
    filename: str = Field(description="its name", examples=["part12.png"])
    box: list[int] = Field(description="[x, y, w, h] in pixels of that image", examples=[[128, 72, 8, 8]])


class ReasonReply(_Reply):
    """A place of an image, and the good patch that comes nearest to it."""

    x: int = Field(description="in pixels of the uploaded image", examples=[140])
    y: int = Field(examples=[80])
    region: int | None = Field(
        None, description="position among the regions of /infer; left out where none has the place", examples=[0]
    )
    box: list[int] = Field(description="its patch, [x, y, w, h]", examples=[[136, 80, 8, 8]])
    distance: float = Field(description="of the patch to the nearest good one, 0..2", examples=[0.83])
    good: GoodPatchReply | None = Field(
        None, description="left out for models of earlier versions, which do not know where their patches come from"
    )
    picture_png_base64: str | None = Field(
        None,
        description="the place, and to its right the good patch, where its image is stored or has a thumbnail",
        examples=[HEATMAP_EXAMPLE],
    )


class ExplainReply(_RoiReply):
    """The judgement of one image, and its reasons."""

    score: float = Field(examples=[0.61])
    threshold: float | None = Field(None, examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(None, examples=["ng"])
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    reasons: list[ReasonReply] = Field(
        description="of the eight largest regions, or of the worst place where there is none"
    )
    model: ModelReply


class BankEntryReply(_Reply):
    """An image that a memory bank was built from."""

    filename: str = Field(examples=["part12.png"])
    n_kept: int = Field(description="how many of its patches are in the bank", examples=[21])
    n_unique: int | None = Field(
        None,
        description="how many of its patches the other images do not cover as closely: where few, it is hardly needed",
        examples=[64],
    )
    score: float | None = Field(None, description="by a memory bank of the other images", examples=[0.43])
    suspicious: bool = Field(description="whether it scores far above the others", examples=[False])


class BankReply(_RoiReply):
    """What a memory bank was built from."""

    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    covering_radius: float | None = Field(
        None, description="within which the bank has an embedding near every patch of its images, 0..2", examples=[0.57]
    )
    images: list[BankEntryReply] = Field(description="empty for models of earlier versions")
    model: ModelReply


class StateReply(_RoiReply):
    """What there is for a ROI."""

    status: Literal["ok", "refit_needed"] = Field(examples=["ok"])
    memory_fitted: bool = Field(description="whether /infer has a memory bank to compare with", examples=[True])
    calib_present: bool = Field(description="whether /infer applies a threshold", examples=[True])
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    reason: str | None = Field(None, description="why a refit is needed")
    model: ModelReply | None = Field(None, description="left out when there is none to use")
    mm_per_px: float | None = Field(None, description="what the recipe is locked to; left out before", examples=[0.2])


class VersionReply(_Reply):
    """A model that was replaced, and is kept."""

    version: int = Field(description="its number; the highest is the newest", examples=[3])
    kept_at_utc: str = Field(description="when it was replaced", examples=["2026-11-22T21:04:55.123456+00:00"])
    replaced_by: Change = Field(description="by what", examples=["fit"])
    memory_id: str = Field(
        description="identity of its memory bank: hash of the embeddings", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    n_embeddings: int | None = Field(None, description="patch embeddings of all images", examples=[34816])
    n_images: int | None = Field(None, description="images that it was fitted on", examples=[34])
    calibrated: bool = Field(description="whether a threshold was applied", examples=[True])
    threshold: float | None = Field(None, description="which", examples=[0.5512])


def version_reply(version: Version, calibration: Calibration | None) -> VersionReply:
    """A kept model, as clients read it."""
    return VersionReply(
        version=version.number,
        **vars(version.record),
        calibrated=calibration is not None,
        threshold=calibration.threshold if calibration else None,
    )


class VersionsReply(_RoiReply):
    """What the ROI's own model was before its last changes."""

    versions: list[VersionReply] = Field(description="the newest first")
    model: ModelReply | None = Field(None, description="what is served now; left out when there is none to use")


class RollbackReply(_RoiReply):
    """The model that is served now."""

    version: int = Field(description="which version that is", examples=[3])
    memory_id: str = Field(
        description="identity of its memory bank: hash of the embeddings", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    calibration: Literal["none", "applied"] = Field(
        description="none: it had no calibration then; calibrate", examples=["applied"]
    )
    threshold: float | None = Field(None, description="left out without a calibration", examples=[0.5512])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    model: ModelReply


class SampleClassReply(_Reply):
    """The stored images of one class."""

    count: int = Field(examples=[1])
    files: list[str] = Field(
        description="names, sorted by the time of upload", examples=[["20261122-210455-123456-1a2b3c4d.png"]]
    )
    meta: dict[str, bool] = Field(
        description="whether an image has metadata", examples=[{"20261122-210455-123456-1a2b3c4d.png": True}]
    )


class SampleClasses(_Reply):
    """The stored images."""

    ok: SampleClassReply
    ng: SampleClassReply


class DatasetListReply(_RoiReply):
    """The data set of a ROI."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    classes: SampleClasses


class ManifestDatasets(_Reply):
    """The data set of a ROI."""

    classes: SampleClasses


class ManifestReply(_RoiReply):
    """Everything that is stored for a ROI."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    memory: bool = Field(description="as memory_fitted of /state", examples=[True])
    calib: dict[str, Any] | None = Field(
        description="the calibration that /infer applies, or null", examples=[{"threshold": 0.5512, "p99_ok": 0.4394}]
    )
    datasets: ManifestDatasets


class UploadReply(_RoiReply):
    """Images that were stored."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(examples=["ok"])
    files: list[str] = Field(
        description="their names, in the order of the upload", examples=[["20261122-210455-123456-1a2b3c4d.png"]]
    )


class DeleteReply(_RoiReply):
    """Images that were deleted."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(examples=["ok"])
    n_deleted: int = Field(examples=[1])
    filename: str | None = Field(
        None, description="name of the one image", examples=["20261122-210455-123456-1a2b3c4d.png"]
    )


class FailedSampleReply(_Reply):
    """A stored image that could not be judged."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    error: str = Field(
        description="why", examples=["part7.png: the image cannot be decoded; it is truncated or damaged"]
    )


class CalibrateDatasetReply(_CalibrationReply):
    """The stored calibration, and the images that it does not rest on."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    score_percentile: int | None = Field(
        None, description="left out when SCORE_PERCENTILE is no integer", examples=[99]
    )
    percentile_choice: PercentileChoiceReply | None = Field(None, description="with choose_percentile")
    n_errors: int = Field(examples=[0])
    errors: list[FailedSampleReply]


class ItemReply(_Reply):
    """The judgement of one stored image; a failed one has no score."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    mm_per_px: float | None = Field(None, examples=[0.2])
    score: float | None = Field(None, examples=[0.61])
    threshold: float | None = Field(None, examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(None, examples=["ng"])
    regions: list[RegionReply]
    n_regions: int = Field(examples=[0])
    heatmap_png_base64: str | None = Field(None, description="with include_heatmap", examples=[HEATMAP_EXAMPLE])
    error: str | None = Field(None, description="why it failed")


class InferDatasetReply(_RoiReply):
    """The judgements of the stored images."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    n_total: int = Field(examples=[1])
    n_errors: int = Field(examples=[0])
    model: ModelReply
    items: list[ItemReply]


class RunReply(_Reply):
    """Long work that is under way."""

    kind: Literal["fit", "calibrate_dataset", "infer_dataset"] = Field(examples=["fit"])
    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    request_id: str | None = Field(None, description="of the request that asked for it; none from the command line")
    started_at_utc: str = Field(examples=["2026-11-22T21:04:55.123+00:00"])
    n_images: int = Field(examples=[34])
    step: str = Field(description="wait, extract, coreset or score", examples=["extract"])
    done: int = Field(description="how much of the step is done", examples=[17])
    total: int = Field(description="of how much", examples=[34])
    left_s: int | None = Field(None, description="seconds that the step may still take", examples=[4])
    n_errors: int = Field(description="images that failed", examples=[0])


class RunsReply(_Reply):
    """The long work of all processes of the service, the oldest first."""

    runs: list[RunReply]
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class DriftResetRequest(RoiIds):
    """Body of ``POST /drift/reset``."""

    reference: Literal["calibration", "production"] = Field(
        "calibration",
        description="what to compare with from now on: the OK scores of the calibration, or the parts that come next",
        examples=["calibration"],
    )


class ScoreSummaryReply(_Reply):
    """Scores in short."""

    n: int = Field(examples=[200])
    p5: float = Field(examples=[0.41])
    p50: float = Field(examples=[0.44])
    p95: float = Field(examples=[0.49])


class RecentReply(ScoreSummaryReply):
    """The last parts, at most 200."""

    mean: float = Field(examples=[0.446])
    reject_rate: float | None = Field(
        None, description="share at or above the threshold; left out without one", examples=[0.02]
    )


class DriftNumbers(_Reply):
    """What is known about the production of a ROI."""

    verdict: Literal["ok", "drift", "collecting", "none"] = Field(
        description="none: no calibration is applied; collecting: few scores are known to compare with", examples=["ok"]
    )
    reason: str = Field(examples=["no sign of a change in 48210 parts"])
    direction: Literal["higher", "lower", "rejects"] | None = Field(
        None, description="what changed, where the verdict is drift: the accepted scores or the reject rate"
    )
    since_utc: str | None = Field(None, description="when the drift was noticed")
    since_part: int | None = Field(None, description="how many parts had been inspected then")
    started_at_utc: str | None = Field(
        None, description="since when parts are counted", examples=["2026-11-22T21:04:55+00:00"]
    )
    last_at_utc: str | None = Field(
        None, description="when the last part was counted", examples=["2026-11-23T06:10:02+00:00"]
    )
    n_parts: int = Field(examples=[48210])
    n_rejected: int = Field(examples=[961])
    recent: RecentReply | None = Field(None, description="left out before the first part")
    reference: ScoreSummaryReply | None = Field(
        None,
        description="the OK scores of the calibration below the threshold; left out where the first parts are compared "
        "with instead",
    )
    evidence: float | None = Field(
        None, description="what the bets on a change have made; drift at alarm_at", examples=[5.2]
    )
    alarm_at: float = Field(
        description="without a change, parts until a false alarm: on average at least so many", examples=[1e6]
    )
    tolerated_reject_rate: float | None = Field(
        None,
        description="share of rejected parts that is no drift: DRIFT_REJECT_RATE, and of the others as many as the "
        "calibration rejects of its OK scores, at its upper 99 % confidence bound",
        examples=[0.16],
    )


class DriftReply(_RoiReply, DriftNumbers):
    """Whether the production of a ROI left what was calibrated."""


class DriftingRoiReply(DriftNumbers):
    """A ROI that drifts."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(examples=["default"])
    model_key: str = Field(examples=["Pattern"])


class DriftingReply(_Reply):
    """All ROIs that drift, the oldest first."""

    rois: list[DriftingRoiReply]
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])
