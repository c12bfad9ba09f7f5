"""Around every request: id, limits, log line, metrics, security headers, and an answer when nothing else gave one."""

import os
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import anyio
import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.connections import LINGER_S, SLOWEST_BYTES_PER_S
from backend.api.paths import is_documentation, route_path
from backend.api.security_headers import OF_PAGES, OF_REPLIES
from backend.common.error_text import error_reply
from backend.common.telemetry import REQUEST_SECONDS, REQUESTS, RequestRecord, recording

_BODY_END_BYTES = 1024
_LINGER_BYTES = 64 << 20
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a label is not the client's word
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

log: Any = structlog.get_logger(__name__)


class RequestTelemetry:
    """Takes or makes ``X-Request-Id``, returns it with the security headers, and writes one log line per request.

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
        status, path = 0, route_path(scope)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = record.request_id
                headers.raw.extend(OF_PAGES if is_documentation(path) else OF_REPLIES)
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


class TrustedHosts:
    """Starlette's, with refusals in the contract's shape.

    Args:
        app: the application.
        allowed_hosts: names that requests may call the service by; ``*.example`` is any below it.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self._app = app
        self._judge = TrustedHostMiddleware(_nothing, allowed_hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal: list[Message] = []

        async def keep(message: Message) -> None:
            refusal.append(message)

        await self._judge(scope, receive, keep)
        if refusal:
            error = "the header Host names no host of this service; ALLOWED_HOSTS lists them"
            await JSONResponse(error_reply(error, None, with_trace=False), 400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application that says nothing."""


class MostBytes(NamedTuple):
    """How large a body may be, and what its sender may do about one that is larger."""

    n_bytes: int
    advice: str


def has_body(scope: Scope) -> bool:
    """Whether a request announces a body."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class UnreadBody:
    """Closes the connection of a request that is answered before its body was read.

    Some of what is still coming is taken and thrown away first, as nginx does: see `LINGER_S`.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        complete = leaves_body = False

        async def noticed() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def send_and_leave(message: Message) -> None:
            nonlocal leaves_body
            if message["type"] == "http.response.start" and not complete:
                leaves_body = True
                MutableHeaders(scope=message)["Connection"] = "close"
            if leaves_body and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with anyio.move_on_after(LINGER_S):
                    await _throw_away(receive)
                await send({"type": "http.response.body"})
            else:
                await send(message)

        await self._app(scope, noticed, send_and_leave)


async def _throw_away(receive: Receive) -> None:
    arrived, more = 0, True
    while more and arrived < _LINGER_BYTES:
        message = await receive()
        arrived += len(message.get("body", b""))
        more = message.get("more_body", False)


class BodyLimit:
    """Refuses a body that is too large (413) or too slow (408) as soon as that is known, by its header or its bytes.

    Leaves in ``request.state`` the end of the body as ``body_end``, for those who must know whether it is complete.
    Whoever streams the body instead of holding it in memory allows it to be larger with ``most_bytes``.

    Args:
        app: the application.
        max_bytes: the largest body that is not streamed.
        timeout_s: seconds that a body may take beside those that its size allows.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._most_bytes = MostBytes(max_bytes, "send less, and images as multipart/form-data")
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state.update(body_end=b"", most_bytes=self._most_bytes)
        announced = Headers(scope=scope).get("content-length", "")
        arrived, complete = 0, not has_body(scope)
        deadline: float | None = None

        async def counted() -> Message:
            nonlocal arrived, complete, deadline
            if complete:
                return await receive()
            most: MostBytes = state["most_bytes"]
            if announced.isdecimal() and int(announced) > most.n_bytes:
                raise _too_large(most)
            deadline = deadline or anyio.current_time() + self._timeout_s
            try:
                with anyio.fail_after(max(0, deadline + arrived / SLOWEST_BYTES_PER_S - anyio.current_time())):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow(arrived) from None
            body = message.get("body", b"")
            arrived += len(body)
            state["body_end"] = (state["body_end"] + body)[-_BODY_END_BYTES:]
            complete = not message.get("more_body", False)
            if arrived > most.n_bytes:
                raise _too_large(most)
            return message

        await self._app(scope, counted, send)

    def _too_slow(self, arrived: int) -> HTTPException:
        return HTTPException(
            408,
            f"the body is too slow: {arrived} bytes came in {self._timeout_s:g} s (BODY_TIMEOUT_S) and a second for "
            f"every {SLOWEST_BYTES_PER_S}; send it faster",
        )


def _too_large(most: MostBytes) -> HTTPException:
    return HTTPException(413, f"the request is larger than {most.n_bytes} bytes; {most.advice}")
