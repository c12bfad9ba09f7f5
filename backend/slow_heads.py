"""Slow heads: uvicorn waits for the first line and the headers of a request for as long as it takes; here it does not.

Without a limit, connections that send a byte now and then, or nothing, use up what the process may have open
("slowloris"). Bodies have a limit of their own in `backend.middleware`.
"""

import asyncio
import json
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.errors import error_reply

log: Any = structlog.get_logger(__name__)


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which ends connections whose request does not begin in time.

    One that began to send a request gets 408 in the shape of all errors; one that never sent a byte is closed.
    """

    head_timeout_s = 30.0
    _deadline: asyncio.TimerHandle | None = None
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came; between two requests it begins another."""
        self._begun = True
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._wait()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is there: what is left to wait for is the body."""
        self._forget()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing will come."""
        self._forget()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.head_timeout_s, self._end)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._deadline = None
        log.info("request.slow_head", client=self.client[0] if self.client else None, begun=self._begun)
        if self._begun:
            self.transport.write(_too_slow(self.head_timeout_s))
        self.transport.close()


def impatient(head_timeout_s: float) -> type[ImpatientProtocol]:
    """The protocol for uvicorn's ``http`` setting, with this limit in seconds."""
    attributes: dict[str, Any] = {"head_timeout_s": head_timeout_s}
    return type("ImpatientProtocol", (ImpatientProtocol,), attributes)


def _too_slow(head_timeout_s: float) -> bytes:
    message = f"the request is too slow: no complete header came in {head_timeout_s:g} s (BODY_TIMEOUT_S)"
    body = json.dumps(error_reply(message, None, with_trace=False)).encode()
    headers = f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
    return f"HTTP/1.1 408 Request Timeout\r\n{headers}\r\n\r\n".encode() + body
