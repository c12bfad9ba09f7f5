"""What clients get back, as pydantic models, with the examples that ``/docs`` shows.

The replies about stored images are in `dataset_replies`, those about drift in `drift_replies`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.calib import Calibration
from backend.disk.versions import Change, Version
from backend.infer import Region

HEATMAP_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="

MEMORY_ID = Field(
    description="identity of the memory bank: hash of its embeddings", examples=["9f86d081884c7d659a2feaa0c55ad015"]
)


class Reply(BaseModel):
    """A body; its fields may begin with ``model_``."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorReply(Reply):
    """The body of every error."""

    error: str = Field(description="what went wrong and what to do about it")
    trace: str = Field(description="where, without absolute paths; empty with TRACE=false")


class MinimalHealthReply(Reply):
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


class RoiReply(Reply):
    """What every reply about a ROI says."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(description="recipe that was meant", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class ModelReply(Reply):
    """The stored model that was used."""

    role_id: str = Field(examples=["Master1"])
    recipe_id: str = Field(description="default where the recipe has no model of its own", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    layout: Literal["current", "L4", "L3", "L2", "L1", "L0"] = Field(
        description="current, or the older backend's that stored it", examples=["current"]
    )
    memory_id: str = MEMORY_ID


class ReadyReply(Reply):
    """The service takes work."""

    status: Literal["ok"] = Field(examples=["ok"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class SuspiciousReply(Reply):
    """An image of a fit that may be defective."""

    index: int = Field(description="position among the images of the fit, from 0", examples=[2])
    filename: str = Field(examples=["part7.png"])
    score: float = Field(examples=[0.93])


class FitReply(RoiReply):
    """What a fit built."""

    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: the one there was is not applied any more; calibrate again", examples=["none"]
    )
    n_embeddings: int = Field(description="patch embeddings of all images", examples=[34816])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    memory_id: str = MEMORY_ID
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    ok_scores: list[float] | None = Field(
        None,
        description="score of each image by a memory bank of the others, in the order they were sent: what fresh good "
        "parts score; left out where there are no others, or they are so many that it would take more than a minute",
        examples=[[0.43, 0.41, 0.47]],
    )
    suspicious: list[SuspiciousReply] = Field(
        description="images that score far above the others: look at them before you trust the model", examples=[[]]
    )


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


class CalibrationNumbers(RoiReply):
    """What every reply about a calibration says of it."""

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


class CalibrateReply(CalibrationNumbers):
    """The stored calibration."""

    score_percentile: int | float = Field(examples=[99])


class RegionReply(Reply):
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


class InferReply(RoiReply):
    """The judgement of one image."""

    score: float = Field(description="percentile of the masked distance map, 0..2", examples=[0.61])
    threshold: float | None = Field(None, description="left out before calibration", examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(
        None, description="ng when score >= threshold; left out before calibration", examples=["ng"]
    )
    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: there is one, made for an earlier fit or another BLUR_SIGMA; it is not applied",
        examples=["applied"],
    )
    heatmap_png_base64: str = Field(
        description="8-bit grey PNG of the uploaded image's size, 0 outside the mask", examples=[HEATMAP_EXAMPLE]
    )
    regions: list[RegionReply]
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    model: ModelReply


class GoodPatchReply(Reply):
    """The good patch that comes nearest to a place."""

    index: int = Field(description="which image of the fit, from 0", examples=[3])
    filename: str = Field(description="its name", examples=["part12.png"])
    box: list[int] = Field(description="[x, y, w, h] in pixels of that image", examples=[[128, 72, 8, 8]])


class ReasonReply(Reply):
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


class ExplainReply(RoiReply):
    """The judgement of one image, and its reasons."""

    score: float = Field(examples=[0.61])
    threshold: float | None = Field(None, examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(None, examples=["ng"])
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    reasons: list[ReasonReply] = Field(
        description="of the eight largest regions, or of the worst place where there is none"
    )
    model: ModelReply


class BankEntryReply(Reply):
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


class BankReply(RoiReply):
    """What a memory bank was built from."""

    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    covering_radius: float | None = Field(
        None, description="within which the bank has an embedding near every patch of its images, 0..2", examples=[0.57]
    )
    images: list[BankEntryReply] = Field(description="empty for models of earlier versions")
    model: ModelReply


class VersionReply(Reply):
    """A model that was replaced, and is kept."""

    version: int = Field(description="its number; the highest is the newest", examples=[3])
    kept_at_utc: str = Field(description="when it was replaced", examples=["2026-11-22T21:04:55.123456+00:00"])
    replaced_by: Change = Field(description="by what", examples=["fit"])
    memory_id: str = MEMORY_ID
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


class VersionsReply(RoiReply):
    """What the ROI's own model was before its last changes."""

    versions: list[VersionReply] = Field(description="the newest first")
    model: ModelReply | None = Field(None, description="what is served now; left out when there is none to use")


class RollbackReply(RoiReply):
    """The model that is served now."""

    version: int = Field(description="which version that is", examples=[3])
    memory_id: str = MEMORY_ID
    calibration: Literal["none", "applied", "stale"] = Field(
        description="none: it had no calibration then; stale: one of another BLUR_SIGMA; calibrate",
        examples=["applied"],
    )
    threshold: float | None = Field(None, description="left out where none is applied", examples=[0.5512])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    model: ModelReply
