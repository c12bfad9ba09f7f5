"""Long work and how far it is, for those who do not do it."""

import json
import os
import subprocess
import sys
import time

import pytest
from structlog.testing import capture_logs

from backend.common.roi_key import RoiKey
from backend.common.telemetry import RequestRecord, recording
from backend.disk import progress as runs_module
from backend.disk.progress import RunBoard

KEY = RoiKey("Master1", "Pattern", "line 1", "K")


def test_work_is_shown_from_its_start_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(runs_module, "_SHOW_EVERY_S", 0)
    others = RunBoard(tmp_path)
    assert others.running() == []
    with recording(RequestRecord("request-7")), RunBoard(tmp_path).run("fit", KEY, 20) as run:
        (waiting,) = others.running()
        assert {name: waiting[name] for name in waiting if name != "started_at_utc"} == {
            "run_id": next((tmp_path / ".runs").glob("*.json")).stem,
            "kind": "fit",
            "role_id": "Master1",
            "roi_id": "Pattern",
            "recipe_id": "line 1",
            "model_key": "K",
            "request_id": "request-7",
            "n_images": 20,
            "step": "wait",
            "done": 0,
            "total": 20,
            "n_errors": 0,
        }
        run.n_errors += 1
        run.report("extract", 5, 20)
        (extracting,) = others.running()
        assert (extracting["step"], extracting["done"], extracting["total"]) == ("extract", 5, 20)
        assert extracting["n_errors"] == 1
        assert "left_s" not in extracting, "the five may have taken any time"
        run.report("extract", 6, 20)
        assert "left_s" in others.running()[0]
        with RunBoard(tmp_path).run("infer_dataset", RoiKey("Master1", "Pattern"), 3):
            assert [record["kind"] for record in others.running()] == ["fit", "infer_dataset"]
    assert others.running() == []
    assert list((tmp_path / ".runs").iterdir()) == []


def test_it_is_told_and_logged_with_an_estimate_of_the_time_left(tmp_path, monkeypatch):
    monkeypatch.setattr(runs_module, "_LOG_EVERY_S", 0)
    told = []
    with (
        capture_logs() as logged,
        RunBoard(tmp_path).run("fit", KEY, 16, lambda *progress: told.append(progress)) as run,
    ):
        run.report("extract", 0, 16)
        time.sleep(0.6)
        for done in (4, 16):
            run.report("extract", done, 16)
        run.report("coreset", 1, 2)
    assert told == [("extract", 0, 16), ("extract", 4, 16), ("extract", 16, 16), ("coreset", 1, 2)]
    lines = [(line["event"], line["step"], line["done"], line["total"]) for line in logged]
    assert lines == [("fit.progress", "extract", 4, 16), ("fit.progress", "coreset", 1, 2)]
    assert (logged[0]["role_id"], logged[0]["recipe_id"]) == ("Master1", "line 1")
    assert logged[0]["left_s"] == 2, "0.6 s for 4 of 16, so 1.8 for the others"
    assert "left_s" not in logged[1], "a step has a clock of its own"


@pytest.mark.slow
def test_what_a_killed_process_left_is_forgotten(tmp_path):
    script = (
        "import os, pathlib; from backend.disk.progress import RunBoard; from backend.disk.layout import RoiKey\n"
        f"with RunBoard(pathlib.Path({str(tmp_path)!r})).run('fit', RoiKey('a', 'b'), 1): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    (left,) = (tmp_path / ".runs").glob("*.json")
    record = json.loads(left.read_text())
    assert RunBoard(tmp_path).running() == []
    assert not left.exists()
    left.write_text(json.dumps({**record, "pid": os.getpid()}))  # a number may come again, as 1 does in containers
    half_shown, torn = left.with_suffix(".part"), left.with_name("torn.part")
    half_shown.write_text(json.dumps(record))
    torn.write_text("{")
    assert RunBoard(tmp_path).running() == []
    assert list((tmp_path / ".runs").iterdir()) == [torn], "it may be of a process that writes just now"
    os.utime(torn, (time.time() - 7200,) * 2)
    assert RunBoard(tmp_path).running() == []
    assert list((tmp_path / ".runs").iterdir()) == []


def test_what_a_process_is_about_to_show_is_left_to_it(tmp_path):
    with RunBoard(tmp_path).run("fit", KEY, 1):
        (shown,) = (tmp_path / ".runs").glob("*.json")
        about_to = shown.with_suffix(".part")
        about_to.write_text(shown.read_text())
        assert len(RunBoard(tmp_path).running()) == 1
        assert about_to.exists()


def test_another_machines_work_is_shown_until_it_has_been_silent_for_long(tmp_path):
    with RunBoard(tmp_path).run("fit", KEY, 1):
        (shown,) = (tmp_path / ".runs").glob("*.json")
        other = tmp_path / ".runs" / "other.json"
        other.write_text(json.dumps({**json.loads(shown.read_text()), "host": "another machine", "pid": 1}))
        assert len(RunBoard(tmp_path).running()) == 2
        os.utime(other, (time.time() - 7200,) * 2)
        assert len(RunBoard(tmp_path).running()) == 1
    with RunBoard(tmp_path).run("fit", KEY, 1):
        assert "request_id" not in RunBoard(tmp_path).running()[0], "nobody asked over HTTP"
    (tmp_path / ".runs" / "x.json").write_text("no record")
    (tmp_path / ".runs" / "y.json").write_text("{}")
    (tmp_path / ".runs" / "z.json").write_text('{"host": "another machine"}')
    assert RunBoard(tmp_path).running() == []


def test_work_goes_on_where_it_cannot_be_shown(tmp_path):
    (tmp_path / ".runs").write_text("in the way")
    with capture_logs() as logged, RunBoard(tmp_path).run("fit", KEY, 1) as run:
        run.report("extract", 1, 1)
    assert [line["event"] for line in logged] == ["run.not_shown"]
