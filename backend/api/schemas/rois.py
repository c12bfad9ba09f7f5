"""What a list of all ROIs asks for, and what it says."""

from typing import Literal

from pydantic import Field

from backend.api.schemas.common import RecipeName, Reply
from backend.common.errors import ErrorCode
from backend.common.profiles import ProfileName


class RoisQuery(RecipeName):
    """Query of ``GET /rois``."""

    offset: int = Field(0, ge=0, le=10_000_000, description="how many ROIs to pass over", examples=[0])
    limit: int = Field(200, ge=1, le=1000, description="how many to list at most", examples=[200])


class ListedModelReply(Reply):
    """The stored model that a ROI is served."""

    role_id: str = Field(examples=["Master1"])
    recipe_id: str = Field(description="default where the recipe has no model of its own", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    layout: Literal["current", "L4", "L3", "L2", "L1", "L0"] = Field(
        description="current, or the older backend's that stored it", examples=["current"]
    )
    memory_id: str | None = Field(
        None, description="left out for models of older backends", examples=["9f86d081884c7d659a2feaa0c55ad015"]
    )
    profile: ProfileName = Field(description="of its memory bank", examples=["contract"])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    n_images: int | None = Field(None, description="that it was built from; left out where not known", examples=[34])


class StoredImagesReply(Reply):
    """How many images of a ROI are stored; a class that cannot be read is left out."""

    ok: int | None = Field(None, examples=[34])
    ng: int | None = Field(None, examples=[5])


class ListedRoiReply(Reply):
    """What there is for a ROI."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    status: Literal["ok", "not_fitted", "refit_needed", "error"] = Field(
        description="error: something stored is damaged or cannot be read, see error", examples=["ok"]
    )
    fitted: bool = Field(description="whether /infer has a memory bank to compare with", examples=[True])
    calibration: Literal["none", "applied", "stale"] | None = Field(
        None, description="as of /state; left out where it cannot be told without the bank", examples=["applied"]
    )
    threshold: float | None = Field(None, description="that is applied", examples=[0.5512])
    mm_per_px: float | None = Field(
        None, description="what the recipe is locked to, else that of the fit", examples=[0.2]
    )
    drift: Literal["ok", "drift", "collecting", "none"] | None = Field(
        None, description="verdict of /drift; left out without a calibration", examples=["ok"]
    )
    n_images: StoredImagesReply = Field(description="stored images")
    model: ListedModelReply | None = Field(None, description="what is served; left out where there is none")
    reason: str | None = Field(None, description="why a refit is needed")
    error: str | None = Field(None, description="what is damaged or cannot be read, and what to do")
    code: ErrorCode | None = Field(None, description="the same for programs; left out like error")


class RoisReply(Reply):
    """The ROIs that have a model, a calibration or stored images, sorted by recipe, role, roi and model key."""

    rois: list[ListedRoiReply]
    n_total: int = Field(description="how many there are, with those that are not in this reply", examples=[1])
    recipes: list[str] = Field(description="all recipes, whichever was asked for", examples=[["default"]])
    warning: str | None = Field(None, description="what could not be listed")
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])
