"""Which web pages may read and change data, and under which host names."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.api_keys import is_loopback
from backend.common.error_text import error_reply, quoted
from backend.common.errors import ForeignOrigin
from backend.common.telemetry import annotate

_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_REFUSAL_LEAVES_OUT = ("content-", "access-control-allow-private-network")


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, with errors in the shape of the contract, and for services in a private network.

    Browsers ask with ``Access-Control-Request-Private-Network`` before a public page calls a private address. Its
    successor, Local Network Access, asks the user and has no header.
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser that asks whether it may call (preflight)."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = f"{bytes(response.body).decode()}; CORS_ORIGINS lists the origins that may call"
        headers = {name: value for name, value in response.headers.items() if not name.startswith(_REFUSAL_LEAVES_OUT)}
        return JSONResponse(
            error_reply(error, None, code="origin_not_allowed", with_trace=False), response.status_code, headers
        )


class TrustedHosts:
    """Starlette's check of hosts, with refusals in the shape of the contract.

    Args:
        app: the application.
        allowed_hosts: host names that requests may use; ``*.example`` is any name below it.
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
            error = "the Host header does not name a host of this service; ALLOWED_HOSTS lists them"
            annotate(error=error)
            await JSONResponse(error_reply(error, None, code="wrong_host", with_trace=False), 400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class LoopbackHosts:
    """Refuses host names other than loopback names on connections over loopback.

    Otherwise a web page could rebind its own name to this address, and read the replies of the service. A request
    without a host (HTTP/1.0) does not come from a browser. Addresses that other machines reach, and Unix sockets, may
    have any name.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        if not host or not _came_over_loopback(scope) or _is_loopback_name(host):
            await self._app(scope, receive, send)
            return
        error = (
            f"the Host header names {quoted(host)}, but this address serves only localhost and 127.0.0.1: set "
            "ALLOWED_HOSTS to the names that clients use"
        )
        annotate(error=error)
        await JSONResponse(error_reply(error, None, code="wrong_host", with_trace=False), 400)(scope, receive, send)


class ForeignPages:
    """Refuses changes that come from a web page of another origin, because browsers send forms to any address.

    A page belongs to the service if its ``Origin`` names the ``Host`` that it called, or if ``Sec-Fetch-Site`` says so.
    The latter is also right if a proxy changed the host. Clients other than browsers send neither.

    Args:
        app: the application.
        allowed_origins: other origins that may call; ``*`` is any.
        with_trace: whether error replies carry a trace.
    """

    def __init__(self, app: ASGIApp, allowed_origins: Sequence[str], with_trace: bool) -> None:
        self._app = app
        self._allowed_origins = allowed_origins
        self._with_trace = with_trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _CHANGES_NOTHING or "*" in self._allowed_origins:
            await self._app(scope, receive, send)
            return
        try:
            self._check(Headers(scope=scope))
        except ForeignOrigin as exc:
            annotate(error=str(exc))
            reply = error_reply(str(exc), exc, code=exc.code, with_trace=self._with_trace)
            await JSONResponse(reply, exc.status)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        """Check a request by its headers.

        Raises:
            ForeignOrigin: it comes from a page of another origin.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._allowed_origins or site == "same-origin":
            return
        if site == "cross-site" or (origin is not None and not _is_own(origin, headers.get("host", ""))):
            page = "another site" if origin is None else quoted(origin)
            raise ForeignOrigin(
                f"a web page of {page} may not change anything here: add its origin to CORS_ORIGINS; a proxy in "
                "front of the service must forward the Host header"
            )


def _is_own(origin: str, host: str) -> bool:
    """Whether pages of `origin` belong to the service, which was called as `host`; the scheme may be a proxy's."""
    scheme, _, authority = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return bool(authority) and authority.removesuffix(port) == host.lower().removesuffix(port)


def _came_over_loopback(scope: Scope) -> bool:
    address, port = scope.get("server") or ("", None)
    return port is not None and is_loopback(address)


def _is_loopback_name(host: str) -> bool:
    """Whether the value of a ``Host`` header is a loopback name.

    >>> [_is_loopback_name(host) for host in ("localhost:8000", "gui.localhost", "127.0.0.2", "[::1]:8000")]
    [True, True, True, True]
    >>> [_is_loopback_name(host) for host in ("localhost.example", "127.0.0.1.example:80", "10.0.0.7", "[::2]", "/")]
    [False, False, False, False, False]
    """
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0].rstrip(".")
    return name.endswith(".localhost") or (not name.startswith("/") and is_loopback(name))


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application that does nothing."""
