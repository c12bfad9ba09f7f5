"""``roi-anomaly watch`` in a process of its own, before a service that runs: killed, left alone, and misled."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from backend.commands.watch.crop import Roi
from harness import drawn
from harness.ctrl_c import ctrl_c_is_heard
from harness.drawn import fit_drawn
from harness.images import png, solar_cells
from harness.server import ROOT, starting, uvicorn_command
from tests.commands.watch.receiver import Receiver
from tests.integration.conftest import running

RECIPE = "line 1"
FULL, INFER = "full-key-of-the-tests", "infer-key-of-the-tests"
ROIS = {"Frame": Roi("rect", 150, 140, w=200, h=160), "Middle": Roi("circle", 150, 150, r=60, angle_deg=90)}
SCALE = 0.5
_PATIENCE_S = 120


def ids_of(name):
    return drawn.ids_of(RECIPE, list(ROIS).index(name) + 1)


def cut(picture, name):
    """What the ROI shows, by slices alone."""
    if name == "Frame":
        return png(picture[60:220, 50:250])
    return png(np.rot90(picture[90:210, 90:210]))


def fit(client, name, roi, crops):
    fit_drawn(client, ids_of(name), roi, crops, SCALE, memory_fit="true")


def put_layout(client, rois):
    drawn.put_layout(client, RECIPE, drawn.layout_of(rois, (300, 300), SCALE))


@pytest.fixture(scope="module")
def cells():
    return solar_cells(24)


@pytest.fixture(scope="module")
def service(tmp_path_factory, weights, cells):
    """A service with keys and two ROIs, at a small network input, which is quick."""
    folder = tmp_path_factory.mktemp("service")
    settings = {"INPUT_SIZE": "112", "API_KEYS": FULL, "INFER_KEYS": INFER}
    with running(uvicorn_command, folder, weights, **settings) as server:
        with client_of(server) as client:
            for name, roi in ROIS.items():
                fit(client, name, roi, [cut(cell, name) for cell in cells[:10]])
            put_layout(client, ROIS)
        yield server


def client_of(server, key=FULL):
    client = server.client()
    client.headers["X-API-Key"] = key
    return client


class Line:
    """A folder with a watch that can be started and ended."""

    def __init__(self, folder, address):
        self.folder = folder
        self.address = address
        self.incoming = folder / "incoming"
        self.incoming.mkdir()
        self.log = folder / "watch.log"

    def start(self, *more, key=INFER):
        places = [f"--{word}={self.folder / word}" for word in ("ok", "ng", "not-judged")]
        command = [sys.executable, "-m", "backend", "watch", RECIPE, str(self.incoming), "--url", self.address]
        command += ["--out", str(self.folder / "results.jsonl"), "--settle", "0.1", *places, *more]
        environment = os.environ | {"WATCH_API_KEY": key}
        with self.log.open("ab") as log, ctrl_c_is_heard():
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def once(self, *more):
        assert self.start("--once", *more).wait(_PATIENCE_S) == 0, self.log.read_text()

    def results(self):
        path = self.folder / "results.jsonl"
        return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, number):
        """Until so many parts are in the results."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(ValueError):  # a line may be half written
                if len(self.results()) >= number:
                    return
            time.sleep(0.05)
        pytest.fail(self.log.read_text())


@pytest.fixture
def line(tmp_path, service):
    return Line(tmp_path, service.address)


def test_verdicts_are_those_of_the_service_on_crops_cut_by_slices(line, service, cells):
    noise = np.random.default_rng(5).integers(0, 256, (300, 300, 3), np.uint8)
    parts = [*cells[9:13], noise, np.where(np.arange(300)[:, None, None] < 150, noise, cells[1]).astype(np.uint8)]
    for number, cell in enumerate(parts):
        (line.incoming / f"{number}.png").write_bytes(png(cell))
    line.once()
    told = {part["file"]: part for part in line.results()}
    assert len(told) == 6
    with client_of(service, INFER) as client:
        for number, cell in enumerate(parts):
            decisions = []
            for name, roi in ROIS.items():
                form = ids_of(name) | {"mm_per_px": str(SCALE), "trial": "true"}
                form |= {"shape": json.dumps(roi.shape)} if roi.shape else {}
                reply = client.post("/infer", data=form, files={"image": ("x.png", cut(cell, name))}).json()
                (found,) = (one for one in told[f"{number}.png"]["rois"] if one["name"] == name)
                for field in ("score", "threshold", "calibration"):
                    assert found[field] == reply[field]
                assert (found["verdict"], found["n_regions"]) == (reply["decision"], len(reply["regions"]))
                decisions.append(reply["decision"])
            expected = "ng" if "ng" in decisions else "ok"
            assert told[f"{number}.png"]["verdict"] == expected
            assert (line.folder / expected / f"{number}.png").read_bytes() == png(cell)
    assert {part["verdict"] for part in told.values()} == {"ok", "ng"}


def test_killed_again_and_again_it_loses_and_repeats_nothing(line, cells):
    contents = {f"{number:02}.png": png(cell) for number, cell in enumerate(cells)}
    chance = random.Random(4)
    with Receiver() as receiver:
        hook = ("--webhook", receiver.address)
        for name, content in contents.items():
            (line.incoming / name).write_bytes(content)
        for round_ in range(6):
            process = line.start(*hook)
            line.wait_for(2 * round_)
            time.sleep(chance.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        line.once(*hook)
        told = line.results()
        assert sorted(part["file"] for part in told) == sorted(contents)
        assert len({part["id"] for part in told}) == len(told)
        received = [part["id"] for part in receiver.bodies]
        assert set(received) == {part["id"] for part in told}
    placed = {
        path.name: path.read_bytes() for word in ("ok", "ng", "not-judged") for path in line.folder.glob(f"{word}/*")
    }
    assert placed == contents
    assert [path.name for path in line.incoming.iterdir()] == [".roi-anomaly-watch"]


def test_while_the_service_is_gone_parts_wait_and_none_is_missing(line, service, cells, weights):
    settings = {
        "INPUT_SIZE": "112",
        "DEVICE": "cpu",
        "WEIGHTS": str(weights.path),
        "INFER_KEYS": INFER,
        "API_KEYS": FULL,
    }
    settings["MODELS_DIR"] = str(service.models)
    with starting(uvicorn_command, line.folder, as_set=False, **settings) as first:
        line.address = first.address
        process = line.start()  # before the service answers
        (line.incoming / "1.png").write_bytes(png(cells[0]))
        line.wait_for(1)
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait()
        for number in range(2, 5):
            (line.incoming / f"{number}.png").write_bytes(png(cells[number]))
        deadline = time.monotonic() + _PATIENCE_S
        while "nothing is judged: the service at" not in line.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(line.results()) == 1
    command = [*uvicorn_command(first.port)]
    with starting(lambda _: command, line.folder, as_set=False, **settings):
        line.wait_for(4)
    process.terminate()
    assert process.wait(_PATIENCE_S) == 143
    assert "parts are judged again." in line.log.read_text()
    assert {part["verdict"] for part in line.results()} <= {"ok", "ng"}
    assert "4 parts: " in line.log.read_text()


def test_a_roi_that_is_moved_gives_no_verdict_until_it_is_fitted_again(line, service, cells):
    process = line.start()
    moved = ROIS | {"Frame": dataclasses.replace(ROIS["Frame"], cx=155)}
    with client_of(service) as client:
        for number, change in enumerate((None, "moved", "fitted")):
            if change == "moved":
                put_layout(client, moved)
            elif change == "fitted":
                fit(client, "Frame", moved["Frame"], [png(cell[60:220, 55:255]) for cell in cells[:10]])
            time.sleep(2.5)
            (line.incoming / f"{number}.png").write_bytes(png(cells[3]))
            line.wait_for(number + 1)
        put_layout(client, ROIS)
        fit(client, "Frame", ROIS["Frame"], [cut(cell, "Frame") for cell in cells[:10]])
    process.send_signal(signal.SIGINT)
    assert process.wait(_PATIENCE_S) == 130
    told = line.results()
    assert [part["verdict"] for part in told] == ["ok", "not_judged", "ok"]
    assert "changed since the fit" in told[1]["reason"]
    assert len({part["rois"][0]["memory_id"] for part in (told[0], told[2])}) == 2


def test_a_key_that_the_service_does_not_know_is_an_error_at_the_start(line):
    process = line.start(key="a-key-that-nobody-knows")
    assert process.wait(_PATIENCE_S) == 1
    assert "Set WATCH_API_KEY" in line.log.read_text()
    assert "a-key-that-nobody-knows" not in line.log.read_text()
