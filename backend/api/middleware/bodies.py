"""Limits of bodies: how large they may be, how fast they must arrive, and what happens to an unread body."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.connections import LINGER_S, SLOWEST_BYTES_PER_S
from backend.common.errors import StorageError

_LINGER_BYTES = 64 << 20
_MOST_CHARACTERS = 100


class MostBytes(NamedTuple):
    """The largest body, and what its sender can do about a larger one."""

    n_bytes: int
    advice: str


def has_body(scope: Scope) -> bool:
    """Whether a request announces a body."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def received(scope: Scope) -> str:
    """What kind of body a request carries, in words."""
    if not has_body(scope):
        return "no body was received"
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip()
    if not kind:
        return "a body without Content-Type was received"
    return f"a body of {_shortened(kind)} was received"


@contextmanager
def keeping_request() -> Iterator[None]:
    """Report problems of the disk with a request that is stored in a file while it arrives."""
    try:
        yield
    except OSError as exc:
        raise StorageError(
            f"the request cannot be stored while it arrives ({exc.strerror}); check the folder for temporary files"
        ) from exc


class UnreadBody:
    """Closes the connection of a request that is answered before its body has been read.

    First, some of the remaining body is read and discarded, as nginx does: see `LINGER_S`.

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
    """Refuses a body that is compressed (415), too large (413) or too slow (408), as soon as this is known.

    Code that streams the body instead of keeping it in memory allows a larger one with ``most_bytes``.

    Args:
        app: the application.
        max_bytes: the largest body that is not streamed.
        timeout_s: seconds that a body may take, in addition to those for its size.
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
        state["most_bytes"] = self._most_bytes
        headers = Headers(scope=scope)
        announced, coding = headers.get("content-length", ""), headers.get("content-encoding", "").strip()
        arrived, complete = 0, not has_body(scope)
        deadline: float | None = None

        async def counted() -> Message:
            nonlocal arrived, complete, deadline
            if complete:
                return await receive()
            if coding.lower() not in ("", "identity"):
                raise _compressed(coding)
            most: MostBytes = state["most_bytes"]
            if announced.isdecimal() and int(announced) > most.n_bytes:
                raise _too_large(most)
            deadline = deadline or anyio.current_time() + self._timeout_s
            try:
                with anyio.fail_after(max(0, deadline + arrived / SLOWEST_BYTES_PER_S - anyio.current_time())):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow(arrived) from None
            arrived += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if arrived > most.n_bytes:
                raise _too_large(most)
            return message

        await self._app(scope, counted, send)

    def _too_slow(self, arrived: int) -> HTTPException:
        return HTTPException(
            408,
            f"the body is too slow: {arrived} bytes arrived in {self._timeout_s:g} s (BODY_TIMEOUT_S) plus one "
            f"second for every {SLOWEST_BYTES_PER_S} bytes; send it faster",
        )


def _compressed(coding: str) -> HTTPException:
    return HTTPException(415, f"the body is compressed (Content-Encoding: {_shortened(coding)}); send it uncompressed")


def _shortened(header: str) -> str:
    """The value of a client's header, shortened and in ASCII."""
    return header[:_MOST_CHARACTERS].encode("ascii", "backslashreplace").decode()


def _too_large(most: MostBytes) -> HTTPException:
    return HTTPException(413, f"the request is larger than {most.n_bytes} bytes; {most.advice}")
