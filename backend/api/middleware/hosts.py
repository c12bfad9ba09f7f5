"""Which web pages may ask, and under which host names."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.common.error_text import error_reply

_REFUSAL_LEAVES_OUT = ("content-", "access-control-allow-private-network")


class Cors(CORSMiddleware):
    """Starlette's, with refusals in the contract's shape, for services in private networks, too.

    Browsers ask with ``Access-Control-Request-Private-Network`` before a public page calls a private address. Its
    successor, Local Network Access, asks the user and has no header.
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a browser's question whether it may call."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = f"{bytes(response.body).decode()}; CORS_ORIGINS lists the origins that may call"
        headers = {name: value for name, value in response.headers.items() if not name.startswith(_REFUSAL_LEAVES_OUT)}
        return JSONResponse(
            error_reply(error, None, code="origin_not_allowed", with_trace=False), response.status_code, headers
        )


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
            await JSONResponse(error_reply(error, None, code="wrong_host", with_trace=False), 400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """An application that says nothing."""
