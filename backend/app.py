"""The HTTP surface: ``create_app`` and the routes. ``uvicorn backend.app:app`` serves it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend import __version__
from backend.api.api_keys import ApiKeys
from backend.api.examples import ERRORS, INFER_EXAMPLES, METRICS_EXAMPLE, declare_keys, json_body, multipart
from backend.api.forms import (
    SEND_JSON,
    HeaderRecipe,
    Known,
    RequestId,
    Service,
    complete_form,
    images_of,
    max_json_bytes,
    only_image_of,
    read_fields,
    read_json,
    roi_key,
)
from backend.api.lifecycle import Admission, Lifecycle
from backend.api.middleware.access import Gate, RateLimit
from backend.api.middleware.bodies import BodyLimit, Cors, RequestTelemetry, TrustedHosts, UnreadBody
from backend.api.paths import route_path
from backend.api.routes import datasets, drift, inspection, versions
from backend.api.routes.datasets import ids_of
from backend.api.schemas.calibration import CalibrateReply, CalibrateRequest
from backend.api.schemas.common import model_reply
from backend.api.schemas.inspection import FitFields, FitReply, InferFields, InferReply, SuspiciousReply, region_reply
from backend.api.schemas.state import HealthReply, MinimalHealthReply, ReadyReply
from backend.common.config import Settings, load_settings
from backend.common.error_text import error_reply, problems_in_words
from backend.common.errors import BackendError, Busy, ConfigError, InvalidRequest, NotReady
from backend.common.logs import configure_logging
from backend.common.roi_key import DEFAULT_RECIPE
from backend.common.telemetry import DRIFTING_ROIS, FITTED_ROIS, annotate, render_metrics
from backend.roi_mask import parse_shape
from backend.service.calibrate import calibrate
from backend.service.datasets import fit_stored
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer as infer_image
from backend.service.scoring import Scoring

_OTHER_THREADS = 8
_MAX_BODY_BYTES = 1 << 20  # of what is neither a form nor scores: ids and a few numbers
_MAX_INFER_FILES = 8  # one is right; some more get the sentence that says so

_FORM = "send multipart/form-data with role_id, roi_id"
_HOW_TO_SEND = {
    "/fit_ok": f"{_FORM}, mm_per_px and 1 to MAX_FILES images",
    "/infer": f"{_FORM}, mm_per_px and one image",
    "/explain": f"{_FORM}, mm_per_px and one image",
    "/datasets/ok/upload": f"{_FORM} and 1 to MAX_FILES images",
    "/datasets/ng/upload": f"{_FORM} and 1 to MAX_FILES images",
    "/calibrate_ng": SEND_JSON,
    "/calibrate_dataset": SEND_JSON,
    "/infer_dataset": SEND_JSON,
    "/drift/reset": SEND_JSON,
    "/rollback": SEND_JSON,
}

log: Any = structlog.get_logger(__name__)


def create_app(settings: Settings, service: InspectionService | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: the configuration.
        service: a ready service; None loads one in the background of the start.

    Raises:
        ConfigError: an API key cannot be used.
    """
    configure_logging(settings.log_level, settings.log_format)
    keys = ApiKeys.of(settings)
    lifecycle = Lifecycle(partial(InspectionService.open, settings), service)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # A thread for every request that may run or wait, and some for those that do neither.
        current_default_thread_limiter().total_tokens = settings.max_queue + settings.max_fits + _OTHER_THREADS
        async with lifecycle.running():
            yield

    app = FastAPIOffline(  # /docs works on machines without internet
        title="ROI anomaly detection",
        version=__version__,
        summary="PatchCore on a frozen DINOv2 ViT-S/14: fit on good images, calibrate, infer.",
        description="Images are canonical ROIs, already cropped and rotated; the service never changes their geometry. "
        'Every error is `{"error", "trace"}`: also 404 at unknown paths and 405 for wrong methods.',
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.lifecycle = lifecycle
    app.add_middleware(
        BodyLimit,
        max_bytes=min(_MAX_BODY_BYTES, max_json_bytes(settings)),
        timeout_s=settings.body_timeout_s,
    )
    app.add_middleware(Admission, lifecycle=lifecycle, with_trace=settings.trace)
    rate_limit = RateLimit(settings.rate_limit_per_s) if settings.rate_limit_per_s else None
    app.add_middleware(Gate, keys=keys, rate_limit=rate_limit, with_trace=settings.trace)
    if settings.cors_origins:
        app.add_middleware(
            Cors,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    if settings.allowed_hosts:
        app.add_middleware(TrustedHosts, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(RequestTelemetry, with_trace=settings.trace)
    app.add_middleware(UnreadBody)
    _answer_errors(app, settings)
    _add_routes(app, settings, lifecycle)
    app.include_router(datasets.router)
    app.include_router(inspection.router)
    app.include_router(drift.router)
    app.include_router(versions.router)
    if keys:
        declare_keys(app)
    return app


def _add_routes(app: FastAPI, settings: Settings, lifecycle: Lifecycle) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model_exclude_none=True, tags=["state"], responses=ERRORS["/health"])
    async def health(request_id: RequestId, recipe: HeaderRecipe, known: Known) -> HealthReply | MinimalHealthReply:
        """Status, device and model; where there are API keys, little more without one. 200 in every state."""
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
        if service is None:
            return HealthReply(**vars(minimal), reason=lifecycle.failure)
        features = service.features
        return HealthReply(
            **vars(minimal),
            runtime=features.runtime.name,
            precision=features.runtime.precision,
            block=features.identity.block,
            input_size=features.input_size,
            token_shape=list(features.token_hw),
            weights_sha256=features.identity.weights_sha256,
            stale_calibrations=lifecycle.stale_calibrations,
            drifting_rois=lifecycle.drifting_rois,
            reason=service.reason,
        )

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", tags=["state"], responses=ERRORS["/ready"])
    async def ready(request_id: RequestId, known: Known) -> ReadyReply:
        """Whether the service takes work: 503 while it starts, could not load, or is about to stop."""
        lifecycle.require_ready(tells_why=known)
        return ReadyReply(status="ok", request_id=request_id)

    @app.get("/metrics", response_class=Response, tags=["state"], responses={**METRICS_EXAMPLE, **ERRORS["state"]})
    def metrics() -> Response:
        """Prometheus text format."""
        if lifecycle.service is not None:
            FITTED_ROIS.set(lifecycle.service.store.count_fitted())
            DRIFTING_ROIS.set(len(lifecycle.service.drift.drifting()))
        return Response(render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post(
        "/fit_ok",
        response_model_exclude_none=True,
        tags=["inspection"],
        responses=ERRORS["/fit_ok"],
        openapi_extra=multipart(
            FitFields,
            {"images": "good images of the ROI; also `images[]`, `images[0]`, …; none with use_dataset"},
            files_required=False,
        ),
    )
    async def fit_ok(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> FitReply:
        """Learn what OK looks like from 1..N good images and replace the ROI's memory bank."""
        async with complete_form(request, max_files=service.settings.max_files) as form:
            fields = await read_fields(form, FitFields)
            key = roi_key(fields, recipe)
            images = images_of(form)
            if fields.use_dataset and images:
                raise InvalidRequest("with use_dataset the stored images are fitted: send no files, or leave it out")
            shapes = [parse_shape(fields.shape)] * len(images)
            run = partial(fit_stored, service, key)
            if not fields.use_dataset:
                run = partial(fit, service, key, images, shapes=shapes)
            result = await run_in_threadpool(
                run,
                mm_per_px=fields.mm_per_px,
                keep_all=fields.memory_fit,
                append=fields.append,
                thumbnails=fields.thumbnails,
            )
        return FitReply(
            calibration=result.calibration_state,
            n_embeddings=result.n_embeddings,
            coreset_size=result.coreset_size,
            memory_id=result.memory_id,
            token_shape=list(result.token_hw),
            ok_scores=result.ok_scores,
            suspicious=[SuspiciousReply(**vars(image)) for image in result.suspicious],
            **ids_of(key, request_id),
        )

    @app.post(
        "/calibrate_ng",
        response_model_exclude_none=True,
        tags=["inspection"],
        responses=ERRORS["/calibrate_ng"],
        openapi_extra=json_body(CalibrateRequest),
    )
    async def calibrate_ng(
        request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe
    ) -> CalibrateReply:
        """Choose and store the ROI's threshold from scores that `/infer` gave."""
        body = await read_json(request, CalibrateRequest)
        key = roi_key(body, recipe)
        calibration = await run_in_threadpool(
            calibrate,
            service,
            key,
            body.ok_scores,
            body.ng_scores or [],
            mm_per_px=body.mm_per_px,
            area_mm2_thr=body.area_mm2_thr,
            score_percentile=body.score_percentile,
            memory_id=body.memory_id,
            target_false_reject_rate=body.target_false_reject_rate,
        )
        fitted = (await run_in_threadpool(service.state, key)).fitted
        return CalibrateReply(
            **vars(calibration),
            warning=calibration.warning,
            model=model_reply(fitted) if fitted else None,
            **ids_of(key, request_id),
        )

    @app.post(
        "/infer",
        response_model_exclude_none=True,
        tags=["inspection"],
        responses={200: {"content": {"application/json": {"examples": INFER_EXAMPLES}}}, **ERRORS["/infer"]},
        openapi_extra=multipart(InferFields, {"image": "the canonical ROI image; also `file`"}),
    )
    async def infer(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> InferReply:
        """Score one image against the ROI's memory bank, by the ROI's stored calibration."""
        async with complete_form(request, max_files=_MAX_INFER_FILES) as form:
            fields = await read_fields(form, InferFields)
            key = roi_key(fields, recipe)
            image = only_image_of(form)
            result = await run_in_threadpool(
                infer_image, service, key, image, Scoring(fields.mm_per_px, parse_shape(fields.shape))
            )
        service.drift.record(key, result.fitted, result.inference.score)
        return InferReply(
            score=result.inference.score,
            threshold=result.calibration.threshold if result.calibration else None,
            decision=result.decision,
            calibration=result.calibration_state,
            heatmap_png_base64=result.heatmap_png_base64,
            regions=[region_reply(region) for region in result.inference.regions],
            token_shape=list(result.fitted.memory.token_hw),
            model=model_reply(result.fitted),
            **ids_of(key, request_id),
        )


def _answer_errors(app: FastAPI, settings: Settings) -> None:
    def reply(status: int, error: str, exc: Exception, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(error_reply(error, exc, with_trace=settings.trace), status_code=status, headers=headers)

    @app.exception_handler(BackendError)
    async def backend_error(_request: Request, exc: BackendError) -> JSONResponse:
        headers = {"Retry-After": str(exc.retry_after_s)} if isinstance(exc, Busy | NotReady) else None
        if exc.status >= 500 and headers is None:
            log.error("failed", **error_reply(str(exc), exc, with_trace=True))
        annotate(error=str(exc))
        return reply(exc.status, str(exc), exc, headers)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_request: Request, exc: RequestValidationError) -> JSONResponse:
        error = _describe_body(exc.errors())
        annotate(error=error)
        return reply(InvalidRequest.status, error, InvalidRequest(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        if isinstance(exc.__cause__, ClientDisconnect):  # in the middle of a JSON body
            raise exc.__cause__
        path = route_path(request.scope)
        headers = dict(exc.headers) if exc.headers else None
        if exc.status_code == 405:
            headers = {"Allow": ", ".join(_methods_at(request, exc))}
        if request.method == "OPTIONS" and exc.status_code == 405:  # clients ask so whether an endpoint is there
            return Response(status_code=204, headers=headers)
        error = {
            400: f"{exc.detail.rstrip('.')}; {_HOW_TO_SEND.get(path, 'see /docs')}",
            404: f"unknown path {path}; see /docs",
            405: f"{request.method} is not served at {path}; see /docs",
        }.get(exc.status_code, exc.detail)
        annotate(error=error)
        return reply(exc.status_code, error, exc, headers)


def _methods_at(request: Request, refusal: HTTPException) -> list[str]:
    """The methods that a path is served with; the refusal names those of its first route only."""
    named = (refusal.headers or {}).get("Allow", "").split(", ")
    return sorted({*named, *map(str.upper, request.app.openapi()["paths"].get(route_path(request.scope), ()))} - {""})


def _describe_body(errors: Any) -> str:
    """One sentence for all problems of a JSON body or of a query."""
    for item in errors:
        if item["loc"] == ("body",):
            return f"{item['msg']}; {SEND_JSON}"
    return problems_in_words(errors)


def _app_from_environment() -> FastAPI:
    try:
        return create_app(load_settings())
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        sys.exit(3)  # both uvicorn's and gunicorn's code for "could not start": neither retries


app = _app_from_environment()
