"""The route that lists every ROI."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.dependencies import HeaderRecipe, RequestId, Service, named_recipe
from backend.api.examples import ERRORS
from backend.api.schemas.rois import ListedModelReply, ListedRoiReply, RoisQuery, RoisReply, StoredImagesReply
from backend.service.doubts import joined
from backend.service.roi_list import ListedModel, ListedRoi, list_rois

router = APIRouter()


@router.get(
    "/rois",
    summary="List every ROI and what is stored for it.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["read"],
)
def rois(
    wanted: Annotated[RoisQuery, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> RoisReply:
    """Every ROI with a model, a calibration or stored images; memory banks are not read."""
    found = list_rois(service, named_recipe(wanted.recipe_id, recipe), wanted.offset, wanted.limit)
    return RoisReply(
        rois=[_roi_reply(roi) for roi in found.rois],
        n_total=found.n_total,
        recipes=found.recipes,
        warning=joined(found.problems),
        request_id=request_id,
    )


def _roi_reply(roi: ListedRoi) -> ListedRoiReply:
    key = roi.key
    return ListedRoiReply(
        role_id=key.role_id,
        roi_id=key.roi_id,
        recipe_id=key.recipe,
        model_key=key.model,
        status=roi.status,
        fitted=roi.model is not None and roi.refit_reason is None,
        calibration=roi.calibration,
        threshold=roi.threshold,
        mm_per_px=roi.mm_per_px,
        drift=roi.drift,
        n_images=StoredImagesReply(ok=roi.n_images.get("ok"), ng=roi.n_images.get("ng")),
        model=_model_reply(roi.model) if roi.model else None,
        reason=roi.refit_reason,
        error="; ".join(error for error, _ in roi.errors) or None,
        code=roi.errors[0][1] if roi.errors else None,
    )


def _model_reply(model: ListedModel) -> ListedModelReply:
    return ListedModelReply(
        role_id=model.key.role_id,
        recipe_id=model.key.recipe,
        model_key=model.key.model,
        layout=model.layout,
        memory_id=model.memory_id,
        profile=model.profile,
        detail=model.detail if model.detail != 1 else None,
        coreset_size=model.coreset_size,
        n_images=model.n_images,
    )
