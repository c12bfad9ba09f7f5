"""The routes of the web console: its page at ``/``, for browsers, and its files."""

import gzip
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from backend.api.paths import asks_for_page
from backend.web import SUFFIXES, console_files

_PAGE = "index.html"


@dataclass(frozen=True)
class _File:
    content: bytes
    compressed: bytes
    media_type: str
    digest: str


def _read() -> dict[str, _File]:
    return {
        path: _File(
            content,
            gzip.compress(content, mtime=0),
            SUFFIXES[PurePosixPath(path).suffix],
            sha256(content).hexdigest()[:32],
        )
        for path, content in console_files().items()
    }


# In memory: some hundred kB, and no path of a request ever becomes one of the disk.
_FILES = _read()

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def start_page(request: Request) -> Response:
    """The console for browsers; other clients are redirected to the documentation, as before there was a console."""
    if asks_for_page(request.scope):
        return _reply(request, _FILES[_PAGE], "Accept, Accept-Encoding")
    # Relative, and so also right below a path that a proxy adds.
    return RedirectResponse("docs", headers={"Cache-Control": "no-store", "Vary": "Accept"})


@router.api_route("/console/{path:path}", methods=["GET", "HEAD"])
async def console_file(request: Request, path: str) -> Response:
    """A file of the console."""
    file = _FILES.get(path)
    if file is None or path == _PAGE:
        raise HTTPException(404)
    return _reply(request, file, "Accept-Encoding")


def _reply(request: Request, file: _File, vary: str) -> Response:
    is_compressed = _accepts_gzip(request)
    etag = f'"{file.digest}-gzip"' if is_compressed else f'"{file.digest}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": vary}  # kept, and asked for before each use
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    if is_compressed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.compressed if is_compressed else file.content, media_type=file.media_type, headers=headers)


def _accepts_gzip(request: Request) -> bool:
    """Whether a client accepts gzip (RFC 9110, 12.5.3): it names gzip with a weight above zero."""
    for coding in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";q=")
        if name == "gzip":
            return not weight or weight.strip("0.") != ""
    return False
