"""Pages that use backend/web, served with the headers of the console, and their results.

For tests and measurements of the console in a real browser. No service is needed, but the pages may use one.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from backend import web
from backend.api.security_headers import OF_CONSOLE

_WEB = Path(web.__file__).parent
_PATIENCE_S = 60.0
_ASKED = ("Content-Type", "If-Match", "If-None-Match")
_TOLD = ("Content-Type", "ETag", "Retry-After")


class PageServer(ThreadingHTTPServer):
    """A server of backend/web at ``/``, and of more pages at ``/pages/``.

    Attributes:
        folder: of the pages.
        files: by name, what ``/files/name`` gives.
        cases: what ``/cases`` gives.
        results: by name, what was posted to ``/results/name``: its head, its body.
        done: set when ``/results/done`` was posted.
        behind: address of a service that answers what is none of this; none: nobody does.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.cases: list[Any] = []
        self.results: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.done = threading.Event()
        self.behind = ""

    @property
    def address(self) -> str:
        """``http://host:port``."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        """A file, a page, or the cases."""
        path = self.path.split("?")[0]
        if path == "/cases":
            return self._reply(json.dumps(self.server.cases).encode(), "application/json")
        if path.startswith("/files/"):
            return self._reply(self.server.files[path.removeprefix("/files/")], "application/octet-stream")
        of_pages = path.startswith("/pages/")
        root = self.server.folder if of_pages else _WEB
        file = (root / path.removeprefix("/pages/" if of_pages else "/")).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return self._forward() if self.server.behind else self.send_error(404)
        return self._reply(file.read_bytes(), web.SUFFIXES[file.suffix])

    def _forward(self, body: bytes = b"") -> None:
        """Have the service answer."""
        headers = {name: self.headers[name] for name in _ASKED if name in self.headers}
        address = self.server.behind + self.path
        reply = httpx.request(self.command, address, content=body, headers=headers, timeout=_PATIENCE_S)
        self.send_response(reply.status_code)
        for name in _TOLD:
            if name in reply.headers:
                self.send_header(name, reply.headers[name])
        self.send_header("Content-Length", str(len(reply.content)))
        with contextlib.suppress(ConnectionError):  # the page waits no longer
            self.end_headers()
            self.wfile.write(reply.content)

    def do_POST(self) -> None:
        """A result."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.startswith("/results/"):
            return self._forward(body)
        name = self.path.removeprefix("/results/")
        self.server.results[name] = (json.loads(self.headers.get("X-Head", "{}")), body)
        if name == "done":
            self.server.done.set()
        return self._reply(b"", "text/plain")

    def _reply(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in OF_CONSOLE:
            self.send_header(name.decode(), value.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest shows what failed."""


@contextlib.contextmanager
def pages(folder: Path) -> Iterator[PageServer]:
    """A server that listens until the block ends.

    Args:
        folder: pages of its own.
    """
    with PageServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
