"""What is told about the service, about a ROI, and about long work that is under way."""

from typing import Annotated, Any, Literal

from pydantic import Field

from backend.api.schemas.common import KnownOnly, ModelReply, Reply, RoiReply
from backend.api.schemas.datasets import SampleClasses
from backend.api.schemas.inspection import UploadedAs


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


class LimitsReply(Reply):
    """How much requests may ask for: by the settings of the same names, and of layouts."""

    max_file_mb: float = Field(description="largest uploaded file, in MiB", examples=[64.0])
    max_request_mb: float = Field(description="largest form with images, in MiB", examples=[2048.0])
    max_json_mb: float = Field(description="largest body of /calibrate_ng, in MiB", examples=[64.0])
    max_files: int = Field(description="most images in one request", examples=[1000])
    max_pixels: int = Field(description="most pixels in one image", examples=[64_000_000])
    max_queue: int = Field(description="most inferences that run or wait", examples=[32])
    max_fits: int = Field(description="most fits that run or wait", examples=[4])
    min_ok_samples: int = Field(description="fewest stored OK images that a fit from them takes", examples=[10])
    history: int = Field(description="judgements that are kept of each ROI; 0 is none", examples=[0])
    rate_limit_per_s: float = Field(description="requests per second of one client; 0 is no limit", examples=[0.0])
    max_layout_bytes: int = Field(description="largest body of /layout", examples=[1048576])
    max_picture_bytes: int = Field(description="largest picture of /layout/picture", examples=[4194304])
    max_pictures: int = Field(description="most pictures of a recipe", examples=[256])


class HealthReply(MinimalHealthReply):
    """The state of the service."""

    access: Literal["full", "infer"] = Field(
        description="what the caller may do: everything, or read and infer; full where there are no API keys",
        examples=["full"],
    )
    limits: LimitsReply

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
    models_fresh_s: float | None = Field(
        None,
        description="with MODELS_URL: how old the model that judges may be, in seconds; 0 looks at every inference",
        examples=[0.0],
    )
    store_silent_s: float | None = Field(
        None,
        description="with MODELS_URL: for how many seconds the object store has not answered; left out while it does",
        examples=[12.5],
    )
    reason: str | None = Field(
        None, description="why it could not load, or why the network does not run where DEVICE asked for"
    )


class ReadyReply(Reply):
    """The service takes work."""

    status: Literal["ok"] = Field(examples=["ok"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class StateReply(RoiReply):
    """What there is for a ROI."""

    status: Literal["ok", "refit_needed"] = Field(examples=["ok"])
    memory_fitted: bool = Field(description="whether /infer has a memory bank to compare with", examples=[True])
    calib_present: bool = Field(description="whether /infer applies a threshold", examples=[True])
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    reason: str | None = Field(None, description="why a refit is needed")
    model: ModelReply | None = Field(None, description="left out when there is none to use")
    mm_per_px: float | None = Field(None, description="what the recipe is locked to; left out before", examples=[0.2])


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


class BankEntryReply(Reply):
    """An image that a memory bank was built from."""

    filename: str = Field(examples=["part12.png"])
    uploaded_as: UploadedAs = None
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


_RUN_ID = "5f0c1d2e3b4a59687766554433221100"


class RunReply(Reply):
    """Long work that is under way."""

    run_id: str | None = Field(
        None,
        description="for /runs/cancel; left out where an earlier version of the service runs it",
        examples=[_RUN_ID],
    )
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


class CancelRunRequest(KnownOnly):
    """Body of ``POST /runs/cancel``."""

    run_id: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="of the run, from /runs", examples=[_RUN_ID]
    )


class CancelRunReply(RoiReply):
    """The run that was cancelled, and whose it was."""

    cancelled: Literal[True] = Field(
        description="it stores no model and no calibration, and ends at most one image or one coreset block later",
        examples=[True],
    )
    run_id: str = Field(examples=[_RUN_ID])
    kind: str = Field(description="as in /runs", examples=["fit"])
    step: str = Field(description="how far it was, when it last told: as in /runs", examples=["extract"])
    done: int = Field(examples=[17])
    total: int = Field(examples=[34])
    warning: str | None = Field(None, description="members of the request that have no effect")
