"""The routes of the state of the service, of a ROI, of its memory bank, and of long work."""

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import ValidationError

from backend import __version__
from backend.api.dependencies import (
    Access,
    Configuration,
    HeaderRecipe,
    Known,
    RequestId,
    Running,
    Service,
    ids_of,
    roi_key,
)
from backend.api.examples import ERRORS
from backend.api.json_body import max_layout_bytes
from backend.api.reply_examples import METRICS_EXAMPLE
from backend.api.schemas.common import RoiIds, model_reply
from backend.api.schemas.datasets import sample_classes
from backend.api.schemas.state import (
    BankEntryReply,
    BankReply,
    CancelRunReply,
    CancelRunRequest,
    HealthReply,
    LimitsReply,
    ManifestDatasets,
    ManifestReply,
    MinimalHealthReply,
    ReadyReply,
    RunReply,
    RunsReply,
    StateReply,
)
from backend.common.config import Settings
from backend.common.roi_key import DEFAULT_RECIPE
from backend.common.telemetry import DRIFTING_ROIS, FITTED_ROIS, annotate, render_metrics
from backend.service.bank_report import bank_report
from backend.service.gui_layouts import MAX_PICTURE_BYTES, MAX_PICTURES

router = APIRouter()


@router.head("/health", include_in_schema=False)
@router.get(
    "/health",
    summary="Tell the state of the service.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["/health"],
)
async def health(
    lifecycle: Running,
    settings: Configuration,
    request_id: RequestId,
    recipe: HeaderRecipe,
    known: Known,
    access: Access,
) -> HealthReply | MinimalHealthReply:
    """Status, device and model; if there are API keys, little more without one. 200 in every state."""
    service = lifecycle.service
    minimal = MinimalHealthReply(
        status=lifecycle.status,
        device=service.features.runtime.device if service else settings.device,
        model=service.features.identity.model if service else settings.model_name,
        version=__version__,
        recipe_id=recipe or DEFAULT_RECIPE,
        request_id=request_id,
    )
    if not known:
        return minimal
    allowed: dict[str, Any] = {"access": access, "limits": _limits(settings)}
    if service is None:
        return HealthReply(**vars(minimal), **allowed, reason=lifecycle.failure)
    features, counts = service.features, await lifecycle.counts.fresh(service)
    return HealthReply(
        **vars(minimal),
        **allowed,
        runtime=features.runtime.name,
        precision=features.runtime.precision,
        block=service.settings.block if features.identity.block is not None else None,
        input_size=features.input_size,
        token_shape=list(features.token_hw),
        weights_sha256=features.identity.weights_sha256,
        stale_calibrations=counts.stale_calibrations,
        drifting_rois=counts.drifting_rois,
        models_fresh_s=None if settings.models_url is None else settings.models_fresh_s,
        store_silent_s=None if service.contact is None else service.contact.silent_s,
        reason=service.reason,
    )


def _limits(settings: Settings) -> LimitsReply:
    names = LimitsReply.model_fields.keys() & type(settings).model_fields.keys()
    return LimitsReply(
        **{name: getattr(settings, name) for name in names},
        max_layout_bytes=max_layout_bytes(settings),
        max_picture_bytes=MAX_PICTURE_BYTES,
        max_pictures=MAX_PICTURES,
    )


@router.head("/ready", include_in_schema=False)
@router.get("/ready", summary="Tell whether the service accepts work.", tags=["state"], responses=ERRORS["/ready"])
async def ready(lifecycle: Running, request_id: RequestId, known: Known) -> ReadyReply:
    """Whether the service accepts work: 503 while it starts, if it could not load, or while it stops."""
    lifecycle.require_ready(tells_why=known)
    return ReadyReply(status="ok", request_id=request_id)


@router.get(
    "/metrics",
    summary="Give metrics for Prometheus.",
    response_class=Response,
    tags=["state"],
    responses={**METRICS_EXAMPLE, **ERRORS["state"]},
)
def metrics(lifecycle: Running) -> Response:
    """Prometheus text format."""
    if lifecycle.service is not None:
        FITTED_ROIS.set(lifecycle.service.store.count_fitted())
        DRIFTING_ROIS.set(len(lifecycle.service.drift.drifting()))
    return Response(render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(
    "/state",
    summary="Tell whether a ROI can be inferred, and with which model.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["read"],
)
def state(ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe) -> StateReply:
    """Whether a ROI can be inferred, and with which model."""
    key = roi_key(ids, recipe)
    found = service.state(key)
    calibration = found.fitted.calibration_state if found.fitted else "none"
    return StateReply(
        **ids_of(key, request_id),
        status="ok" if found.refit_reason is None else "refit_needed",
        memory_fitted=found.fitted is not None,
        calib_present=calibration == "applied",
        calibration=calibration,
        reason=found.refit_reason,
        model=model_reply(found.fitted) if found.fitted else None,
        mm_per_px=service.recipes.mm_per_px(key.recipe_id),
    )


@router.get("/manifest", summary="Tell what is stored for a ROI.", tags=["state"], responses=ERRORS["read"])
def manifest(
    ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> ManifestReply:
    """Everything that is stored for a ROI."""
    key = roi_key(ids, recipe)
    fitted = service.state(key).fitted
    calibration = fitted.calibration if fitted else None
    return ManifestReply(
        **ids_of(key, request_id),
        memory=fitted is not None,
        calib=calibration.as_dict() if calibration else None,
        datasets=ManifestDatasets(classes=sample_classes(service.datasets, key)),
    )


@router.get(
    "/runs",
    summary="Show the progress of long work.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["/runs"],
)
def runs(service: Service, request_id: RequestId) -> RunsReply:
    """The progress of fits, calibrations and inferences over many images, in all processes."""
    shown = []
    for record in service.runs.running():
        with contextlib.suppress(ValidationError):  # another version of the service may show other things
            shown.append(RunReply.model_validate(record))
    return RunsReply(runs=shown, request_id=request_id)


@router.post(
    "/runs/cancel",
    summary="Cancel long work that is under way.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["/runs/cancel"],
)
def cancel_run(body: CancelRunRequest, service: Service, request_id: RequestId) -> CancelRunReply:
    """Cancel a run in any process: it ends at its next image or block, and stores no result."""
    run = service.runs.cancel(body.run_id)
    annotate(**{name: run[name] for name in ("run_id", "kind", "role_id", "roi_id")})
    return CancelRunReply.model_validate({**run, "cancelled": True, "warning": body.doubts, "request_id": request_id})


@router.get(
    "/bank",
    summary="Show which images a memory bank was built from.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["bank"],
)
def bank(ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe) -> BankReply:
    """The images of the memory bank: which may be defective, and which are hardly needed."""
    key = roi_key(ids, recipe)
    report = bank_report(service, key)
    percentile = service.score_percentile_of(report.fitted.profile, report.fitted.detail)
    return BankReply(
        coreset_size=len(report.fitted.memory.embeddings),
        covering_radius=report.covering_radius,
        images=[
            BankEntryReply(
                filename=entry.image.name,
                uploaded_as=entry.image.uploaded_as,
                n_kept=entry.n_kept,
                n_unique=entry.image.n_unique,
                score=entry.image.score(percentile),
                suspicious=entry.suspicious,
            )
            for entry in report.entries
        ],
        model=model_reply(report.fitted),
        **ids_of(key, request_id),
    )
