"""Access control: the key and the rate of requests, checked before their body is read; keys: `api_keys`."""

import base64
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.api.api_keys import OPEN, ApiKey, ApiKeys, is_loopback
from backend.api.paths import OPEN_PATHS, is_console, is_documentation, route_path
from backend.common.error_text import error_reply
from backend.common.errors import BackendError, Forbidden, TooManyRequests, Unauthorized
from backend.common.telemetry import annotate

_READING = frozenset({"GET", "HEAD"})
_FOR_FULL_KEYS = frozenset({"/history", "/history/thumbnail"})  # pictures of parts, and who inspected what when
_INFERENCE = frozenset({"/infer", "/infer_dataset", "/explain"})
_BURST_S = 5.0
_MAX_CLIENTS = 10_000

Client = bytes | str
"""Hash of a client's key, or its address where it has none."""

log: Any = structlog.get_logger(__name__)


class RateLimit:
    """Limits the requests of each client: `per_s` on average, and at once those of five seconds (GCRA).

    This process remembers only the latest clients: a new client replaces the one that was silent for longest.

    Args:
        per_s: requests per second.
        clock: monotonic seconds.
        max_clients: how many clients are remembered.
    """

    def __init__(
        self, per_s: float, clock: Callable[[], float] = time.monotonic, max_clients: int = _MAX_CLIENTS
    ) -> None:
        self._per_s = per_s
        self._clock = clock
        self._max_clients = max_clients
        self._burst_s = max(_BURST_S, 1 / per_s)
        # When each client will have its whole burst again: one number says all about it.
        self._whole_at: OrderedDict[Client, float] = OrderedDict()

    def take(self, client: Client) -> None:
        """Count one request.

        Raises:
            TooManyRequests: it exceeds the limit, and is not counted.
        """
        now = self._clock()
        before = max(self._whole_at.pop(client, now), now)
        after = before + 1 / self._per_s
        wait_s = after - now - self._burst_s
        refused = wait_s > 1e-9  # sums of floats are not exact
        self._whole_at[client] = before if refused else after
        if len(self._whole_at) > self._max_clients:
            self._whole_at.popitem(last=False)
        if refused:
            raise TooManyRequests(self._per_s, max(1, math.ceil(wait_s)))


class Gate:
    """Lets a request in, or answers 401, 403 or 429 without reading its body.

    Stores in ``request.state.known`` whether the client may see more than the existence of the service, and in
    ``request.state.right`` what it may do. ``/health`` and ``/ready`` are open to everybody at any rate. ``OPTIONS``
    needs no key. Both only show that something exists.

    Args:
        app: the application.
        keys: the keys of the service; without keys, everybody may do everything.
        rate_limit: how often clients may call; None is no limit.
        with_trace: whether error replies carry a trace.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, rate_limit: RateLimit | None, with_trace: bool) -> None:
        self._app = app
        self._keys = keys
        self._rate_limit = rate_limit
        self._with_trace = with_trace
        self._may_be_open = not keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or is_console(scope):  # no secrets, and many at once
            await self._app(scope, receive, send)
            return
        if self._may_be_open:
            self._warn_once(scope)
        try:
            self._admit(scope)
        except BackendError as exc:
            annotate(error=str(exc))
            await self._refuse(exc, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Judge a request by its headers.

        Raises:
            Unauthorized: it needs a key.
            Forbidden: its key may not do that.
            TooManyRequests: its client sends too many.
        """
        method, path = scope["method"], route_path(scope)
        key = self._keys.find(_given(scope)) if self._keys else None
        state = scope.setdefault("state", {})
        state["known"] = key is not None or not self._keys
        state["right"] = key.right if key else "full"
        if path in OPEN_PATHS and method in (*_READING, "OPTIONS"):
            return
        if self._rate_limit:
            self._rate_limit.take(key.digest if key else (scope.get("client") or ("",))[0])
        if self._keys and method != "OPTIONS":
            _check_right(key, method, path)

    async def _refuse(self, exc: BackendError, scope: Scope, receive: Receive, send: Send) -> None:
        reply = JSONResponse(error_reply(str(exc), exc, code=exc.code, with_trace=self._with_trace), exc.status)
        if isinstance(exc, Unauthorized):  # a browser asks for a key where it opens a page, and nowhere else
            page = scope["method"] in _READING and is_documentation(route_path(scope))
            reply.headers["WWW-Authenticate"] = 'Basic realm="API key as password"' if page else "Bearer"
        if isinstance(exc, TooManyRequests):
            reply.headers["Retry-After"] = str(exc.retry_after_s)
        await reply(scope, receive, send)

    def _warn_once(self, scope: Scope) -> None:
        address = (scope.get("server") or ("localhost",))[0]
        if not is_loopback(address):
            self._may_be_open = False
            log.warning("access.open", address=address, reason=OPEN)


def _check_right(key: ApiKey | None, method: str, path: str) -> None:
    if key is None:
        raise Unauthorized("a valid API key is needed: send X-API-Key: KEY, or Authorization: Bearer KEY")
    may_infer = method == "POST" and path in _INFERENCE
    if key.right != "full" and (path in _FOR_FULL_KEYS or not (method in _READING or may_infer)):
        raise Forbidden(f"{method} {path} needs a full API key; this key may only read and infer")


def _given(scope: Scope) -> bytes:
    """The key that a request carries, or nothing.

    Pages of the documentation also take it as the password of Basic, which is how a browser can open them. Nothing else
    does: browsers add it to whatever other sites make them send.
    """
    headers = Headers(scope=scope)
    key = headers.get("x-api-key")
    if key is None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic" and scope["method"] in _READING and is_documentation(route_path(scope)):
            return _password(key)
        if scheme.lower() != "bearer":
            return b""
    return key.strip().encode("latin-1")


def _password(credentials: str) -> bytes:
    try:
        return base64.b64decode(credentials).partition(b":")[2]
    except ValueError:  # no base64, so no known key either
        return b""
