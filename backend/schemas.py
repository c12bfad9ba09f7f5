"""The contract: requests and replies as pydantic models, with the examples that ``/docs`` shows."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator

Identifier = Annotated[str, Field(min_length=1, max_length=128)]
MillimetresPerPixel = Annotated[
    FiniteFloat, Field(ge=1e-6, le=1e6, description="millimetres per pixel of the uploaded image", examples=[0.2])
]
Score = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]

HEATMAP_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


class _Fields(BaseModel):
    """Unknown fields are ignored: newer clients send more."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class RoiFields(_Fields):
    """What every request names."""

    role_id: Identifier = Field(description="inspection role, as the GUI names it", examples=["Master1"])
    roi_id: Identifier = Field(description="region of interest within the role", examples=["Pattern"])
    mm_per_px: MillimetresPerPixel
    model_key: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="accepted from newer clients", examples=["Pattern"]
    )


class FitFields(RoiFields):
    """Form fields of ``POST /fit_ok`` beside the images."""

    memory_fit: bool = Field(False, description="keep every embedding instead of a coreset", examples=[False])

    @field_validator("memory_fit", mode="before")
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


class CalibrateFields(RoiFields):
    """What a calibration names beside its scores."""

    area_mm2_thr: Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    score_percentile: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )


class CalibrateRequest(CalibrateFields):
    """Body of ``POST /calibrate_ng``."""

    ok_scores: list[Score] = Field(
        min_length=1,
        max_length=1_000_000,
        description="scores of good parts from /infer",
        examples=[[0.41, 0.44, 0.39]],
    )
    ng_scores: list[Score] | None = Field(
        None, max_length=1_000_000, description="scores of defective parts, if there are any", examples=[[0.72, 0.66]]
    )


class _Reply(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class ErrorReply(_Reply):
    """The body of every error."""

    error: str = Field(description="what went wrong and what to do about it")
    trace: str = Field(description="where, without absolute paths; empty with TRACE=false")


class HealthReply(_Reply):
    """The state of the service."""

    status: Literal["ok"] = Field(examples=["ok"])
    device: str = Field(description="where the network runs", examples=["cpu"])
    model: str = Field(examples=["vit_small_patch14_dinov2.lvd142m"])
    version: str = Field(description="version of the service", examples=["1.0.0"])
    runtime: str = Field(examples=["openvino"])
    precision: str = Field(examples=["float32"])
    input_size: int = Field(description="side of the network input in pixels", examples=[448])
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    weights_sha256: str = Field(examples=["46a3827c3d504b167dcae6c5505ae17672c90fc799ab34987d5deadd279db413"])
    reason: str | None = Field(None, description="why the network does not run where DEVICE asked for")
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class FitReply(_Reply):
    """What a fit built."""

    n_embeddings: int = Field(description="patch embeddings of all images", examples=[34816])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class CalibrateReply(_Reply):
    """The stored calibration."""

    threshold: float = Field(description="midpoint of p99_ok and p5_ng, or p99_ok without NG", examples=[0.5512])
    p99_ok: float = Field(description="99th percentile of the OK scores", examples=[0.4394])
    p5_ng: float | None = Field(None, description="5th percentile of the NG scores", examples=[0.663])
    ok_mean: float = Field(examples=[0.4133])
    ng_mean: float | None = Field(None, examples=[0.69])
    mm_per_px: float = Field(examples=[0.2])
    area_mm2_thr: float = Field(examples=[1.0])
    score_percentile: int | float = Field(examples=[99])
    n_ok: int = Field(examples=[3])
    n_ng: int = Field(examples=[2])
    overlap: bool | None = Field(
        None,
        description="whether an OK score reaches the lowest NG score: no threshold separates them",
        examples=[False],
    )
    warning: str | None = Field(None, description="what the numbers cannot promise")
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


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


class InferReply(_Reply):
    """The judgement of one image."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
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
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])
