"""A service in its own process, under any of the supported servers."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backend.common.config import Settings, load_settings
from backend.network.weights import find_weights
from harness.forms import Form
from harness.gui import Gui
from harness.images import png, solar_cells

ROOT = Path(__file__).parents[1]  # where gunicorn.conf.py lies
_LOCAL = "127.0.0.1"
_NOT_EPHEMERAL = range(10_000, 32_000)  # outgoing connections get ports from 32,768 on
_START_S = 120
_STOP_S = 30
_LOG_S = 10

Command = Callable[[int], list[str]]
"""A command line, by the port that the server shall listen on."""


def serve_command(_port: int) -> list[str]:
    """``python -m backend serve``, which takes the port from the environment."""
    return [sys.executable, "-m", "backend", "serve"]


def uvicorn_command(port: int) -> list[str]:
    """Plain uvicorn."""
    return [sys.executable, "-m", "uvicorn", "backend.app:app", "--host", _LOCAL, "--port", str(port)]


def gunicorn_command(port: int, workers: int = 2) -> list[str]:
    """Gunicorn with uvicorn's workers."""
    worker = ["-k", "uvicorn.workers.UvicornWorker", "backend.app:app", "-w", str(workers), "-b", f"{_LOCAL}:{port}"]
    return [sys.executable, "-m", "gunicorn", *worker]


def cluster_command(_port: int) -> list[str]:
    """Replicas on Ray, which take the port from the environment."""
    return [sys.executable, "-m", "backend", "cluster", "serve"]


def free_port() -> int:
    """A port of this machine that nobody uses, and that no client of another process gets meanwhile."""
    while True:
        port = random.SystemRandom().choice(_NOT_EPHEMERAL)
        with socket.socket() as probe, contextlib.suppress(OSError):  # another program has it
            probe.bind((_LOCAL, port))
            return port


@dataclass(frozen=True)
class Server:
    """A service in a process of its own.

    Attributes:
        port: of ``127.0.0.1``.
        process: the server; gunicorn's is the one that holds the workers.
        models: its models folder.
        log_file: its log, one JSON object per line, and what other programs wrote.
    """

    port: int
    process: subprocess.Popen[bytes]
    models: Path
    log_file: Path

    @property
    def address(self) -> str:
        """``http://host:port``."""
        return f"http://{_LOCAL}:{self.port}"

    @property
    def gui(self) -> Gui:
        """A client that writes the wire format of the GUI."""
        return Gui(_LOCAL, self.port)

    @property
    def pid(self) -> int:
        """Of `process`."""
        return self.process.pid

    def client(self) -> httpx.Client:
        """A client with a connection of its own, which it keeps; past any proxy."""
        return httpx.Client(base_url=self.address, timeout=600, trust_env=False)

    def log_text(self) -> str:
        """The log so far. What is no UTF-8 in it, libpng wrote about a damaged image."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """The entries of the log so far; lines that are not JSON are the start's banner, or other programs'."""
        complete = self.log_text().rpartition("\n")[0]  # the last line may be half written
        return [json.loads(line) for line in complete.splitlines() if line.startswith("{")]

    def log_of(self, request_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The log entries of these requests, in this order.

        Raises:
            RuntimeError: one is missing.
        """
        deadline = time.monotonic() + _LOG_S
        while time.monotonic() < deadline:
            by_id = {entry["request_id"]: entry for entry in self.log() if entry["event"] == "request"}
            with contextlib.suppress(KeyError):
                return [by_id[request_id] for request_id in request_ids]
            time.sleep(0.1)  # a line follows its reply
        raise RuntimeError(f"no log entries of some of the requests after {_LOG_S} s")

    def wait_for(self, path: str, within_s: float = _START_S) -> httpx.Response:
        """Ask for `path` until the server is ready.

        Args:
            path: what is asked for.
            within_s: for how long.

        Raises:
            RuntimeError: it ended or stayed silent; the message is the end of its log.
        """
        deadline = time.monotonic() + within_s
        with self.client() as client:
            while self.process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("/ready").status_code == httpx.codes.OK:
                        return client.get(path)
                time.sleep(0.01)
        raise RuntimeError("the server does not answer; the end of its log:\n" + self.log_text()[-4000:])

    def stop(self) -> None:
        """End it as an operator does.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        self.process.terminate()
        self.process.wait(_STOP_S)

    def fit(self, count: int, request_id: str = "unnamed", **texts: str) -> float:
        """Seconds of a ``POST /fit_ok`` with the first `count` solar cells."""
        form = Form.of("images", [png(cell) for cell in solar_cells(count)], **texts)
        with self.client() as client:
            start = time.perf_counter()
            form.post(client, "/fit_ok", request_id).raise_for_status()
            return time.perf_counter() - start


@contextlib.contextmanager
def starting(
    command: Command = serve_command, folder: Path | None = None, *, as_set: bool = True, **environment: str
) -> Iterator[Server]:
    """Start a server that may not yet answer when the block begins, and end it whatever happens.

    Args:
        command: how.
        folder: where its log and its models lie; None makes one for the time of the block.
        as_set: keep the settings of this process's environment, such as ``PRECISION``.
        environment: variables for it, such as ``RUNTIME``.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended then too, as on Ctrl-C
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roi-anomaly-")))
        port, log_file = free_port(), folder / "server.log"
        inherited = {
            name: value for name, value in os.environ.items() if as_set or name.lower() not in Settings.model_fields
        }
        variables = {
            "MODELS_DIR": str(folder / "models"),
            "LOG_LEVEL": "info",
            "LOG_FORMAT": "json",
            "HOST": _LOCAL,
            "PORT": str(port),
            "WEIGHTS": "" if "WEIGHTS" in environment else str(find_weights(load_settings()).path),
            **environment,
        }
        with log_file.open("wb") as log:
            process = subprocess.Popen(command(port), cwd=ROOT, env=inherited | variables, stdout=log, stderr=log)
        try:
            yield Server(port, process, Path(variables["MODELS_DIR"]), log_file)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def serving(
    command: Command = serve_command, folder: Path | None = None, *, as_set: bool = True, **environment: str
) -> Iterator[Server]:
    """A server that answers (see `starting`)."""
    with starting(command, folder, as_set=as_set, **environment) as server:
        server.wait_for("/health")
        yield server


@contextlib.contextmanager
def fitted_models(count: int, **environment: Any) -> Iterator[dict[str, str]]:
    """Fit `ROI` on the first `count` solar cells once, for several servers.

    Args:
        count: solar cells.
        environment: variables of the server that fits.

    Yields:
        The environment of servers that find the model: that of the fit, and ``MODELS_DIR``.
    """
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-") as folder:
        with serving(MODELS_DIR=folder, **environment) as server:
            server.fit(count)
        yield {**environment, "MODELS_DIR": folder}
