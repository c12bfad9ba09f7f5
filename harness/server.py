"""What the scripts measure against: a server in a process of its own, its requests, and the bare forward pass."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from backend.common.config import Settings, load_settings
from backend.features import preprocess
from backend.network.runtimes import open_runtime
from backend.network.weights import find_weights
from harness.common import png, solar_cells

ROI = {"role_id": "Benchmark", "roi_id": "Cell", "mm_per_px": "0.52"}  # cells of 156 mm on 300 pixels
SERVE = ("backend", "serve")
GUNICORN = ("gunicorn", "-k", "uvicorn.workers.UvicornWorker", "backend.app:app", "-w", "2")
_ROOT = Path(__file__).parents[1]  # where gunicorn.conf.py lies
_LOCAL = "127.0.0.1"
_START_S = 120
_STOP_S = 30
_LOG_S = 10


@dataclass(frozen=True)
class Form:
    """A multipart form, encoded once, so that a client under measurement only sends it."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, field: str, pngs: Sequence[bytes], **texts: str) -> "Form":
        """The images under `field`, and the texts of `ROI` or others in their place."""
        files = [(field, ("cell.png", content, "image/png")) for content in pngs]
        request = httpx.Request("POST", "http://service", data={**ROI, **texts}, files=files)
        return cls(request.read(), {"Content-Type": request.headers["Content-Type"]})

    def post(self, client: httpx.Client, path: str, request_id: str = "unnamed") -> httpx.Response:
        """Send it."""
        return client.post(path, content=self.body, headers={**self.headers, "X-Request-Id": request_id})

    def infer(self, client: httpx.Client, request_id: str = "unnamed") -> float:
        """Seconds of one ``POST /infer``, as the client sees it.

        Raises:
            httpx.HTTPStatusError: the reply is an error.
        """
        start = time.perf_counter()
        self.post(client, "/infer", request_id).raise_for_status()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Server:
    """A service in a process of its own.

    Attributes:
        address: ``http://host:port``.
        process: the server; gunicorn's is the one that holds the workers.
        log: its log, one JSON object per line.
    """

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self) -> httpx.Client:
        """A client with a connection of its own, which it keeps; past any proxy."""
        return httpx.Client(base_url=self.address, timeout=600, trust_env=False)

    def log_text(self) -> str:
        """The log so far. What is no UTF-8 in it, libpng wrote about a damaged image."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, path: str) -> httpx.Response:
        """Ask for `path` until the server is ready.

        Raises:
            RuntimeError: it ended or stayed silent; the message is the end of its log.
        """
        deadline = time.monotonic() + _START_S
        with self.client() as client:
            while self.process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/ready").status_code == httpx.codes.OK:
                        return client.get(path)
                time.sleep(0.01)
        raise RuntimeError("the server does not answer; the end of its log:\n" + self.log_text()[-4000:])

    def fit(self, count: int, request_id: str = "unnamed", **texts: str) -> float:
        """Seconds of a ``POST /fit_ok`` with the first `count` solar cells."""
        form = Form.of("images", [png(cell) for cell in solar_cells(count)], **texts)
        with self.client() as client:
            start = time.perf_counter()
            form.post(client, "/fit_ok", request_id).raise_for_status()
            return time.perf_counter() - start

    def log_of(self, request_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The log entries of these requests, in this order.

        Raises:
            RuntimeError: one is missing.
        """
        deadline = time.monotonic() + _LOG_S
        while time.monotonic() < deadline:
            complete = self.log_text().rpartition("\n")[0]  # the last line may be half written
            entries = [json.loads(line) for line in complete.splitlines() if line.startswith("{")]
            by_id = {entry["request_id"]: entry for entry in entries if entry["event"] == "request"}
            with contextlib.suppress(KeyError):
                return [by_id[request_id] for request_id in request_ids]
            time.sleep(0.1)  # a line follows its reply
        raise RuntimeError(f"no log entries of some of the requests after {_LOG_S} s")


@contextlib.contextmanager
def starting(command: Sequence[str] = SERVE, under: Sequence[str] = (), **environment: str) -> Iterator[Server]:
    """Start a server that may not yet answer when the block begins, and end it whatever happens.

    Args:
        command: Python module and its arguments.
        under: command that becomes the server, such as setpriv with its options.
        environment: variables for it, such as ``RUNTIME``.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended then too, as on Ctrl-C
    with socket.socket() as probe:
        probe.bind((_LOCAL, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-benchmark-") as folder:
        log = Path(folder) / "server.log"
        variables = {
            "MODELS_DIR": str(Path(folder) / "models"),
            "WEIGHTS": str(find_weights(load_settings()).path),
            "LOG_LEVEL": "info",
            "LOG_FORMAT": "json",
            "HOST": _LOCAL,
            "PORT": str(port),
            "GUNICORN_CMD_ARGS": f"--bind {_LOCAL}:{port}",
            **environment,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", *command],
                cwd=_ROOT,
                env=os.environ | variables,
                stdout=output,
                stderr=output,
            )
        try:
            yield Server(f"http://{_LOCAL}:{port}", process, log)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def serving(command: Sequence[str] = SERVE, under: Sequence[str] = (), **environment: str) -> Iterator[Server]:
    """A server that answers (see `starting`)."""
    with starting(command, under, **environment) as server:
        server.wait_for("/health")
        yield server


@contextlib.contextmanager
def fitted_models(count: int, **environment: str) -> Iterator[dict[str, str]]:
    """Fit `ROI` on the first `count` solar cells once, for several servers.

    Args:
        count: solar cells.
        environment: variables of the server that fits.

    Yields:
        The environment of servers that find the model: that of the fit, and ``MODELS_DIR``.
    """
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-benchmark-") as folder:
        environment = {**environment, "MODELS_DIR": folder}
        with serving(**environment) as server:
            server.fit(count)
        yield environment


@contextlib.contextmanager
def bare_forward(**overrides: str) -> Iterator[Callable[[], float]]:
    """The network alone: a call runs one forward pass of the runtime that a server would open and returns its seconds.

    It runs in a second process, so that neither Python's lock nor other threads are in its way.

    Args:
        overrides: settings beside those of the environment.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_forward_on_demand, args=(theirs, load_settings(**overrides)), daemon=True)
    process.start()
    theirs.close()

    def forward() -> float:
        ours.send(None)
        seconds: float = ours.recv()
        return seconds

    try:
        forward()  # the first pass allocates
        yield forward
    finally:
        ours.close()
        process.join()


def _forward_on_demand(connection: Connection, settings: Settings) -> None:
    runtime, _ = open_runtime(settings, find_weights(settings))
    pixels = preprocess(solar_cells(1)[0], settings.input_size)[None]
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            start = time.perf_counter()
            runtime.forward(pixels)
            connection.send(time.perf_counter() - start)
