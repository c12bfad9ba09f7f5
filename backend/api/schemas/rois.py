"""Requests and replies of the list of all ROIs."""

from typing import Literal

from pydantic import Field

from backend.api.schemas.common import DETAIL, RecipeName, Reply
from backend.common.errors import ErrorCode
from backend.common.profiles import ProfileName


class RoisQuery(RecipeName):
    """Query of ``GET /rois``."""

    offset: int = Field(0, ge=0, le=10_000_000, description="number of ROIs to skip", examples=[0])
    limit: int = Field(200, ge=1, le=1000, description="most ROIs in a reply", examples=[200])


class ListedModelReply(Reply):
    """The stored model that a ROI is served."""

    role_id: str = Field(examples=["Master1"])
    recipe_id: str = Field(description="default if the recipe has no model of its own", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    layout: Literal["current", "L4", "L3", "L2", "L1", "L0"] = Field(
        description="current, or the layout of the older backend that stored it", examples=["current"]
    )
    memory_id: str | None = Field(
        None, description="left out for models of older backends", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    profile: ProfileName = Field(description="profile of its memory bank", examples=["contract"])
    detail: int | None = Field(None, description=DETAIL, examples=[None])
    coreset_size: int = Field(description="number of embeddings in the memory bank", examples=[697])
    n_images: int | None = Field(
        None, description="number of images that the bank was built from; left out if unknown", examples=[34]
    )


class StoredImagesReply(Reply):
    """How many images of a ROI are stored; a class that cannot be read is left out."""

    ok: int | None = Field(None, examples=[34])
    ng: int | None = Field(None, examples=[5])


class ListedRoiReply(Reply):
    """What is stored for a ROI."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    status: Literal["ok", "not_fitted", "refit_needed", "error"] = Field(
        description="error: a stored file is damaged or cannot be read, see error", examples=["ok"]
    )
    fitted: bool = Field(description="whether /infer has a memory bank to compare with", examples=[True])
    calibration: Literal["none", "applied", "stale"] | None = Field(
        None, description="as in /state; left out if it is unknown without the bank", examples=["applied"]
    )
    threshold: float | None = Field(None, description="threshold that is applied", examples=[0.5512])
    mm_per_px: float | None = Field(
        None, description="scale that the recipe is locked to, else the scale of the fit", examples=[0.2]
    )
    drift: Literal["ok", "drift", "collecting", "none"] | None = Field(
        None, description="verdict of /drift; left out without a calibration", examples=["ok"]
    )
    n_images: StoredImagesReply = Field(description="number of stored images")
    model: ListedModelReply | None = Field(None, description="the model that is served; left out if there is none")
    reason: str | None = Field(None, description="why a refit is needed")
    error: str | None = Field(None, description="what is damaged or cannot be read, and what to do")
    code: ErrorCode | None = Field(None, description="error code for programs; left out like error")


class RoisReply(Reply):
    """The ROIs that have a model, a calibration or stored images, sorted by recipe, role, roi and model key."""

    rois: list[ListedRoiReply]
    n_total: int = Field(description="number of ROIs, including those that are not in this reply", examples=[1])
    recipes: list[str] = Field(description="all recipes, not only the requested one", examples=[["default"]])
    warning: str | None = Field(None, description="what could not be listed")
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])
