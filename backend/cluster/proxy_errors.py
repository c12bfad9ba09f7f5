"""Gives the errors of Ray's proxy the JSON form of every error, and each reply one ``X-Request-Id``."""

import json
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.common.error_text import error_reply

_RETRY_AFTER_S = "5"
_OF_RAY = "/-/"  # health and routes of the proxy itself
_NO_ROUTE = 404
_BUSY = 503
_LOST_STATUS = 500
_NOT_DEPLOYED = "the service is not deployed on this cluster yet; retry"
_NO_REPLICA = "no replica accepts the request: all are busy, or none is running; retry"
_LOST = (
    "the replica of this request ended before it replied; if the request changes something, check first whether the "
    "change was stored; then send it again if necessary"
)

log: Any = structlog.get_logger(__name__)


class JsonErrors:
    """Replaces errors in plain text, which are not from the service, by 503 in the JSON form of every error.

    Args:
        app: the proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http" or scope["path"].startswith(_OF_RAY):
            await self._app(scope, receive, send)
            return
        body: bytes | None = None
        started = False

        async def send_json(message: Message) -> None:
            nonlocal body, started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                request_id = headers.get("x-request-id")
                if request_id is not None:
                    headers["x-request-id"] = request_id  # and drops the others of the name
                if message["status"] >= 400 and not headers.get("content-type", "").startswith("application/json"):
                    body = _body(message["status"])
                    await send(_start(body, request_id))
                    return
                await send({**message, "headers": headers.raw})
            elif body is None:
                await send(message)
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

        try:
            await self._app(scope, receive, send_json)
        except Exception as exc:  # of any kind: the server outside would answer it in plain text
            if started:
                raise
            log.error("proxy.failed", reason=repr(exc))
        if not started:  # also if the proxy returns without a reply, as after some ends of a replica
            body = _body(_LOST_STATUS)
            await send(_start(body, None))
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _body(status: int) -> bytes:
    said = {_NO_ROUTE: _NOT_DEPLOYED, _BUSY: _NO_REPLICA}.get(status, _LOST)
    return json.dumps(error_reply(said, None, code="not_ready", with_trace=False)).encode()


def _start(body: bytes, request_id: str | None) -> Message:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", _RETRY_AFTER_S.encode()),
    ]
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode("latin-1")))
    return {"type": "http.response.start", "status": _BUSY, "headers": headers}


def middlewares() -> list[Middleware]:
    """The middleware that Ray's proxies load (``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``)."""
    return [Middleware(JsonErrors)]
