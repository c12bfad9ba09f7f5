"""Real servers: uvicorn in a process of its own, and gunicorn with two workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.network.weights import Weights
from harness.gui import Gui

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    gui: Gui
    models: Path
    log_file: Path
    pid: int

    def log(self) -> list[dict[str, Any]]:
        """What the server logged so far; lines that are not JSON are the start's banner."""
        complete = self.log_file.read_text().rpartition("\n")[0]  # the last line may be half written
        return [json.loads(line) for line in complete.splitlines() if line.startswith("{")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Callable[[int], list[str]], folder: Path, weights: Weights, **environment: str
) -> Iterator[Server]:
    port = free_port()
    log_file = folder / "server.log"
    # What the developer's machine is set to must not reach the servers of the tests.
    variables = {
        **{name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields},
        "DEVICE": "cpu",
        "WEIGHTS": str(weights.path),
        "MODELS_DIR": str(folder / "models"),
        "LOG_FORMAT": "json",
        "PORT": str(port),
        **environment,
    }
    with log_file.open("wb") as log:
        process = subprocess.Popen(command(port), cwd=ROOT, env=variables, stdout=log, stderr=log)
    try:
        gui = Gui("127.0.0.1", port)
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, log_file.read_text()
            try:
                if gui.get("/ready").status == 200:
                    break
            except OSError:
                assert time.monotonic() < deadline, log_file.read_text()
                time.sleep(0.1)
        yield Server(gui, folder / "models", log_file, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def serve_command(_port: int) -> list[str]:
    return [sys.executable, "-m", "backend", "serve"]


def uvicorn_command(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "backend.app:app", "--host", "127.0.0.1", "--port", str(port)]


def gunicorn_command(port: int) -> list[str]:
    worker = ["-k", "uvicorn.workers.UvicornWorker", "backend.app:app", "-w", "2", "-b", f"127.0.0.1:{port}"]
    return [sys.executable, "-m", "gunicorn", *worker]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Server]:
    with running(uvicorn_command, tmp_path_factory.mktemp("uvicorn"), weights) as server:
        yield server


@pytest.fixture(scope="session")
def gui(server: Server) -> Gui:
    return server.gui


@pytest.fixture(scope="session")
def crops(images: list[np.ndarray]) -> list[bytes]:
    """Real images as the GUI crops them: PNG in BGRA, here 300×240."""
    resized = [cv2.resize(image, (300, 240), interpolation=cv2.INTER_AREA) for image in images]
    return [cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_BGR2BGRA))[1].tobytes() for image in resized]


@pytest.fixture(scope="session")
def fitted(gui: Gui, crops: list[bytes]) -> tuple[str, str]:
    """A role and roi that were fitted on two crops and never calibrated."""
    reply = gui.fit("Shared", "Fitted", crops[:2])
    assert reply.status == 200, reply.content
    return "Shared", "Fitted"
