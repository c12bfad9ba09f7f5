"""The application: ``create_app``. ``uvicorn backend.app:app`` serves it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from backend import __version__
from backend.api import error_handlers
from backend.api.api_keys import ApiKeys, is_loopback
from backend.api.dependencies import refuse_ambiguous
from backend.api.json_body import max_json_bytes
from backend.api.lifecycle import Lifecycle
from backend.api.middleware.access import Gate, RateLimit
from backend.api.middleware.admission import Admission
from backend.api.middleware.bodies import BodyLimit, UnreadBody
from backend.api.middleware.hosts import Cors, ForeignPages, LoopbackHosts, TrustedHosts
from backend.api.middleware.request_log import RequestTelemetry
from backend.api.openapi import TAGS, declare_keys, show_examples
from backend.api.routes import (
    console,
    datasets,
    drift,
    feedback,
    gui_layouts,
    history,
    inspection,
    rois,
    state,
    stored_scores,
    versions,
)
from backend.common.config import Settings, load_settings
from backend.common.errors import ConfigError
from backend.common.logs import configure_logging, tell_misspelt_settings
from backend.service.doubts import about_percentile
from backend.service.inspection import InspectionService

log: Any = structlog.get_logger(__name__)

_OTHER_THREADS = 8
_MAX_BODY_BYTES = 1 << 20  # of what is neither a form nor scores: ids and a few numbers
_ROUTERS = (  # as /docs shows them
    inspection.router,
    feedback.router,
    datasets.router,
    stored_scores.router,
    state.router,
    rois.router,
    drift.router,
    history.router,
    gui_layouts.router,
    versions.router,
)


def create_app(settings: Settings, service: InspectionService | None = None, *, takes_signals: bool = True) -> FastAPI:
    """Build the application.

    Args:
        settings: the configuration.
        service: a loaded service; None loads one in the background after the start.
        takes_signals: whether the stop signal drains the application; False leaves all signals to the process.

    Raises:
        ConfigError: an API key cannot be used.
    """
    configure_logging(settings.log_level, settings.log_format)
    tell_misspelt_settings()
    if doubt := about_percentile(settings.score_percentile, "SCORE_PERCENTILE"):
        log.warning("setting.doubtful", reason=doubt)
    keys = ApiKeys.of(settings)
    lifecycle = Lifecycle(partial(InspectionService.open, settings), service, takes_signals=takes_signals)

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
        'Every error reply is `{"error", "trace", "code"}`, including 404 for unknown paths and 405 for wrong methods.',
        openapi_tags=TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        middleware=_middleware(settings, lifecycle, keys),
    )
    app.state.settings = settings
    app.state.lifecycle = lifecycle
    error_handlers.install(app, settings)
    for router in _ROUTERS:
        app.include_router(router, dependencies=[Depends(refuse_ambiguous)])
    app.include_router(console.router)
    show_examples(app)
    if keys:
        declare_keys(app)
    return app


def _middleware(settings: Settings, lifecycle: Lifecycle, keys: ApiKeys) -> list[Middleware]:
    """The middleware around every request, the outermost first."""
    rate_limit = RateLimit(settings.rate_limit_per_s) if settings.rate_limit_per_s else None
    around = [
        Middleware(UnreadBody),  # outside all that may answer before the body was read
        Middleware(RequestTelemetry, with_trace=settings.trace),  # every answer below has its id and its log line
    ]
    if settings.allowed_hosts:
        around.append(Middleware(TrustedHosts, allowed_hosts=settings.allowed_hosts))
    elif is_loopback(settings.host):
        around.append(Middleware(LoopbackHosts))
    if settings.cors_origins:  # before the keys: browsers ask without one whether they may ask
        around.append(
            Middleware(
                Cors,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                allow_private_network=True,
                expose_headers=["X-Request-Id", "Retry-After", "ETag"],
            )
        )
    max_bytes = min(_MAX_BODY_BYTES, max_json_bytes(settings))
    around += [
        Middleware(ForeignPages, allowed_origins=settings.cors_origins, with_trace=settings.trace),
        Middleware(Gate, keys=keys, rate_limit=rate_limit, with_trace=settings.trace),  # no work for strangers
        Middleware(Admission, lifecycle=lifecycle, with_trace=settings.trace),  # counts as in flight what it lets in
        Middleware(BodyLimit, max_bytes=max_bytes, timeout_s=settings.body_timeout_s),
    ]
    return around


def _app_from_environment() -> FastAPI:
    try:
        return create_app(load_settings())
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        sys.exit(3)  # both uvicorn's and gunicorn's code for "could not start": neither retries


app = _app_from_environment()
