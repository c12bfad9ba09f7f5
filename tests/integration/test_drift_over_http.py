"""A lamp that fails, seen by a real server and by two workers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.network.weights import Weights
from harness.gui import Gui
from harness.server import gunicorn_command, uvicorn_command
from tests.integration.conftest import running

QUERY = "?role_id=Lamp&roi_id=Roi"
QUICK = {"INPUT_SIZE": "112"}  # statistics ask for many scores, and not for good ones


def parts(image: np.ndarray, n: int, light: float = 1.0) -> list[bytes]:
    """Pictures of good parts: one image, a little shifted and noisy each time, under a lamp of that brightness."""
    rng = np.random.default_rng(n)
    size = (240, 240)
    pictures = []
    for _ in range(n):
        move = np.float32([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]])
        moved = cv2.warpAffine(cv2.resize(image, size), move, size, borderMode=cv2.BORDER_REPLICATE)
        noisy = np.clip(light * moved + rng.normal(0, 2, moved.shape), 0, 255).astype(np.uint8)
        pictures.append(cv2.imencode(".png", noisy)[1].tobytes())
    return pictures


def until(gui: Gui, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What `/drift` says once it is so; statistics are two seconds late."""
    deadline = time.monotonic() + 60
    while not is_so(found := gui.get(f"/drift{QUERY}").json):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_a_lamp_that_fails_is_a_drift_before_it_is_a_pile_of_rejects(
    tmp_path: Path, weights: Weights, images: list[np.ndarray]
) -> None:
    with running(uvicorn_command, tmp_path, weights, **QUICK) as server:
        gui = server.gui
        gui.fit("Lamp", "Roi", parts(images[0], 2))
        ok = [gui.infer("Lamp", "Roi", part).json["score"] for part in parts(images[0], 6)]
        assert gui.calibrate("Lamp", "Roi", [*ok, max(ok) * 1.05], [max(ok) * 1.06]).status == 200
        for part in parts(images[0], 3):
            assert gui.infer("Lamp", "Roi", part).json["decision"] == "ok"
        assert until(gui, lambda found: found["n_parts"] == 3)["verdict"] == "collecting"
        for part in parts(images[0], 30, light=0.3):
            gui.infer("Lamp", "Roi", part)
        found = until(gui, lambda found: found["n_parts"] == 33)
        assert (found["verdict"], found["direction"]) == ("drift", "rejects")
        assert found["n_rejected"] == 30
        assert found["since_part"] <= 33
        assert [roi["roi_id"] for roi in gui.get("/drift/rois").json["rois"]] == ["Roi"]
        told = [line for line in server.log() if line["event"] == "drift.detected"]
        assert [(line["role_id"], line["direction"]) for line in told] == [("Lamp", "rejects")]
        # Mended, acknowledged: the next good parts are as calibrated.
        assert gui.chunked_json("/drift/reset", '{"role_id":"Lamp","roi_id":"Roi"}').status == 200
        gui.infer("Lamp", "Roi", parts(images[0], 3)[0])
    with running(uvicorn_command, tmp_path, weights, **QUICK) as server:  # what waited was added at the end
        found = server.gui.get(f"/drift{QUERY}").json
        assert (found["verdict"], found["n_parts"], found["n_rejected"]) == ("collecting", 1, 0)


@pytest.mark.long
def test_two_workers_count_every_part_once(tmp_path: Path, weights: Weights, images: list[np.ndarray]) -> None:
    with running(gunicorn_command, tmp_path, weights, **QUICK) as server:
        gui = server.gui
        gui.fit("Lamp", "Roi", parts(images[0], 2))
        deadline = time.monotonic() + 60
        while sum(line["event"] == "extractor.loaded" for line in server.log()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (part,) = parts(images[0], 1)
        sent, workers = 0, set()
        while len(workers) < 2 and sent < 60:
            assert gui.infer("Lamp", "Roi", part).status == 200
            sent += 1
            workers = {line["pid"] for line in server.log() if line.get("endpoint") == "/infer"}
        assert len(workers) == 2
        assert until(gui, lambda found: found["n_parts"] >= sent)["n_parts"] == sent
    with running(uvicorn_command, tmp_path, weights, **QUICK) as server:
        assert server.gui.get(f"/drift{QUERY}").json["n_parts"] == sent, "and none again at the end"
