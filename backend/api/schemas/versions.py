"""Requests and replies about earlier models and roll-backs."""

from typing import Annotated, Literal

from pydantic import Field

from backend.api.schemas.common import MEMORY_ID, JsonNumber, KnownOnly, ModelReply, Reply, RoiIds, RoiReply
from backend.calib import Calibration
from backend.disk.versions import Change, Version


class RollbackRequest(RoiIds, KnownOnly):
    """Body of ``POST /rollback``."""

    version: Annotated[Annotated[int, Field(ge=1, le=1_000_000_000)] | None, JsonNumber] = Field(
        None, description="number of the version in /versions; default: the newest", examples=[None]
    )


class VersionReply(Reply):
    """A model that was replaced, and is kept."""

    version: int = Field(description="number of the version; the highest is the newest", examples=[3])
    kept_at_utc: str = Field(description="time when it was replaced", examples=["2026-11-22T21:04:55.123456+00:00"])
    replaced_by: Change = Field(description="change that replaced it", examples=["fit"])
    memory_id: str = MEMORY_ID
    coreset_size: int = Field(description="number of embeddings in the memory bank", examples=[697])
    n_embeddings: int | None = Field(None, description="number of patch embeddings of all images", examples=[34816])
    n_images: int | None = Field(None, description="number of images of the fit", examples=[34])
    calibrated: bool = Field(description="whether a threshold was applied", examples=[True])
    threshold: float | None = Field(None, description="which", examples=[0.5512])


def version_reply(version: Version, calibration: Calibration | None) -> VersionReply:
    """An earlier model, in the form of the reply."""
    return VersionReply(
        version=version.number,
        **vars(version.facts),
        calibrated=calibration is not None,
        threshold=calibration.threshold if calibration else None,
    )


class VersionsReply(RoiReply):
    """The earlier versions of the ROI's own model."""

    versions: list[VersionReply] = Field(description="the newest first")
    model: ModelReply | None = Field(None, description="the model that is served now; left out if there is none")


class RollbackReply(RoiReply):
    """The model that is now served."""

    version: int = Field(description="number of the restored version", examples=[3])
    memory_id: str = MEMORY_ID
    calibration: Literal["none", "applied", "stale"] = Field(
        description="none: the version had no calibration; stale: its calibration belongs to another BLUR_SIGMA; "
        "calibrate",
        examples=["applied"],
    )
    threshold: float | None = Field(None, description="left out if none is applied", examples=[0.5512])
    coreset_size: int = Field(description="number of embeddings in the memory bank", examples=[697])
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    model: ModelReply
