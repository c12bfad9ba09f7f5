"""Around every request: its id, its body limit, its log line, its metrics, and an answer when nothing else gave one."""

import os
import re
import time
import uuid
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import error_reply
from backend.telemetry import REQUEST_SECONDS, REQUESTS, RequestRecord, recording

_BODY_END_BYTES = 1024
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a label is not the client's word
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

log: Any = structlog.get_logger(__name__)


class RequestTelemetry:
    """Takes or makes ``X-Request-Id``, returns it, and writes one log line per request.

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
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = record.request_id
            await send(message)

        start = time.perf_counter()
        with recording(record):
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                status = 499  # nobody is left to answer; the number is nginx's, for the log
            except Exception as exc:
                error = f"unexpected {type(exc).__name__}; report request id {record.request_id} with the log around it"
                log.error("unexpected", request_id=record.request_id, **error_reply(error, exc, with_trace=True))
                if status:
                    raise
                reply = error_reply(error, exc, with_trace=self._with_trace)
                await JSONResponse(reply, status_code=500)(scope, receive, send_with_id)
            finally:
                self._report(scope, record, status, time.perf_counter() - start)

    def _report(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        endpoint = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        REQUESTS.labels(method, endpoint, str(status)).inc()
        REQUEST_SECONDS.labels(endpoint).observe(seconds)
        quiet = endpoint in ("/health", "/metrics") and status < 400
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


class Cors(CORSMiddleware):
    """Starlette's, with refusals in the contract's shape."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser's question whether it may call."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = f"{bytes(response.body).decode()}; CORS_ORIGINS lists the origins that may call"
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return JSONResponse(error_reply(error, None, with_trace=False), response.status_code, headers)


class BodyLimit:
    """Refuses a body with 413 as soon as it is known to be too large, by its header or by what has arrived.

    Leaves the end of the body in ``request.state.body_end``, for those who must know whether it is complete.

    Args:
        app: the application.
        max_bytes: the largest body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived = 0
        state = scope.setdefault("state", {})
        state["body_end"] = b""
        announced = Headers(scope=scope).get("content-length", "")

        async def counted() -> Message:
            nonlocal arrived
            if announced.isdecimal() and int(announced) > self._max_bytes:
                raise self._too_large()
            message = await receive()
            body = message.get("body", b"")
            arrived += len(body)
            state["body_end"] = (state["body_end"] + body)[-_BODY_END_BYTES:]
            if arrived > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413, f"the request is larger than {self._max_bytes} bytes (MAX_REQUEST_MB); send fewer images"
        )
