"""Refuses work while the service is starting, could not load, or is stopping."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.lifecycle import Lifecycle
from backend.api.middleware.bodies import has_body
from backend.api.paths import is_console, is_documentation, route_path
from backend.common.error_text import error_reply
from backend.common.errors import NotReady
from backend.common.telemetry import annotate

# Questions about the service, which it answers in every state.
_ALWAYS_SERVED = frozenset({"/health", "/ready", "/metrics"})


class Admission:
    """Refuses work that the service cannot do, after a short wait for its start, and counts running requests.

    Args:
        app: the application.
        lifecycle: knows whether the service can work.
        with_trace: whether error replies carry a trace.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, with_trace: bool) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._with_trace = with_trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] == "OPTIONS" or _is_always_served(scope):
            await self._app(scope, receive, send)
            return
        try:
            await self._lifecycle.wait_until_started()
            self._lifecycle.require_ready()
        except NotReady as exc:
            annotate(error=str(exc))
            reply = error_reply(str(exc), exc, code=exc.code, with_trace=self._with_trace)
            headers = {"Retry-After": str(exc.retry_after_s)}
            await JSONResponse(reply, exc.status, headers)(scope, receive, send)
            return
        complete = not has_body(scope)

        async def receive_until_draining() -> Message:
            nonlocal complete
            if complete:
                return await receive()
            with self._lifecycle.receiving():
                message = await receive()
            complete = not message.get("more_body", False)
            return message

        self._lifecycle.in_flight += 1
        try:
            await self._app(scope, receive_until_draining, send)
        finally:
            self._lifecycle.in_flight -= 1


def _is_always_served(scope: Scope) -> bool:
    path = route_path(scope)
    return path in _ALWAYS_SERVED or is_documentation(path) or is_console(scope)
