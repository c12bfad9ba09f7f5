"""Replies about the state of the service, of a ROI, and of long work."""

from typing import Annotated, Any, Literal

from pydantic import Field

from backend.api.schemas.common import KnownOnly, ModelReply, Reply, RoiReply
from backend.api.schemas.datasets import SampleClasses
from backend.api.schemas.inspection import UploadedAs


class MinimalHealthReply(Reply):
    """The reply to requests without an API key, if the service has keys."""

    status: Literal["ok", "starting", "failed", "draining"] = Field(
        description="failed: the service could not load, see reason, and is trying again; draining: it is stopping",
        examples=["ok"],
    )
    device: str = Field(description="device that the network runs on, or will run on", examples=["cpu"])
    model: str = Field(examples=["vit_small_patch14_dinov2.lvd142m"])
    version: str = Field(description="version of the service", examples=["1.0.0"])
    recipe_id: str = Field(description="recipe of the header X-Recipe-Id", examples=["default"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class LimitsReply(Reply):
    """Limits of requests: the settings of the same names, and the limits of layouts."""

    max_file_mb: float = Field(description="largest uploaded file, in MiB", examples=[64.0])
    max_request_mb: float = Field(description="largest form with images, in MiB", examples=[2048.0])
    max_json_mb: float = Field(description="largest body of /calibrate_ng, in MiB", examples=[64.0])
    max_files: int = Field(description="most images in one request", examples=[1000])
    max_pixels: int = Field(description="most pixels in one image", examples=[64_000_000])
    max_queue: int = Field(description="maximum number of running and waiting inferences", examples=[32])
    max_fits: int = Field(description="maximum number of running and waiting fits", examples=[4])
    min_ok_samples: int = Field(description="minimum number of stored OK images for a fit from them", examples=[10])
    history: int = Field(description="judgements that are kept for each ROI; 0 means none", examples=[0])
    rate_limit_per_s: float = Field(description="requests per second of one client; 0 means no limit", examples=[0.0])
    max_layout_bytes: int = Field(description="largest body of /layout, in bytes", examples=[1048576])
    max_picture_bytes: int = Field(description="largest picture of /layout/picture, in bytes", examples=[4194304])
    max_pictures: int = Field(description="most pictures of a recipe", examples=[256])


class HealthReply(MinimalHealthReply):
    """The state of the service."""

    access: Literal["full", "infer"] = Field(
        description="rights of the caller: everything, or only read and infer; full if there are no API keys",
        examples=["full"],
    )
    limits: LimitsReply

    runtime: str | None = Field(
        None, description="left out until the model is loaded, like the following members", examples=["openvino"]
    )
    precision: str | None = Field(None, examples=["float32"])
    block: int | None = Field(
        None, description="block whose tokens are compared; left out if it is the last", examples=[10]
    )
    input_size: int | None = Field(None, description="side length of the network input in pixels", examples=[448])
    token_shape: list[int] | None = Field(None, description="token grid [rows, columns]", examples=[[32, 32]])
    weights_sha256: str | None = Field(
        None, examples=["46a3827c3d504b167dcae6c5505ae17672c90fc799ab34987d5deadd279db413"]
    )
    stale_calibrations: int | None = Field(
        None,
        description="number of ROIs that were refitted after their calibration, so that no threshold applies",
        examples=[0],
    )
    drifting_rois: int | None = Field(
        None, description="number of ROIs whose production drifts; see /drift/rois", examples=[0]
    )
    models_fresh_s: float | None = Field(
        None,
        description="with MODELS_URL: maximum age of the model that judges, in seconds; 0 checks the store at every "
        "inference",
        examples=[0.0],
    )
    store_silent_s: float | None = Field(
        None,
        description="with MODELS_URL: seconds since the object store stopped answering; left out while it answers",
        examples=[12.5],
    )
    reason: str | None = Field(
        None,
        description="why the service could not load, why the network does not run on DEVICE, or what PRECISION lacks",
    )


class ReadyReply(Reply):
    """The service accepts work."""

    status: Literal["ok"] = Field(examples=["ok"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class StateReply(RoiReply):
    """What is stored for a ROI."""

    status: Literal["ok", "refit_needed"] = Field(examples=["ok"])
    memory_fitted: bool = Field(description="whether /infer has a memory bank to compare with", examples=[True])
    calib_present: bool = Field(description="whether /infer applies a threshold", examples=[True])
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    reason: str | None = Field(None, description="why a refit is needed")
    model: ModelReply | None = Field(None, description="left out if there is no usable model")
    mm_per_px: float | None = Field(
        None, description="scale that the recipe is locked to; left out if it is not locked", examples=[0.2]
    )


class ManifestDatasets(Reply):
    """The data set of a ROI."""

    classes: SampleClasses


class ManifestReply(RoiReply):
    """Everything that is stored for a ROI."""

    status: Literal["ok"] = Field("ok", examples=["ok"])
    memory: bool = Field(description="like memory_fitted of /state", examples=[True])
    calib: dict[str, Any] | None = Field(
        description="the calibration that /infer applies, or null", examples=[{"threshold": 0.5512, "p99_ok": 0.4394}]
    )
    datasets: ManifestDatasets


class BankEntryReply(Reply):
    """An image that a memory bank was built from."""

    filename: str = Field(examples=["part12.png"])
    uploaded_as: UploadedAs = None
    n_kept: int = Field(description="number of its patches in the bank", examples=[21])
    n_unique: int | None = Field(
        None,
        description="number of its patches that the other images do not cover as closely: if few, the image is "
        "hardly needed",
        examples=[64],
    )
    score: float | None = Field(None, description="score by a memory bank of the other images", examples=[0.43])
    suspicious: bool = Field(description="whether the image scores far above the others", examples=[False])


class BankReply(RoiReply):
    """What a memory bank was built from."""

    coreset_size: int = Field(description="number of embeddings in the memory bank", examples=[697])
    covering_radius: float | None = Field(
        None,
        description="every patch of its images has an embedding of the bank within this distance, 0..2",
        examples=[0.57],
    )
    images: list[BankEntryReply] = Field(description="empty for models of earlier versions")
    model: ModelReply


_RUN_ID = "5f0c1d2e3b4a59687766554433221100"


class RunReply(Reply):
    """Running long work."""

    run_id: str | None = Field(
        None,
        description="id for /runs/cancel; left out if an earlier version of the service runs it",
        examples=[_RUN_ID],
    )
    kind: Literal["fit", "calibrate_dataset", "infer_dataset"] = Field(examples=["fit"])
    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    request_id: str | None = Field(
        None, description="id of the request that started the run; none from the command line"
    )
    started_at_utc: str = Field(examples=["2026-11-22T21:04:55.123+00:00"])
    n_images: int = Field(examples=[34])
    step: str = Field(description="wait, extract, coreset or score", examples=["extract"])
    done: int = Field(description="finished units of the step", examples=[17])
    total: int = Field(description="all units of the step", examples=[34])
    left_s: int | None = Field(None, description="estimated seconds until the end of the step", examples=[4])
    n_errors: int = Field(description="number of failed images", examples=[0])


class RunsReply(Reply):
    """The running long work of all processes, the oldest first."""

    runs: list[RunReply]
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class CancelRunRequest(KnownOnly):
    """Body of ``POST /runs/cancel``."""

    run_id: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="id of the run, from /runs", examples=[_RUN_ID]
    )


class CancelRunReply(RoiReply):
    """The cancelled run, and its ROI."""

    cancelled: Literal[True] = Field(
        description="the run stores no model and no calibration, and ends after at most one more image or coreset "
        "block",
        examples=[True],
    )
    run_id: str = Field(examples=[_RUN_ID])
    kind: str = Field(description="as in /runs", examples=["fit"])
    step: str = Field(description="last known progress, as in /runs", examples=["extract"])
    done: int = Field(examples=[17])
    total: int = Field(examples=[34])
    warning: str | None = Field(None, description="members of the request that have no effect")
