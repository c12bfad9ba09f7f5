"""What clients get back about a ROI's stored images, what was made of them, and the long work that is under way."""

from typing import Any, Literal

from pydantic import Field

from backend.api.schemas.common import (
    HEATMAP_EXAMPLE,
    CalibrationNumbers,
    ModelReply,
    PercentileChoiceReply,
    RegionReply,
    Reply,
    RoiReply,
)


class StateReply(RoiReply):
    """What there is for a ROI."""

    status: Literal["ok", "refit_needed"] = Field(examples=["ok"])
    memory_fitted: bool = Field(description="whether /infer has a memory bank to compare with", examples=[True])
    calib_present: bool = Field(description="whether /infer applies a threshold", examples=[True])
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    reason: str | None = Field(None, description="why a refit is needed")
    model: ModelReply | None = Field(None, description="left out when there is none to use")
    mm_per_px: float | None = Field(None, description="what the recipe is locked to; left out before", examples=[0.2])


class SampleClassReply(Reply):
    """The stored images of one class."""

    count: int = Field(examples=[1])
    files: list[str] = Field(
        description="names, sorted by the time of upload", examples=[["20261122-210455-123456-1a2b3c4d.png"]]
    )
    meta: dict[str, bool] = Field(
        description="whether an image has metadata", examples=[{"20261122-210455-123456-1a2b3c4d.png": True}]
    )


class SampleClasses(Reply):
    """The stored images."""

    ok: SampleClassReply
    ng: SampleClassReply


class DatasetListReply(RoiReply):
    """The data set of a ROI."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    classes: SampleClasses


class ManifestDatasets(Reply):
    """The data set of a ROI."""

    classes: SampleClasses


class ManifestReply(RoiReply):
    """Everything that is stored for a ROI."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    memory: bool = Field(description="as memory_fitted of /state", examples=[True])
    calib: dict[str, Any] | None = Field(
        description="the calibration that /infer applies, or null", examples=[{"threshold": 0.5512, "p99_ok": 0.4394}]
    )
    datasets: ManifestDatasets


class UploadReply(RoiReply):
    """Images that were stored."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(examples=["ok"])
    files: list[str] = Field(
        description="their names, in the order of the upload", examples=[["20261122-210455-123456-1a2b3c4d.png"]]
    )


class DeleteReply(RoiReply):
    """Images that were deleted."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    label: Literal["ok", "ng"] = Field(examples=["ok"])
    n_deleted: int = Field(examples=[1])
    filename: str | None = Field(
        None, description="name of the one image", examples=["20261122-210455-123456-1a2b3c4d.png"]
    )


class FailedSampleReply(Reply):
    """A stored image that could not be judged."""

    label: Literal["ok", "ng"] = Field(examples=["ok"])
    filename: str = Field(examples=["20261122-210455-123456-1a2b3c4d.png"])
    error: str = Field(
        description="why", examples=["part7.png: the image cannot be decoded; it is truncated or damaged"]
    )


class CalibrateDatasetReply(CalibrationNumbers):
    """The stored calibration, and the images that it does not rest on."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    score_percentile: int | None = Field(
        None, description="left out when SCORE_PERCENTILE is no integer", examples=[99]
    )
    percentile_choice: PercentileChoiceReply | None = Field(None, description="with choose_percentile")
    n_errors: int = Field(examples=[0])
    errors: list[FailedSampleReply]


class ItemReply(Reply):
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


class InferDatasetReply(RoiReply):
    """The judgements of the stored images."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    n_total: int = Field(examples=[1])
    n_errors: int = Field(examples=[0])
    model: ModelReply
    items: list[ItemReply]


class RunReply(Reply):
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


class RunsReply(Reply):
    """The long work of all processes of the service, the oldest first."""

    runs: list[RunReply]
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])
