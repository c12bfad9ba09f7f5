"""Bulk commands as processes of their own: the same results as over HTTP, and runs that are killed and go on."""

import base64
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.network.weights import Weights
from harness.ctrl_c import ctrl_c_is_heard
from harness.server import ROOT, Server
from tests.integration.conftest import SMALL

COMMAND = [sys.executable, "-m", "backend"]
ROI = ["Bulk", "Roi", "--mm-per-px", "0.2"]
N_PARTS = 40


def environment(weights: Weights, models: Path, **settings: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return {**ours, "DEVICE": "cpu", "WEIGHTS": str(weights.path), "MODELS_DIR": str(models), **settings}


def test_the_command_line_and_http_give_the_same_to_the_last_digit(
    server: Server, weights: Weights, crops: list[bytes], tmp_path: Path
) -> None:
    shape = '{"kind":"annulus","cx":150,"cy":120,"r":110,"r_inner":20}'
    for number, crop in enumerate(crops):
        (tmp_path / f"{number}.png").write_bytes(crop)

    def run(*arguments: str) -> str:
        variables = environment(weights, server.models, INPUT_SIZE=SMALL)
        done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def over_http(crop: bytes, *mask: str) -> dict[str, Any]:
        reply = server.gui.infer("Bulk", "Http", crop, shape=mask[0] if mask else None)
        assert reply.status == 200, reply.content
        return dict(reply.json)

    roi = ["Bulk", "Http", "--mm-per-px", "0.2"]
    fitted = json.loads(run("fit", *roi, "--all-scores", str(tmp_path / "0.png"), str(tmp_path / "1.png")))
    assert (fitted.pop("n_images"), fitted.pop("ok_scores_summary")["n"]) == (2, 2)
    sent = server.gui.fit("Bulk", "Sent", crops[:2]).json
    assert {**fitted, "ok_scores": list(fitted["ok_scores"].values())} == {name: sent[name] for name in fitted}
    ok, ng = over_http(crops[2]), over_http(crops[3])
    calibration = json.loads(run("calibrate", *roi, "--ok", str(tmp_path / "2.png"), "--ng", str(tmp_path / "3.png")))
    assert calibration["threshold"] == (ok["score"] + ng["score"]) / 2
    for mask in ([], [shape]):
        options = ["--heatmaps", str(tmp_path / "maps"), *(["--shape", *mask] if mask else [])]
        for line in run("infer", *roi, *(str(tmp_path / f"{n}.png") for n in (2, 3)), *options).splitlines():
            record = json.loads(line)
            reply = over_http(Path(record["path"]).read_bytes(), *mask)
            assert {name: record[name] for name in ("score", "threshold", "decision", "calibration", "regions")} == {
                name: reply[name] for name in ("score", "threshold", "decision", "calibration", "regions")
            }
            (heatmap,) = (tmp_path / "maps").rglob(f"{Path(record['path']).name}.png")
            assert heatmap.read_bytes() == base64.b64decode(reply["heatmap_png_base64"])
    assert any(over_http(crop)["regions"] for crop in crops[2:4])


@pytest.fixture(scope="module")
def parts(crops: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a lot of different images in parts/."""
    folder = tmp_path_factory.mktemp("bulk")
    (folder / "parts").mkdir()
    decoded = [cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_COLOR) for crop in crops]
    for number in range(N_PARTS):
        image = np.roll(decoded[number % len(decoded)], 5 * number, axis=1)
        cv2.imwrite(str(folder / "parts" / f"{number}.png"), image)
    (folder / "parts" / "3.png").write_bytes(crops[3][:1000])
    return folder


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def start(parts: Path, weights: Weights) -> Start:
    """Starts a command in the working folder, on a quick network; one ROI is fitted."""
    variables = environment(weights, parts / "models", INPUT_SIZE="112", PYTHONPATH=str(ROOT))

    def begin(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        with ctrl_c_is_heard():
            return subprocess.Popen([*COMMAND, *arguments], cwd=parts, env=variables, **piped)

    fit = begin("fit", *ROI, "parts/0.png", "parts/1.png")
    assert fit.communicate()[1] is not None
    assert fit.returncode == 0
    return begin


def stop_when(process: "subprocess.Popen[str]", is_time: Callable[[], bool], number: signal.Signals) -> tuple[int, str]:
    while not is_time():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def without_ms(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "ms"} for row in rows]


def heatmaps(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(start: Start, parts: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of one whole run, by extension."""
    for suffix in (".jsonl", ".csv"):
        process = start("infer", *ROI, "parts", "--out", f"whole{suffix}", "--heatmaps", "whole")
        assert "1 failed" in process.communicate()[1]
        assert process.returncode == 1
    return {suffix: without_ms(parts / f"whole{suffix}") for suffix in (".jsonl", ".csv")}


@pytest.mark.parametrize(
    ("number", "status", "suffix"),
    [
        pytest.param(signal.SIGKILL, -9, ".jsonl", marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, -9, ".csv", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 130, ".jsonl", marks=pytest.mark.long),
        (signal.SIGTERM, 143, ".csv"),
    ],
)
def test_run_stopped_twice_and_continued_gives_what_a_whole_run_gives(
    start: Start,
    parts: Path,
    uninterrupted: dict[str, list[dict[str, Any]]],
    number: signal.Signals,
    status: int,
    suffix: str,
) -> None:
    """A bulk run is stopped twice by a signal. When it goes on to the end, its records and heatmaps are those of an
    uninterrupted run.
    """
    out, maps = parts / f"{number.name}{suffix}", f"{number.name}{suffix}-maps"
    command = ["infer", *ROI, "parts", "--out", out.name, "--heatmaps", maps]

    def has_lines(n_lines: int) -> Callable[[], bool]:
        return lambda: out.exists() and out.read_bytes().count(b"\n") >= n_lines

    for n_lines in (5, 15):
        returned, errors = stop_when(start(*command), has_lines(n_lines), number)
        assert returned == status
        assert n_lines - 1 <= out.read_bytes().count(b"\n") < N_PARTS, "it was stopped in the middle"
        assert "Traceback" not in errors
        assert ("run the same command again to resume" in errors) == (number != signal.SIGKILL)
    with out.open("ab") as file:  # as if the last kill had come while it was writing
        file.write(out.read_bytes()[-100:-50] if suffix == ".csv" else b'{"path": "parts/39.p')
    process = start(*command)
    assert "40 images: 39 not judged" in process.communicate()[1]
    assert process.returncode == 1, "one image is broken, whichever run found that"
    assert without_ms(out) == uninterrupted[suffix]
    assert heatmaps(parts / maps) == heatmaps(parts / "whole")
    assert not list(parts.glob(".*lock")), "the last run has cleared up"


def test_a_fit_that_is_killed_goes_on_to_the_same_bytes(start: Start, parts: Path) -> None:
    images = [f"parts/{number}.png" for number in range(N_PARTS) if number != 3]
    models = parts / "models"
    whole = start("fit", "Whole", "Roi", "--mm-per-px", "0.2", *images)
    expected = whole.communicate()[0]
    assert whole.returncode == 0

    def has_checkpoint() -> bool:
        return any(path.is_file() for path in models.glob(".fit-*/**/*"))

    killed = start("fit", "Killed", "Roi", "--mm-per-px", "0.2", *images)
    assert stop_when(killed, has_checkpoint, signal.SIGKILL)[0] == -9
    assert not (models / "Killed").exists()
    again = start("fit", "Killed", "Roi", "--mm-per-px", "0.2", *images)
    assert again.communicate()[0] == expected
    assert not list(models.glob(".fit-*"))
    arrays = [np.load(models / role / "Roi" / "memory.npz") for role in ("Whole", "Killed")]
    assert arrays[0]["emb"].tobytes() == arrays[1]["emb"].tobytes()


def test_output_that_nobody_takes_ends_the_run_with_one_sentence(start: Start) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start("infer", *ROI, "parts", stdout=full)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "standard output cannot be written (No space left on device)" in errors
    process = start("infer", *ROI, "parts")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["path"] == "parts/0.png"
    process.stdout.close()  # as `| head -1` does
    errors_of_pipe = process.stderr.read()
    assert process.wait() == 1
    assert "standard output cannot be written (Broken pipe)" in errors_of_pipe
    for text in (errors, errors_of_pipe):
        assert "Traceback" not in text
        assert "Exception ignored" not in text
