"""The routes of earlier models: ``/versions`` lists them, ``/rollback`` restores one."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.schemas.common import RoiIds, model_reply
from backend.api.schemas.versions import RollbackReply, RollbackRequest, VersionsReply, version_reply
from backend.service.roll_back import roll_back as roll_back_model

router = APIRouter()


@router.get(
    "/versions",
    summary="List the earlier models of a ROI.",
    response_model_exclude_none=True,
    tags=["versions"],
    responses=ERRORS["read"],
)
def versions(
    ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> VersionsReply:
    """The earlier versions of the ROI's own model, before each fit, calibration, feedback and roll-back."""
    key = roi_key(ids, recipe)
    fitted = service.state(key).fitted
    return VersionsReply(
        **ids_of(key, request_id),
        versions=[version_reply(version, calibration) for version, calibration in service.store.versions(key)],
        model=model_reply(fitted) if fitted else None,
    )


@router.post(
    "/rollback",
    summary="Restore an earlier model of a ROI.",
    response_model_exclude_none=True,
    tags=["versions"],
    responses=ERRORS["/rollback"],
)
def roll_back(body: RollbackRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> RollbackReply:
    """Restore an earlier model of the ROI with its calibration; the replaced model is kept as the newest version."""
    key = roi_key(body, recipe)
    version, fitted = roll_back_model(service, key, body.version)
    return RollbackReply(
        **ids_of(key, request_id),
        version=version.number,
        memory_id=fitted.memory_id,
        calibration=fitted.calibration_state,
        threshold=fitted.calibration.threshold if fitted.calibration else None,
        coreset_size=len(fitted.memory.embeddings),
        token_shape=list(fitted.memory.token_hw),
        model=model_reply(fitted),
    )
