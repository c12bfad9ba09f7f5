"""The service as it is operated: logs, metrics, request ids, several processes, starts that must fail."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest

from backend.common.machine import usable_cores
from backend.network.weights import Weights
from harness.gui import Gui, Part
from harness.server import ROOT, Server, gunicorn_command, serve_command, uvicorn_command
from tests.integration.conftest import HALF, SIDE, TOKENS, running


def test_health_tells_device_model_and_version(gui: Gui) -> None:
    health = gui.get("/health").json
    assert health["status"] == "ok"
    assert (health["device"], health["runtime"]) == ("cpu", "openvino")
    assert health["model"] == "vit_small_patch14_dinov2.lvd142m"
    assert isinstance(health["version"], str)
    assert "reason" not in health
    assert "block" not in health  # the last one


def test_a_request_id_is_taken_or_made_and_returned_everywhere(server: Server) -> None:
    given = Gui(server.gui.host, server.gui.port, {"X-Request-Id": "0f8fad5b-d9cb-469f-a165-70867728950e"})
    for reply in (given.get("/health"), given.get("/nowhere"), given.get("/infer")):
        assert reply.headers["x-request-id"] == "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert given.get("/health").json["request_id"] == "0f8fad5b-d9cb-469f-a165-70867728950e"
    made = {server.gui.get("/health").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    hostile = Gui(server.gui.host, server.gui.port, {"X-Request-Id": "x" * 500})
    assert len(hostile.get("/health").headers["x-request-id"]) == 36


def test_log_line_per_request_holds_ids_counts_and_timings_but_no_paths(
    server: Server, fitted: tuple[str, str], crops: list[bytes]
) -> None:
    """Each request logs one line with its ids, counts and the time of each stage, without paths or image data."""
    client = Gui(server.gui.host, server.gui.port, {"X-Request-Id": "log-me"})
    client.fit("Logged", "Roi", crops[:2])
    client.infer("Logged", "Roi", crops[2])
    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 10
    while len(lines) < 2 and time.monotonic() < deadline:  # the line follows the reply
        lines = [line for line in server.log() if line.get("request_id") == "log-me" and "endpoint" in line]
    assert [line["endpoint"] for line in lines] == ["/fit_ok", "/infer"]
    fit, infer = lines
    for line in lines:
        assert (line["role_id"], line["roi_id"]) == ("Logged", "Roi")
        assert line["status"] == 200
        assert line["token_shape"] == [SIDE, SIDE]
        assert line["device"] == "cpu"
    assert (fit["n_images"], infer["n_images"]) == (2, 1)
    assert {"decode_ms", "extract_ms", "coreset_ms", "store_ms"} <= set(fit)
    assert {"decode_ms", "extract_ms", "search_ms", "post_ms", "encode_ms"} <= set(infer)
    assert sum(infer[f"{stage}_ms"] for stage in ("decode", "extract", "search", "post", "encode")) <= infer["ms"]
    text = server.log_file.read_text()
    assert str(server.models) not in text
    assert str(ROOT) not in text
    assert "iVBORw0" not in text


def test_metrics_count_requests_stages_scores_and_fitted_rois(
    gui: Gui, fitted: tuple[str, str], crops: list[bytes]
) -> None:
    def metrics() -> dict[str, float]:
        reply = gui.get("/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        lines = (line for line in reply.content.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    before = metrics()
    assert gui.infer(*fitted, crops[2]).status == 200
    assert gui.infer("Nobody", "Nothing", crops[2]).status == 400
    after = metrics()

    def gained(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    deadline = time.monotonic() + 10
    while not gained('requests_total{endpoint="/infer",method="POST",status="400"}') and time.monotonic() < deadline:
        after = metrics()  # a request is counted after its reply
    assert gained('requests_total{endpoint="/infer",method="POST",status="200"}') == 1
    assert gained('requests_total{endpoint="/infer",method="POST",status="400"}') == 1
    assert gained('stage_seconds_count{stage="extract"}') == 1
    assert gained("image_score_count") == 1
    assert after["fitted_rois"] >= 1
    assert after["queue_depth"] == 0


def test_health_answers_while_a_fit_runs(server: Server, crops: list[bytes]) -> None:
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(server.gui.fit, "Busy", "Roi", crops[:2] * 16)
        polls = 0
        while not fit.done():
            assert server.gui.get("/health").status == 200
            polls += 1
        assert fit.result().status == 200
    assert polls > 5


def test_inferences_are_answered_while_a_fit_runs(server: Server, fitted: tuple[str, str], crops: list[bytes]) -> None:
    role_id, roi_id = fitted
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(server.gui.fit, "Busy", "Meanwhile", crops[:4] * 20)
        time.sleep(0.5)
        for _ in range(3):
            assert server.gui.infer(role_id, roi_id, crops[2]).status == 200
        assert not fit.done(), "80 images take longer than 3 inferences between them"
        assert fit.result().json["n_embeddings"] == 80 * TOKENS


def test_health_answers_while_every_thread_waits(server: Server, crops: list[bytes]) -> None:
    assert server.gui.fit("Locked", "Roi", crops[:1]).status == 200
    with ThreadPoolExecutor(45) as pool:
        with filelock.FileLock(server.models / "Locked" / "Roi" / ".lock"):
            waiting = [pool.submit(server.gui.calibrate, "Locked", "Roi", [0.1], None) for _ in range(45)]
            time.sleep(1)
            assert not any(call.done() for call in waiting)
            start = time.monotonic()
            assert server.gui.get("/health").status == 200
            assert time.monotonic() - start < 5
        assert all(call.result().status == 200 for call in waiting)


def test_ctrl_c_stops_the_service_quietly(tmp_path: Path, weights: Weights) -> None:
    with running(serve_command, tmp_path, weights) as server:
        os.kill(server.pid, signal.SIGINT)
        deadline = time.monotonic() + 20
        while "Finished server process" not in server.log_file.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        assert "Traceback" not in server.log_file.read_text()


def test_a_full_queue_is_503_with_the_time_to_come_back(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with (
        running(uvicorn_command, tmp_path, weights, INPUT_SIZE=HALF, MAX_QUEUE="1", MAX_FITS="1") as server,
        ThreadPoolExecutor(4) as pool,
    ):
        assert server.gui.fit("Full", "Queue", crops[:1]).status == 200
        fits = [pool.submit(server.gui.fit, "Full", "Queue", crops[:2] * 4) for _ in range(2)]
        inferences = []
        while not all(fit.done() for fit in fits):
            pair = [pool.submit(server.gui.infer, "Full", "Queue", crops[2]) for _ in range(2)]
            inferences += [call.result() for call in pair]
        fitted, refused = sorted((fit.result() for fit in fits), key=lambda reply: reply.status)
        assert (fitted.status, refused.status) == (200, 503)
        assert "1 fits are already queued; retry in" in refused.json["error"]
        assert {reply.status for reply in inferences} == {200, 503}, "a fit takes no place of an inference"
        refusals = [refused, *(reply for reply in inferences if reply.status == 503)]
        assert all(int(reply.headers["retry-after"]) > 0 for reply in refusals)
        assert "queue_rejected_total 0.0" not in server.gui.get("/metrics").content.decode()
        assert server.gui.infer("Full", "Queue", crops[2]).status == 200


def test_fit_by_one_gunicorn_worker_is_seen_by_the_other_at_once(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    """What one worker fits or calibrates is what the other worker serves from its next request on."""
    metrics_folder = tmp_path / "metrics"
    metrics_folder.mkdir()
    with running(gunicorn_command, tmp_path, weights, PROMETHEUS_MULTIPROC_DIR=str(metrics_folder)) as server:
        gui = server.gui

        def infer_until_both_workers_answered(expected: str) -> set[float]:
            scores: set[float] = set()
            mark = len(server.log())
            for _ in range(60):
                reply = gui.infer("Two", "Workers", crops[2])
                assert reply.status == 200, reply.content
                assert reply.json["calibration"] == expected
                scores.add(reply.json["score"])
                pids = {line["pid"] for line in server.log()[mark:] if line.get("endpoint") == "/infer"}
                if len(pids) == 2:
                    return scores
            raise AssertionError("one worker never answered")

        deadline = time.monotonic() + 60
        while len(loaded := [line for line in server.log() if line["event"] == "extractor.loaded"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        threads = [line["threads"] for line in loaded]
        assert threads == [max(1, usable_cores() // 2)] * 2, "each worker has its share of the cores"
        assert gui.fit("Two", "Workers", crops[:1]).status == 200
        first = infer_until_both_workers_answered("none")
        assert len(first) == 1, "both workers score alike"
        assert gui.calibrate("Two", "Workers", [0.3, 0.4], None).status == 200
        assert infer_until_both_workers_answered("applied") == first
        assert gui.fit("Two", "Workers", crops[1:2]).status == 200
        second = infer_until_both_workers_answered("stale")
        assert len(second) == 1
        assert second != first, "no worker answered from the old memory"
        metrics = gui.get("/metrics").content.decode()
        assert 'requests_total{endpoint="/fit_ok",method="POST",status="200"} 2.0' in metrics


def test_the_gauges_of_a_killed_worker_are_forgotten(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with running(gunicorn_command, tmp_path, weights, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as server:
        assert server.gui.fit("A", "B", crops[:1]).status == 200
        gauges = next(tmp_path.glob("gauge_livesum_*.db"))
        os.kill(int(gauges.stem.split("_")[-1]), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while gauges.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODELS_DIR", __file__),
        ("INPUT_SIZE", "abc"),
        ("CORESET_RATE", "2"),
        ("DEVICE", "tpu"),
    ],
)
def test_a_bad_setting_stops_the_start_with_a_message_that_names_it(variable: str, value: str) -> None:
    for command in (["backend", "serve"], ["uvicorn", "backend.app:app", "--port", "0"]):
        stopped = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "PORT": "0", variable: value},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert stopped.returncode != 0
        assert variable in stopped.stderr
        assert "cannot listen" not in stopped.stderr


def test_start_stops_with_a_message_that_names_an_unusable_address(server: Server) -> None:
    """A host or port that cannot be bound ends the start, and the message names the variable and its value."""
    for variables in ({"HOST": "999.1.2.3"}, {"PORT": str(server.gui.port)}):
        stopped = subprocess.run(
            [sys.executable, "-m", "backend", "serve"],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert stopped.returncode != 0
        assert all(f"{name}={value}" in stopped.stderr for name, value in variables.items())
        assert ("another program uses this port" in stopped.stderr) == ("PORT" in variables)


def test_a_wrong_cuda_wish_falls_back_and_says_so(tmp_path: Path, weights: Weights) -> None:
    with running(serve_command, tmp_path, weights, DEVICE="cuda", CUDA_VISIBLE_DEVICES="") as server:
        health = server.gui.get("/health").json
    assert health["device"] == "cpu"
    assert "DEVICE=cuda" in health["reason"]


def test_a_cpu_server_imports_no_torch(server: Server, fitted: tuple[str, str]) -> None:
    mapped = Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")
    assert "openvino" in mapped
    assert "libtorch" not in mapped


def test_uploads_go_by_content_and_not_by_file_name(gui: Gui, fitted: tuple[str, str], crops: list[bytes]) -> None:
    parts = [*gui.roi(*fitted), Part("image", crops[2], "image/jpeg", "really_a_png.jpg")]
    assert gui.multipart("/infer", parts).json["score"] == gui.infer(*fitted, crops[2]).json["score"]
