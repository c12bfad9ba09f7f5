"""Requests and replies about stored images."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, FiniteFloat, StrictBool, field_validator

from backend.api.schemas.calibration import (
    DECIDE_BY,
    DEFECT_RATE,
    ESCAPE_COST,
    KEEP,
    MANUAL,
    NOT_GOOD,
    PIXEL_THRESHOLD,
    RULE,
    TARGET_RATE,
    CalibrationNumbers,
    DefectRate,
    EscapeCost,
    ManualThreshold,
    PercentileChoiceReply,
    TargetRate,
)
from backend.api.schemas.common import (
    JsonNumber,
    KnownOnly,
    MillimetresPerPixel,
    ModelReply,
    Reply,
    RoiIds,
    RoiReply,
    TellsUnknown,
    empty_is_none,
    or_zero,
    zero_is_none,
)
from backend.api.schemas.inspection import (
    HEATMAP_EXAMPLE,
    OVERLAY,
    UPLOADED_AS,
    WANTED_HEATMAP,
    WANTED_OVERLAY,
    WARNING,
    DecidedBy,
    PixelThreshold,
    RegionReply,
    UploadedAs,
    WantedHeatmap,
    Why,
)
from backend.calib import DecideBy, RuleName
from backend.common.errors import ErrorCode
from backend.common.roi_key import RoiKey
from backend.disk.datasets import LABELS
from backend.service.pictures import Wanted
from backend.service.stores import Datasets

Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=100_000)]
Label = Annotated[
    Literal["ok", "ng"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]


class SampleClass(RoiIds):
    """Query of requests about one class of stored images."""

    label: Label = Field(description="good or defective", examples=["ok"])


class SampleName(SampleClass):
    """Query of requests about one stored image."""

    filename: str = Field(
        min_length=1,
        max_length=1000,
        description="name of the image in /datasets/list, or the filename in its metadata",
        examples=[UPLOADED_AS],
    )


class SampleFile(SampleName):
    """Query of requests that read a stored image."""

    size: Annotated[Annotated[int, Field(ge=16, le=1024)] | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="maximum length of the longer side in pixels: a JPEG for browsing instead of the stored bytes",
        examples=[None],
    )


class UploadFields(RoiIds, TellsUnknown):
    """Form fields of an upload besides the images and their metadata."""

    skip_duplicates: bool = Field(
        False, description="do not store images whose pixels are already stored in the class", examples=[False]
    )

    @field_validator("skip_duplicates", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if isinstance(value, str) and not value.strip() else value


class MoveRequest(SampleName, KnownOnly):
    """Body of ``POST /datasets/move``."""

    label: Label = Field(description="current class of the image", examples=["ng"])
    to: Label = Field(description="new class of the image", examples=["ok"])


class _DatasetRequest(RoiIds):
    default_mm_per_px: Annotated[MillimetresPerPixel | None, BeforeValidator(zero_is_none), JsonNumber] = Field(
        None,
        description="for images without mm_per_px in their metadata, if the recipe is not locked; 0 means none",
        examples=[0.2],
        json_schema_extra=or_zero,
    )


class CalibrateDatasetRequest(_DatasetRequest, TellsUnknown):
    """Body of ``POST /calibrate_dataset``."""

    score_percentile: Annotated[Annotated[int, Field(gt=0, le=100)] | None, JsonNumber] = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )
    area_mm2_thr: Annotated[Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None, JsonNumber] = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    require_ng: Annotated[StrictBool, BeforeValidator(lambda value: True if value is None else value)] = Field(
        True, description="fail if there are no NG images", examples=[True]
    )
    target_false_reject_rate: Annotated[TargetRate | None, JsonNumber] = Field(
        None, description=TARGET_RATE, examples=[None]
    )
    rule: RuleName = Field("contract", description=RULE, examples=["contract"])
    threshold: Annotated[ManualThreshold | None, JsonNumber] = Field(None, description=MANUAL, examples=[None])
    escape_cost: Annotated[EscapeCost | None, JsonNumber] = Field(None, description=ESCAPE_COST, examples=[None])
    defect_rate: Annotated[DefectRate | None, JsonNumber] = Field(None, description=DEFECT_RATE, examples=[None])
    decide_by: DecideBy = Field("score", description=DECIDE_BY, examples=["score"])
    pixel_threshold: Annotated[ManualThreshold | None, JsonNumber] = Field(
        None, description=PIXEL_THRESHOLD, examples=[None]
    )
    keep: Names = Field([], description=f"{KEEP}; names of stored OK images", examples=[[]])
    not_good: Names = Field([], description=f"{NOT_GOOD}; names of stored OK images", examples=[[]])
    choose_percentile: Annotated[StrictBool, BeforeValidator(lambda value: False if value is None else value)] = Field(
        False,
        description="choose the percentile that separates OK from NG images best: 99 unless another is significantly "
        "better; needs NG images",
        examples=[False],
    )


class InferDatasetRequest(_DatasetRequest, TellsUnknown):
    """Body of ``POST /infer_dataset``."""

    labels: list[Label] | None = Field(
        None, max_length=100, description="empty or left out: both", examples=[["ok", "ng"]]
    )
    include_heatmap: StrictBool = Field(False, description="include the heatmap of each image", examples=[False])
    why: StrictBool = Field(False, description="explain in words why each part is OK or NG", examples=[False])
    heatmap: WantedHeatmap = Field(None, description=f"with include_heatmap: {WANTED_HEATMAP}", examples=[None])
    overlay: StrictBool = Field(
        False, description=f"{WANTED_OVERLAY}; the overlays of a reply take at most about 256 MiB", examples=[False]
    )

    @property
    def wanted(self) -> Wanted:
        """The pictures of each image."""
        return Wanted((self.heatmap or "contract") if self.include_heatmap else None, self.overlay)

    @property
    def about_heatmap(self) -> str | None:
        """A remark if a scale is named, but no heatmap is requested."""
        if self.heatmap is None or self.include_heatmap:
            return None
        return f"heatmap={self.heatmap} has no effect without include_heatmap"


class SampleClassReply(Reply):
    """The stored images of one class."""

    count: int = Field(examples=[1])
    files: list[str] = Field(
        description="names of the images, sorted by the time of upload",
        examples=[["20261122-210455-123456-1a2b3c4d.png"]],
    )
    meta: dict[str, bool] = Field(
        description="whether an image has metadata", examples=[{"20261122-210455-123456-1a2b3c4d.png": True}]
    )
    uploaded_as: dict[str, str] = Field(
        description="original names of the images, if they are known",
        examples=[{"20261122-210455-123456-1a2b3c4d.png": UPLOADED_AS}],
    )


class SampleClasses(Reply):
    """The stored images."""

    ok: SampleClassReply
    ng: SampleClassReply


def sample_classes(datasets: Datasets, key: RoiKey) -> SampleClasses:
    """The stored images of a ROI.

    Raises:
        InvalidRequest, Conflict, StorageError: see `DatasetStore.names`.
    """
    good, defective = (_sample_class(datasets, key, label) for label in LABELS)
    return SampleClasses(ok=good, ng=defective)


def _sample_class(datasets: Datasets, key: RoiKey, label: Literal["ok", "ng"]) -> SampleClassReply:
    names = datasets.names(key, label)
    uploaded_as = datasets.uploaded_as(key, label, names)
    return SampleClassReply(count=len(names), files=list(names), meta=names, uploaded_as=uploaded_as)


class DatasetListReply(RoiReply):
    """The data set of a ROI."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    classes: SampleClasses


class UploadedReply(Reply):
    """The result for one uploaded image."""

    filename: str | None = Field(
        None,
        description="stored name; left out if the image was not stored",
        examples=["20261122-210455-123456-1a2b3c4d.png"],
    )
    uploaded_as: UploadedAs = None
    duplicate_of: str | None = Field(
        None,
        description="stored name of an image of the class with the same pixels; left out if none is known",
        examples=["20261120-093012-654321-4d3c2b1a.png"],
    )
    duplicate_uploaded_as: str | None = Field(
        None, description="original name of duplicate_of; left out if it is unknown", examples=["part3.png"]
    )
    skipped: bool | None = Field(
        None, description="true if the image was not stored, because of skip_duplicates", examples=[None]
    )


class UploadReply(RoiReply):
    """The stored images of an upload."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(examples=["ok"])
    files: list[str] = Field(
        description="stored names, in the order of the upload", examples=[["20261122-210455-123456-1a2b3c4d.png"]]
    )
    images: list[UploadedReply] = Field(description="every uploaded image, in the order of the upload")
    n_not_compared: int | None = Field(
        None,
        description="number of stored images of earlier versions that were not compared, for lack of time; left out "
        "if all were compared",
        examples=[None],
    )
    warning: str | None = Field(None, description=WARNING)


class MoveReply(RoiReply):
    """An image that was moved to the other class."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(description="new class of the image", examples=["ok"])
    filename: str = Field(
        description="stored name of the image, as before", examples=["20261122-210455-123456-1a2b3c4d.png"]
    )
    uploaded_as: UploadedAs = None
    warning: str | None = Field(None, description=WARNING)


class DeleteReply(RoiReply):
    """Images that were deleted."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(examples=["ok"])
    n_deleted: int = Field(examples=[1])
    filename: str | None = Field(
        None, description="name, if there is one image", examples=["20261122-210455-123456-1a2b3c4d.png"]
    )
    uploaded_as: UploadedAs = None


class FailedSampleReply(Reply):
    """A stored image that could not be judged."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    uploaded_as: UploadedAs = None
    error: str = Field(
        description="why", examples=["part7.png: the image cannot be decoded; it is truncated or damaged"]
    )
    code: ErrorCode | None = Field(None, description="error code for programs", examples=["bad_image"])


class CalibrateDatasetReply(CalibrationNumbers):
    """The stored calibration, and the images that it does not use."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    score_percentile: int | None = Field(
        None, description="left out if SCORE_PERCENTILE is not an integer", examples=[99]
    )
    percentile_choice: PercentileChoiceReply | None = Field(None, description="only with choose_percentile")
    n_errors: int = Field(examples=[0])
    errors: list[FailedSampleReply]


class ItemReply(Reply):
    """The judgement of one stored image; a failed image has no score."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    uploaded_as: UploadedAs = None
    mm_per_px: float | None = Field(None, examples=[0.2])
    score: float | None = Field(None, examples=[0.61])
    threshold: float | None = Field(None, examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(None, examples=["ng"])
    decide_by: DecidedBy = None
    pixel_threshold: PixelThreshold = None
    why: Why = None
    regions: list[RegionReply]
    n_regions: int = Field(examples=[0])
    heatmap_png_base64: str | None = Field(None, description="only with include_heatmap", examples=[HEATMAP_EXAMPLE])
    overlay_png_base64: str | None = Field(None, description=OVERLAY, examples=[None])
    warning: str | None = Field(None, description="as in the reply to /infer")
    error: str | None = Field(None, description="why the image failed")
    code: ErrorCode | None = Field(None, description="error code for programs; left out like error")


class InferDatasetReply(RoiReply):
    """The judgements of the stored images."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    n_total: int = Field(examples=[1])
    n_errors: int = Field(examples=[0])
    warning: str | None = Field(None, description=WARNING)
    model: ModelReply
    items: list[ItemReply]
