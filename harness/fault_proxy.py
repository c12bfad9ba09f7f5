"""A failing store for tests and soaks: a proxy in front of an object store with the faults of networks and stores."""

import http.client
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Literal
from urllib.parse import unquote, urlsplit

from harness.object_store import make_bucket
from harness.server import free_port

Kind = Literal["slow", "status", "lost", "reset", "unreachable"]
_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_CONDITIONS = ("if-match", "if-none-match")
_NOT_PASSED_ON = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        kind: ``"slow"`` waits before it passes them on; ``"status"`` refuses them; ``"unreachable"`` drops them;
            ``"reset"`` passes them on and drops the reply; ``"lost"`` passes them on and says 503.
        methods: of the requests.
        path: what their path has.
        status, code: of ``"status"``.
        seconds: of ``"slow"``.
        chance: share of these requests.
        left: how many more; None for ever.
    """

    kind: Kind
    methods: tuple[str, ...] = ("GET", "PUT", "DELETE", "HEAD", "POST")
    path: str = ""
    status: int = 503
    code: str = "Fault"
    seconds: float = 1.0
    chance: float = 1.0
    left: int | None = None


@dataclass
class Faults:
    """The faults of a store, which may be changed at any time.

    Attributes:
        every: of each request the first that applies.
        listing_lag_s: how long what was written is not listed, in seconds.
        ignores_conditions: do as stores do that know none.
        counts: requests by method, and LIST; faults included.
    """

    every: list[Fault] = field(default_factory=list)
    listing_lag_s: float = 0.0
    ignores_conditions: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    endpoint: str = ""
    _written: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    def of(self, method: str, path: str) -> Fault | None:
        """The fault of a request, if it has one."""
        kind = "LIST" if "list-type=2" in path else method
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            for fault in self.every:
                applies = method in fault.methods and fault.path in unquote(path) and fault.left != 0
                if applies and self._chance.random() < fault.chance:
                    fault.left = None if fault.left is None else fault.left - 1
                    return fault
        return None

    def wrote(self, path: str) -> None:
        """An object was written."""
        with self._lock:
            self._written.setdefault(unquote(path.split("?")[0]), time.monotonic())

    def as_listed(self, bucket: str, content: bytes) -> bytes:
        """A listing without what was written just now."""
        if not self.listing_lag_s:
            return content
        now = time.monotonic()
        with self._lock:
            young = {path for path, at in self._written.items() if now - at < self.listing_lag_s}

        def kept(found: re.Match[bytes]) -> bytes:
            key = _KEY.search(found[0])
            return b"" if key and f"{bucket}/{key[1].decode()}" in young else found[0]

        return _CONTENTS.sub(kept, content)


@contextmanager
def faulty(endpoint: str) -> Iterator[Faults]:
    """A proxy before a store: `Faults.endpoint` is where it is reached."""
    faults = Faults()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(urlsplit(endpoint).netloc, faults))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    faults.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()


class ProxyProcess:
    """A proxy without faults in a process of its own, which can be frozen and killed.

    Args:
        endpoint: of the store.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._port = endpoint, free_port()
        self._process: BaseProcess | None = None

    @property
    def address(self) -> str:
        """``http://host:port``."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = get_context("spawn").Process(target=_pass_on, args=(self._endpoint, self._port), daemon=True)
        self._process.start()
        make_bucket(self.address)

    def freeze(self) -> None:
        """Accept connections, and answer nothing."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        self._send(signal.SIGCONT)

    def end(self) -> None:
        """Refuse connections."""
        assert self._process is not None, "it was started"
        self._process.kill()
        self._process.join()

    def _send(self, number: int) -> None:
        assert self._process is not None, "it was started"
        assert self._process.pid is not None, "it was started"
        os.kill(self._process.pid, number)


@contextmanager
def proxy_process(endpoint: str) -> Iterator[ProxyProcess]:
    """A process before a store, which is ended with the block."""
    process = ProxyProcess(endpoint)
    process.start()
    try:
        yield process
    finally:
        process.end()


def _pass_on(endpoint: str, port: int) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(urlsplit(endpoint).netloc, Faults()))
    server.daemon_threads = True
    server.serve_forever()


def _handler(address: str, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.of(self.command, self.path)
            if fault is not None and fault.kind == "unreachable":
                self._drop()
                return
            if fault is not None and fault.kind == "status":
                self._answer(fault.status, {}, f"<Error><Code>{fault.code}</Code></Error>".encode())
                return
            if fault is not None and fault.kind == "slow":
                time.sleep(fault.seconds)
            upstream = http.client.HTTPConnection(address, timeout=60)
            try:
                left_out = ("connection", *(_CONDITIONS if faults.ignores_conditions else ()))
                headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
                upstream.request(self.command, self.path, body, headers)
                reply = upstream.getresponse()
                content = reply.read()
            finally:
                upstream.close()
            if self.command == "PUT" and reply.status == 200:
                faults.wrote(self.path)
            if fault is not None and fault.kind == "reset":
                self._drop()
            elif fault is not None and fault.kind == "lost":
                self._answer(503, {}, b"")
            else:
                if "list-type=2" in self.path:
                    content = faults.as_listed(self.path.split("?")[0].rstrip("/"), content)
                self._answer(reply.status, dict(reply.getheaders()), content, reply.getheader("Content-Length"))

        do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = handle_any  # noqa: N815 - names of http.server

        def _answer(self, status: int, headers: dict[str, str], content: bytes, length: str | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            if status != 304:
                is_head = self.command == "HEAD"
                self.send_header("Content-Length", length or "0" if is_head else str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                with suppress(ConnectionError):  # the client has given up
                    self.wfile.write(content)

        def _drop(self) -> None:
            self.close_connection = True
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as of http.server
            """Say nothing."""

    return Handler
