"""Where a request goes, as the routes see it, and which of these places show the documentation."""

from starlette.types import Scope

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What needs no API key."""


def route_path(scope: Scope) -> str:
    """The path of a request without the root path, which a proxy in front of the service adds."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_documentation(path: str) -> bool:
    """Whether a page of the documentation, what leads to it, or what it is made of, is at `path`."""
    return path in ("/", "/docs", "/redoc", "/openapi.json") or path.startswith("/static-offline-docs/")
