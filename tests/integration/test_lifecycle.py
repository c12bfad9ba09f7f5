"""Starts that fail and recover, and ends that lose nothing, of real server processes."""

import http.client
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.network.weights import Weights
from harness.gui import Gui
from harness.server import ROOT, free_port, gunicorn_command, serve_command, uvicorn_command
from tests.integration.conftest import FULL, running

COMMANDS = [
    serve_command,
    pytest.param(uvicorn_command, marks=pytest.mark.long),
    pytest.param(gunicorn_command, marks=pytest.mark.long),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_finishes_a_fit_and_refuses_new_work_with_503(
    tmp_path: Path, weights: Weights, crops: list[bytes], command: Callable[[int], list[str]]
) -> None:
    with running(command, tmp_path, weights, INPUT_SIZE=FULL) as server, ThreadPoolExecutor(1) as pool:
        fit = pool.submit(server.gui.fit, "Last", "Fit", crops[:4] * 3)
        wait_for(lambda: server.gui.get("/runs").json["runs"] != [])  # of several workers, one may still be starting
        os.kill(server.pid, signal.SIGTERM)
        if command is not gunicorn_command:  # which has a second worker, that ends at once
            wait_for(lambda: server.gui.get("/health").json["status"] == "draining")
            health, ready = server.gui.get("/health"), server.gui.get("/ready")
            refused = server.gui.infer("Last", "Fit", crops[0])
            assert not fit.done(), "or nothing was seen"
            assert (health.status, ready.status, refused.status) == (200, 503, 503)
            assert int(refused.headers["retry-after"]) > 0
            assert "stop" in refused.json["error"]
        reply = fit.result()
        assert reply.status == 200, reply.content
        assert reply.json["n_embeddings"] == 12 * 1024
    assert (tmp_path / "models" / "Last" / "Fit" / "memory.npz").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_ends_an_idle_server_at_once_and_cleanly(
    tmp_path: Path, weights: Weights, command: Callable[[int], list[str]]
) -> None:
    with running(command, tmp_path, weights) as server:
        os.kill(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                server.gui.get("/health")
            except ConnectionError:
                break
            time.sleep(0.05)
        assert time.monotonic() < deadline
    assert "Traceback" not in server.log_file.read_text()


def test_sigterm_ends_a_body_that_is_not_there_and_a_second_one_everything(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    head = b"POST /calibrate_ng HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with (
        running(serve_command, tmp_path, weights, INPUT_SIZE=FULL) as server,
        ThreadPoolExecutor(1) as pool,
        socket.create_connection(("127.0.0.1", server.gui.port), timeout=30) as upload,
    ):
        fit = pool.submit(server.gui.fit, "Last", "Fit", crops[:4] * 10)
        wait_for(lambda: server.gui.get("/runs").json["runs"] != [])
        upload.sendall(head + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert upload.recv(1024).startswith(b"HTTP/1.1 100 "), "it waits for the body"
        os.kill(server.pid, signal.SIGTERM)
        refused = http.client.HTTPResponse(upload)
        refused.begin()
        assert (refused.status, refused.getheader("Connection")) == (503, "close")
        assert int(refused.headers["Retry-After"]) > 0
        assert "stop" in json.loads(refused.read())["error"]
        assert not fit.done(), "or nothing was seen"
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert not fit.done(), "a second SIGTERM at once is the same one: make passes on what its group got too"
        while not fit.done():
            time.sleep(0.1)
            os.kill(server.pid, signal.SIGTERM)
        with pytest.raises(OSError, match=r"closed|reset"):
            fit.result()


def test_sigquit_ends_gunicorn_at_once(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with running(gunicorn_command, tmp_path, weights, INPUT_SIZE=FULL) as server, ThreadPoolExecutor(1) as pool:
        fit = pool.submit(server.gui.fit, "Last", "Fit", crops[:4] * 10)
        wait_for(lambda: server.gui.get("/runs").json["runs"] != [])
        os.kill(server.pid, signal.SIGQUIT)
        with pytest.raises(OSError, match=r"closed|reset"):
            fit.result(timeout=20)


def test_gunicorn_gives_its_workers_the_time_that_fits_take() -> None:
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"] >= 24 * 3600


def test_server_without_weights_says_why_and_serves_once_they_appear(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    """While the weights are missing, /health gives the reason and inference is answered 503. The log says it once."""
    port = free_port()
    missing = tmp_path / "later.safetensors"
    variables = {"WEIGHTS": str(missing), "MODELS_DIR": str(tmp_path / "models"), "PORT": str(port)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend", "serve"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
        )
    try:
        gui = Gui("127.0.0.1", port)

        def status() -> str:
            try:
                return str(gui.get("/health").json["status"])
            except ConnectionError:
                return "not there"

        wait_for(lambda: status() == "failed")
        assert "WEIGHTS" in gui.get("/health").json["reason"]
        assert str(tmp_path) not in gui.get("/health").json["reason"]
        assert gui.infer("a", "b", crops[0]).status == 503
        missing.symlink_to(weights.path)
        wait_for(lambda: status() == "ok")
        assert gui.fit("a", "b", crops[:1]).status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    text = (tmp_path / "log").read_text()
    assert text.count("start.failed") == 1, "said once, not at every try"
    started, _, after = text.partition("Ready at ")
    assert "Application startup complete" in started
    assert f"\nOpen http://127.0.0.1:{port} in a browser: " in after


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
