"""Id, log line, metrics and security headers of every request, and a reply if nothing else gave one."""

import os
import re
import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.paths import is_console, is_documentation, route_path
from backend.api.security_headers import CACHE, OF_CONSOLE, OF_PAGES, OF_REPLIES
from backend.common.error_text import error_reply
from backend.common.telemetry import REQUEST_SECONDS, REQUESTS, RequestRecord, recording

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a label is not the client's word
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_QUIET = frozenset({"/health", "/metrics", "/console/{path:path}"})
log: Any = structlog.get_logger(__name__)


class RequestTelemetry:
    """Takes or makes ``X-Request-Id``, returns it with the security headers, and writes one log line for each request.

    Args:
        app: the application.
        with_trace: whether error replies carry a trace.
    """

    def __init__(self, app: ASGIApp, with_trace: bool) -> None:
        self._app = app
        self._with_trace = with_trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        record = RequestRecord(given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4()))
        scope.setdefault("state", {})["request_id"] = record.request_id
        status, security = 0, _security_headers(scope)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = record.request_id
                # A route that says how long its reply may be kept knows better.
                says_how_long = "cache-control" in headers
                headers.raw.extend(header for header in security if header[0] != CACHE or not says_how_long)
            await send(message)

        start = time.perf_counter()
        with recording(record):
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                status = 499  # nobody is left to answer; the number is nginx's, for the log
            except Exception as exc:
                error = f"unexpected {type(exc).__name__}; report request id {record.request_id} with the log around it"
                told = error_reply(error, exc, code="internal_error", with_trace=True)
                log.error("unexpected", request_id=record.request_id, **told)
                if status:
                    raise
                reply = told if self._with_trace else {**told, "trace": ""}
                await JSONResponse(reply, status_code=500)(scope, receive, send_with_id)
            finally:
                self._report(scope, record, status, time.perf_counter() - start)

    def _report(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        endpoint = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        REQUESTS.labels(method, endpoint, str(status)).inc()
        REQUEST_SECONDS.labels(endpoint).observe(seconds)
        quiet = endpoint in _QUIET and status < 400
        (log.debug if quiet else log.info)(
            "request",
            request_id=record.request_id,
            method=scope["method"],
            endpoint=endpoint,
            status=status,
            pid=os.getpid(),
            ms=round(seconds * 1000, 1),
            **record.fields,
            **{f"{name}_ms": round(value, 1) for name, value in record.timings_ms.items()},
        )


def _security_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    if is_console(scope):
        return OF_CONSOLE
    return OF_PAGES if is_documentation(route_path(scope)) else OF_REPLIES
