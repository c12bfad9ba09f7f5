"""The HTTP surface: ``create_app`` and the routes. ``uvicorn backend.app:app`` serves it."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import structlog
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend import __version__
from backend.config import Settings, load_settings
from backend.errors import BackendError, Busy, ConfigError, InvalidRequest, UnsupportedImage, error_reply
from backend.layout import RoiKey
from backend.middleware import BodyLimit, Cors, RequestTelemetry
from backend.openapi import ERRORS, INFER_EXAMPLES, METRICS_EXAMPLE, multipart
from backend.roi_mask import parse_shape
from backend.schemas import (
    CalibrateReply,
    CalibrateRequest,
    FitFields,
    FitReply,
    HealthReply,
    InferFields,
    InferReply,
    RegionReply,
)
from backend.service import InspectionService
from backend.telemetry import FITTED_ROIS, annotate, configure_logging, render_metrics
from backend.utils import NamedImage

_IMAGES_FIELD = re.compile(r"images(\[\d*\])?")
_MAX_TEXT_FIELDS = 64
_OTHER_THREADS = 8
_MAX_INFER_FILES = 8  # one is right; some more get the sentence that says so
# What clients declare for images: image/*, and application/octet-stream where they do not know better.
_IMAGE_TYPE = re.compile(r"(image/[\w.+-]+|application/octet-stream)\s*(;.*)?", re.IGNORECASE)

_FORM = "send multipart/form-data with role_id, roi_id, mm_per_px and"
_HOW_TO_SEND = {
    "/fit_ok": f"{_FORM} 1 to MAX_FILES images",
    "/infer": f"{_FORM} one image",
    "/calibrate_ng": "send a JSON object in UTF-8, not compressed, with Content-Type: application/json",
}

log: Any = structlog.get_logger(__name__)

Fields = TypeVar("Fields", bound=BaseModel)


def create_app(settings: Settings, service: InspectionService | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: the configuration.
        service: a ready service; None loads one at start-up.
    """
    configure_logging(settings.log_level, settings.log_format)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A thread for every request that may run or wait, and some for those that do neither.
        current_default_thread_limiter().total_tokens = settings.max_queue + settings.max_fits + _OTHER_THREADS
        try:
            app.state.service = service or await run_in_threadpool(InspectionService.open, settings)
        except ConfigError as exc:
            log.error("start.failed", reason=str(exc))
            raise exc.with_traceback(None) from None  # the server prints it; the sentence is enough
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
    app.add_middleware(BodyLimit, max_bytes=int(settings.max_request_mb * 2**20))
    if settings.cors_origins:
        app.add_middleware(
            Cors,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id"],
        )
    app.add_middleware(RequestTelemetry, with_trace=settings.trace)
    _answer_errors(app, settings)
    _add_routes(app)
    return app


# Async, so that /health needs no thread: they may all be taken by requests that wait.
async def service_of(request: Request) -> InspectionService:
    """The service of the running application."""
    service: InspectionService = request.app.state.service
    return service


async def request_id_of(request: Request) -> str:
    """The id that `RequestTelemetry` took or made."""
    request_id: str = request.state.request_id
    return request_id


Service = Annotated[InspectionService, Depends(service_of)]
RequestId = Annotated[str, Depends(request_id_of)]


def _add_routes(app: FastAPI) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model_exclude_none=True, tags=["state"], responses=ERRORS["state"])
    async def health(service: Service, request_id: RequestId) -> HealthReply:
        """Status, device and model. Cheap: answers while a fit runs."""
        features = service.features
        return HealthReply(
            status="ok",
            device=features.runtime.device,
            model=features.identity.model,
            version=__version__,
            runtime=features.runtime.name,
            precision=features.runtime.precision,
            input_size=features.input_size,
            token_shape=list(features.token_hw),
            weights_sha256=features.identity.weights_sha256,
            reason=service.reason,
            request_id=request_id,
        )

    @app.get("/metrics", response_class=Response, tags=["state"], responses={**METRICS_EXAMPLE, **ERRORS["state"]})
    def metrics(service: Service) -> Response:
        """Prometheus text format."""
        FITTED_ROIS.set(service.store.count_fitted())
        return Response(render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post(
        "/fit_ok",
        tags=["inspection"],
        responses=ERRORS["/fit_ok"],
        openapi_extra=multipart(FitFields, {"images": "good images of the ROI; also `images[]`, `images[0]`, …"}),
    )
    async def fit_ok(request: Request, service: Service, request_id: RequestId) -> FitReply:
        """Learn what OK looks like from 1..N good images and replace the ROI's memory bank."""
        async with _complete_form(request, max_files=service.settings.max_files) as form:
            fields = await _read_fields(form, FitFields)
            images = [_image(value) for name, value in form.multi_items() if _IMAGES_FIELD.fullmatch(name)]
            result = await run_in_threadpool(
                service.fit_ok,
                RoiKey(fields.role_id, fields.roi_id),
                images,
                mm_per_px=fields.mm_per_px,
                keep_all=fields.memory_fit,
            )
        return FitReply(
            n_embeddings=result.n_embeddings,
            coreset_size=result.coreset_size,
            token_shape=list(result.token_hw),
            request_id=request_id,
        )

    @app.post(
        "/calibrate_ng",
        response_model_exclude_none=True,
        tags=["inspection"],
        responses=ERRORS["/calibrate_ng"],
    )
    async def calibrate_ng(body: CalibrateRequest, service: Service, request_id: RequestId) -> CalibrateReply:
        """Choose and store the ROI's threshold from scores that `/infer` gave."""
        annotate(role_id=body.role_id, roi_id=body.roi_id)
        calibration = await run_in_threadpool(
            service.calibrate_ng,
            RoiKey(body.role_id, body.roi_id),
            body.ok_scores,
            body.ng_scores or [],
            mm_per_px=body.mm_per_px,
            area_mm2_thr=body.area_mm2_thr,
            score_percentile=body.score_percentile,
        )
        return CalibrateReply(**vars(calibration), warning=calibration.warning, request_id=request_id)

    @app.post(
        "/infer",
        response_model_exclude_none=True,
        tags=["inspection"],
        responses={200: {"content": {"application/json": {"examples": INFER_EXAMPLES}}}, **ERRORS["/infer"]},
        openapi_extra=multipart(InferFields, {"image": "the canonical ROI image; also `file`"}),
    )
    async def infer(request: Request, service: Service, request_id: RequestId) -> InferReply:
        """Score one image against the ROI's memory bank, by the ROI's stored calibration."""
        async with _complete_form(request, max_files=_MAX_INFER_FILES) as form:
            fields = await _read_fields(form, InferFields)
            images = [_image(value) for name, value in form.multi_items() if name in ("image", "file")]
            if len(images) != 1:
                raise InvalidRequest(f"send exactly one image in the file field 'image', not {len(images)}")
            result = await run_in_threadpool(
                service.infer,
                RoiKey(fields.role_id, fields.roi_id),
                images[0],
                mm_per_px=fields.mm_per_px,
                shape=parse_shape(fields.shape),
            )
        return InferReply(
            role_id=fields.role_id,
            roi_id=fields.roi_id,
            score=result.inference.score,
            threshold=result.calibration.threshold if result.calibration else None,
            decision=result.decision,
            calibration=result.calibration_state,
            heatmap_png_base64=result.heatmap_png_base64,
            regions=[
                RegionReply(bbox=[region.x, region.y, region.w, region.h], **vars(region))
                for region in result.inference.regions
            ],
            token_shape=list(result.token_hw),
            request_id=request_id,
        )


@asynccontextmanager
async def _complete_form(request: Request, max_files: int) -> AsyncIterator[FormData]:
    """The request's form, refused when its end is missing: the parser drops an unfinished part without a word."""
    async with request.form(max_files=max_files, max_fields=_MAX_TEXT_FIELDS) as form:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind == b"multipart/form-data" and b"--%b--" % options[b"boundary"] not in request.state.body_end:
            raise HTTPException(400, "The upload is incomplete: its closing boundary is missing")
        yield form


async def _read_fields(form: FormData, model: type[Fields]) -> Fields:
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if name not in model.model_fields:
            continue
        try:  # a text part that carries a file name arrives as a file
            texts[name] = (await value.read()).decode() if isinstance(value, UploadFile) else value
        except UnicodeDecodeError as exc:
            raise InvalidRequest(f"{name}: the text is not UTF-8") from exc
    try:
        fields = model.model_validate(texts)
    except ValidationError as exc:
        raise InvalidRequest(_describe(exc.errors())) from exc
    annotate(role_id=texts["role_id"], roi_id=texts["roi_id"])
    return fields


def _image(value: UploadFile | str) -> NamedImage:
    if isinstance(value, str):
        raise InvalidRequest("the image arrived as text; send it as a file, with a file name")
    name = re.split(r"[/\\]", value.filename or "image")[-1]
    if value.content_type and not _IMAGE_TYPE.fullmatch(value.content_type.strip()):
        raise UnsupportedImage(f"{name}: content type {value.content_type!r} is no image type; send a PNG or JPEG")
    file = value.file

    def read() -> bytes:
        file.seek(0)
        return file.read()

    return NamedImage(name, read)


def _answer_errors(app: FastAPI, settings: Settings) -> None:
    def reply(status: int, error: str, exc: Exception, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(error_reply(error, exc, with_trace=settings.trace), status_code=status, headers=headers)

    @app.exception_handler(BackendError)
    async def backend_error(_request: Request, exc: BackendError) -> JSONResponse:
        headers = {"Retry-After": str(exc.retry_after_s)} if isinstance(exc, Busy) else None
        if exc.status >= 500 and not isinstance(exc, Busy):
            log.error("failed", **error_reply(str(exc), exc, with_trace=True))
        annotate(error=str(exc))
        return reply(exc.status, str(exc), exc, headers)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_request: Request, exc: RequestValidationError) -> JSONResponse:
        error = _describe(exc.errors())
        annotate(error=error)
        return reply(InvalidRequest.status, error, InvalidRequest(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> JSONResponse:
        if isinstance(exc.__cause__, ClientDisconnect):  # in the middle of a JSON body
            raise exc.__cause__
        path = request.url.path
        error = {
            400: f"{exc.detail.rstrip('.')}; {_HOW_TO_SEND.get(path, 'see /docs')}",
            404: f"unknown path {path}; see /docs",
            405: f"{request.method} is not served at {path}; see /docs",
        }.get(exc.status_code, exc.detail)
        annotate(error=error)
        return reply(exc.status_code, error, exc, dict(exc.headers) if exc.headers else None)


def _describe(errors: Any) -> str:
    """One sentence for all problems that pydantic found, each with its field."""
    sentences = []
    for item in errors:
        if item["loc"] == ("body",):
            return f"{item['msg']}; {_HOW_TO_SEND['/calibrate_ng']}"
        where = ".".join(str(part) for part in item["loc"] if part != "body")
        sentences.append(f"{where}: {item['msg']}" if where else item["msg"])
    return "; ".join(sentences)


def _app_from_environment() -> FastAPI:
    try:
        return create_app(load_settings())
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        sys.exit(3)  # both uvicorn's and gunicorn's code for "could not start": neither retries


app = _app_from_environment()
