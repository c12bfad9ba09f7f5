"""A fit in one worker, cancelled by another: nothing of it is stored, and the worker is free at once."""

import json
import threading
import time
from pathlib import Path
from typing import Any

from backend.network.weights import Weights
from harness.gui import Reply
from harness.server import Server, gunicorn_command
from tests.integration.conftest import running

_MOST_ROUNDS = 20


def cancel_of_a_fit(server: Server, images: list[bytes]) -> tuple[Reply, Reply]:
    """The reply to a fit, and that to the request that cancelled it."""
    replies: list[Reply] = []
    fit = threading.Thread(target=lambda: replies.append(server.gui.fit("Line", "Roi", images)))
    fit.start()
    runs: list[dict[str, Any]] = []
    while not runs:
        runs = server.gui.get("/runs").json["runs"]
        time.sleep(0.01)
    cancelled = server.gui.chunked_json("/runs/cancel", json.dumps({"run_id": runs[0]["run_id"]}))
    fit.join(60)
    return replies[0], cancelled


def test_fit_in_another_worker_is_cancelled(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with running(gunicorn_command, tmp_path, weights, INPUT_SIZE="112") as server:
        before = server.gui.fit("Line", "Roi", crops[:2]).json
        stored = {path: path.read_bytes() for path in server.models.glob("Line/Roi/*")}
        assert stored
        crossed = False
        for _ in range(_MOST_ROUNDS):
            fitted, cancelled = cancel_of_a_fit(server, crops * 40)
            assert (cancelled.status, cancelled.json["cancelled"], cancelled.json["kind"]) == (200, True, "fit")
            assert (fitted.status, fitted.json["code"]) == (409, "run_cancelled")
            assert server.gui.get("/runs").json["runs"] == []
            asked = [reply.headers["x-request-id"] for reply in (fitted, cancelled)]
            pids = {line["pid"] for line in server.log_of(asked) if line["event"] == "request"}
            crossed = len(pids) == 2
            if crossed:
                break
        assert crossed, "one worker answered both requests in every round"
        assert {path: path.read_bytes() for path in server.models.glob("Line/Roi/*")} == stored
        assert list((server.models / ".runs").iterdir()) == []
        events = [line for line in server.log() if line["event"] == "run.cancelled"]
        assert events[-1]["request_id"] == fitted.headers["x-request-id"]
        assert server.gui.fit("Line", "Roi", crops[:2]).json["memory_id"] == before["memory_id"]
