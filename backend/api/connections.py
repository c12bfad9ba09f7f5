"""Limits for connections: for everything that uvicorn would wait for or keep without a limit.

Connections that never send their headers use up the open files of the process ("slowloris"). Endless headers and
replies that nobody reads use up its memory. Refusals before there is a request also have the shape of all errors. The
limits of bodies are in `backend.api.middleware.bodies`.
"""

import asyncio
import socket
import uuid
from http import HTTPStatus
from typing import Any

import httptools
import structlog
from starlette.responses import JSONResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.api.security_headers import OF_REPLIES
from backend.common.error_text import error_reply
from backend.common.errors import CODE_OF_STATUS, ErrorCode
from backend.common.machine import raise_open_files

SLOWEST_BYTES_PER_S = 1024
# How long a connection stays open after its last reply while its client still sends: one that is closed with unread
# bytes is reset, and the client may lose the reply.
LINGER_S = 5.0
_MAX_HEAD_BYTES = 64 << 10
_SEND_BUFFER_BYTES = 128 << 10
_MAX_CONNECTIONS = 1000
_MAX_PIPELINED = 16  # requests that wait for the replies before theirs; each costs kilobytes
_RETRY_AFTER_S = 5

log: Any = structlog.get_logger(__name__)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits for headers, for trailers, for replies that are not read, and for connections.

    A connection that never sent a byte, or whose reply is not read, is closed. Everything else that is refused gets a
    reply.
    """

    timeout_s = 30.0
    max_connections = _MAX_CONNECTIONS
    _deadline: asyncio.TimerHandle | None = None
    _reader_check: asyncio.TimerHandle | None = None
    _begun = False
    _refused = False
    _stopping = False
    # Bytes since a head, a piece of a body or a request was complete: nothing but the parser has seen them.
    _unfinished_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first request."""
        super().connection_made(transport)
        # What the system does not take at once is watched; its own buffer is small, so that what is read shows soon.
        transport.set_write_buffer_limits(high=0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if len(self.connections) > self.max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; retry", lingers=False)
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Take received data; between two requests, it begins a new request."""
        if self._refused:
            return
        self._begun = True
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._wait()
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError:
            too_many = f"more than {_MAX_PIPELINED} requests are waiting for their replies"
            self._refuse(HTTPStatus.BAD_REQUEST, too_many if self._is_full() else "the request target is not a path")
        except httptools.HttpParserError as exc:
            self._refuse(HTTPStatus.BAD_REQUEST, f"the request cannot be read as HTTP/1.1: {exc}")

    def on_headers_complete(self) -> None:
        """The headers are complete; only the body is still awaited."""
        self._unfinished_bytes = 0
        self._forget()
        if self._is_full() or self.parser.get_method() == b"CONNECT":
            raise ValueError  # ends the parser; `data_received` says why
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has arrived."""
        self._unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._unfinished_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than the service writes."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has read everything that was written, or the system has taken it."""
        super().resume_writing()
        self._leave_reader()

    def shutdown(self) -> None:
        """The server stops: only replies are finished."""
        self._stopping = True
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._forget()
        self._leave_reader()
        super().connection_lost(exc)

    def _feed(self, data: bytes) -> None:
        """Parse received data, at once never more than the headers may still have.

        Raises:
            HttpParserError: it is not HTTP.
        """
        while data and not self._refused:
            room = _MAX_HEAD_BYTES - self._unfinished_bytes
            piece, data = data[:room], data[room:]
            self._unfinished_bytes += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as exc:
                data = piece[exc.args[0] :] + data
                self._ignore_upgrade()
            if self._unfinished_bytes == _MAX_HEAD_BYTES:
                error = (
                    "the headers of the request, or the trailers after its body, are larger than "
                    f"{_MAX_HEAD_BYTES} bytes"
                )
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, error)

    def _is_full(self) -> bool:
        return len(self.pipeline) >= _MAX_PIPELINED

    def _ignore_upgrade(self) -> None:
        """Begin the request again without its ``Upgrade`` header, as RFC 9110 (7.8) allows.

        Java's HttpClient asks for HTTP/2 with every request, and the parser would lose its body.
        """
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.parser.feed_data(b"\r\n".join([line, *headers, b"", b""]))

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.timeout_s, self._end)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        if self._begun:
            error = (
                f"the request is too slow: its headers were not complete after {self.timeout_s:g} s (BODY_TIMEOUT_S)"
            )
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, error)
        else:
            log.info("connection.silent", client=self._address())
            self.transport.close()

    def _refuse(self, status: HTTPStatus, error: str, *, lingers: bool = True) -> None:
        """Answer what is not a request, after the requests before it, and close the connection."""
        self._forget()
        self._refused = True
        if self.transport.is_closing():
            return
        request_id = str(uuid.uuid4())
        log.info("request.refused", request_id=request_id, status=status.value, client=self._address(), error=error)
        refusal: Any = _refusal(status, error, request_id)  # starlette's types of ASGI are not uvicorn's
        cycle = self.cycle
        is_open = cycle is not None and not cycle.response_complete
        if is_open and (self.pipeline or not cycle.more_body):  # replies are due before it
            if cycle.more_body:  # it is in the middle of this body, and waits itself
                self.pipeline[0] = cycle, refusal
                cycle.more_body = False
            cycle.keep_alive = False
            return
        if is_open:  # it is in the middle of this body
            cycle.disconnected = True
            cycle.message_event.set()
        if not (is_open and cycle.response_started):
            self.transport.write(_written(refusal))
        if lingers and self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._deadline = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._reader_check = self.loop.call_later(self.timeout_s, self._judge_reader, unread)

    def _judge_reader(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if self._stopping or unread_before - unread < self.timeout_s * SLOWEST_BYTES_PER_S:
            log.info("reply.unread", client=self._address(), unread_bytes=unread)
            self.transport.abort()
        else:
            self._watch_reader()

    def _leave_reader(self) -> None:
        if self._reader_check is not None:
            self._reader_check.cancel()
            self._reader_check = None

    def _address(self) -> str | None:
        return self.client[0] if self.client else None


def bounded(timeout_s: float) -> type[BoundedProtocol]:
    """The protocol for uvicorn's ``http`` setting. The process may then open as many files as the system allows.

    At most half of these are connections: the others are for models and uploads.

    Args:
        timeout_s: seconds that headers may take, and that a reply may stay unread.
    """
    attributes: dict[str, Any] = {
        "timeout_s": timeout_s,
        "max_connections": min(_MAX_CONNECTIONS, raise_open_files() // 2),
    }
    return type("BoundedProtocol", (BoundedProtocol,), attributes)


def _refusal(status: HTTPStatus, error: str, request_id: str) -> JSONResponse:
    headers = {"X-Request-Id": request_id, "Connection": "close"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = f"{_RETRY_AFTER_S}"
    code: ErrorCode = "busy" if status == HTTPStatus.SERVICE_UNAVAILABLE else CODE_OF_STATUS[status]
    refusal = JSONResponse(error_reply(error, None, code=code, with_trace=False), status, headers)
    refusal.raw_headers.extend(OF_REPLIES)
    return refusal


def _written(reply: JSONResponse) -> bytes:
    """The bytes of a reply, for a connection without a request that it could belong to."""
    lines = [b"HTTP/1.1 %d %b" % (reply.status_code, HTTPStatus(reply.status_code).phrase.encode())]
    lines += [name + b": " + value for name, value in reply.raw_headers]
    return b"\r\n".join([*lines, b"", bytes(reply.body)])
