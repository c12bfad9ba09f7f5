"""The path of a request as the routes see it, and which paths belong to the documentation or the console."""

from starlette.datastructures import Headers
from starlette.types import Scope

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What needs no API key."""


def route_path(scope: Scope) -> str:
    """The path of a request without the root path, which a proxy in front of the service adds."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_documentation(path: str) -> bool:
    """Whether `path` is a page of the documentation, a redirect to it, or one of its files."""
    return path in ("/", "/docs", "/redoc", "/openapi.json") or path.startswith("/static-offline-docs/")


def asks_for_page(scope: Scope) -> bool:
    """Whether a request asks for a web page, like a browser that opens an address."""
    return "text/html" in Headers(scope=scope).get("accept", "")


def is_console(scope: Scope) -> bool:
    """Whether a request is for the page of the console or one of its files, which contain no user data."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    path = route_path(scope)
    return path.startswith("/console/") or (path == "/" and asks_for_page(scope))
