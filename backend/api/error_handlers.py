"""Exceptions → ``{"error", "trace", "code"}``, in the words of the HTTP contract."""

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend.api.json_body import SEND_JSON, check_json_type
from backend.api.paths import route_path
from backend.api.schemas.common import UNKNOWN_MEMBERS
from backend.common.config import Settings
from backend.common.error_text import error_reply
from backend.common.errors import (
    CODE_OF_STATUS,
    BackendError,
    Busy,
    ErrorCode,
    InvalidRequest,
    LayoutChanged,
    MalformedRequest,
    NotReady,
    StoreUnavailable,
    WrongBody,
)
from backend.common.field_problems import problem_in_words, problems_in_words
from backend.common.telemetry import annotate

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
    "/runs/cancel": SEND_JSON,
    "/datasets/move": SEND_JSON,
    "/layout": SEND_JSON,
    "/layout/picture": "send the bytes of a PNG or JPEG with Content-Type: image/png or image/jpeg",
}

log: Any = structlog.get_logger(__name__)


def install(app: FastAPI, settings: Settings) -> None:
    """Make an application answer every error in the shape of the contract."""

    def reply(
        status: int, error: str, code: ErrorCode, exc: Exception, headers: dict[str, str] | None = None
    ) -> JSONResponse:
        content = error_reply(error, exc, code=code, with_trace=settings.trace)
        return JSONResponse(content, status_code=status, headers=headers)

    @app.exception_handler(BackendError)
    async def backend_error(request: Request, exc: BackendError) -> JSONResponse:
        headers = (
            {"Retry-After": str(exc.retry_after_s)} if isinstance(exc, Busy | NotReady | StoreUnavailable) else None
        )
        if isinstance(exc, LayoutChanged) and exc.etag is not None:
            headers = {"ETag": f'"{exc.etag}"'}
        if exc.status >= 500 and not isinstance(exc, Busy | NotReady):
            log.error("failed", **error_reply(str(exc), exc, code=exc.code, with_trace=True))
        error = f"{exc}; {_how_to_send(request)}" if isinstance(exc, MalformedRequest | WrongBody) else str(exc)
        annotate(error=error)
        return reply(exc.status, error, exc.code, exc, headers)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, exc: RequestValidationError) -> JSONResponse:
        problem = _problem_of(request, exc.errors())
        annotate(error=str(problem))
        return reply(problem.status, str(problem), problem.code, problem)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        if isinstance(exc.__cause__, ClientDisconnect):  # in the middle of a JSON body
            raise exc.__cause__
        path = route_path(request.scope)
        headers = dict(exc.headers) if exc.headers else None
        allowed = ", ".join(_methods_at(request, exc)) if exc.status_code == 405 else ""
        if allowed:
            headers = {"Allow": allowed}
        if request.method == "OPTIONS" and exc.status_code == 405:  # clients ask so whether an endpoint is there
            return Response(status_code=204, headers=headers)
        error = {
            400: f"{exc.detail.rstrip('.')}; {_how_to_send(request)}",
            404: f"unknown path {path}; see /docs",
            405: f"{request.method} is not allowed on {path}; use {allowed}",
        }.get(exc.status_code, exc.detail)
        annotate(error=error)
        return reply(exc.status_code, error, CODE_OF_STATUS.get(exc.status_code, "internal_error"), exc, headers)


def _how_to_send(request: Request) -> str:
    return _HOW_TO_SEND.get(route_path(request.scope), "see /docs")


def _methods_at(request: Request, refusal: HTTPException) -> list[str]:
    """The methods that a path allows; the refusal names only those of its first route."""
    named = (refusal.headers or {}).get("Allow", "").split(", ")
    return sorted({*named, *map(str.upper, request.app.openapi()["paths"].get(route_path(request.scope), ()))} - {""})


def _problem_of(request: Request, errors: Any) -> InvalidRequest:
    """Everything that is wrong with a JSON body or a query, in one sentence."""
    if any(item["loc"][:1] == ("body",) for item in errors):
        try:
            check_json_type(request)
        except WrongBody as exc:
            return WrongBody(f"{exc}; {SEND_JSON}")
    for item in errors:
        whole = item["loc"] == ("body",) and item["type"] != UNKNOWN_MEMBERS
        if whole or item["type"] == "json_invalid":
            return InvalidRequest(f"{problem_in_words(item)}; {SEND_JSON}")
    return InvalidRequest(problems_in_words(errors))
