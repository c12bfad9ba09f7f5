"""``roi-anomaly watch`` with the engine in this process."""

import csv
import json
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from backend.commands.watch import command, watching
from backend.commands.watch.command import _stopping
from backend.commands.watch.delivery import Delivery
from backend.storage import ModelStore
from harness.ctrl_c import ctrl_c_is_heard
from harness.server import free_port
from tests.commands.watch.receiver import Receiver

RECIPE = "line 1"
SIZE = (200, 160)
IDS = ("Inspection", "inspection-1", "--recipe", RECIPE)


def layout_of(roi, **more):
    drawn = {
        "role_id": "Inspection",
        "roi_id": "inspection-1",
        "model_key": "inspection-1",
        "name": "Body",
        "mm_per_px": 0.5,
    }
    drawn |= {"roi": roi, "picture": {"width": SIZE[0], "height": SIZE[1]}} | more
    return json.dumps({"format": "roi-anomaly-console", "version": 1, "rois": [drawn]})


ROI = {"kind": "rect", "cx": 100, "cy": 80, "w": 120, "h": 100, "r": 0, "r_inner": 0, "angle_deg": 0}


@pytest.fixture
def line(work, run, monkeypatch):
    """The working folder, with a ROI that is fitted and calibrated, its layout, and parts that arrived."""
    good = [cv2.imread(str(work / "parts" / name)) for name in ("1.png", "2.jpg")]
    (work / "good").mkdir()
    for number, image in enumerate(good):
        cv2.imwrite(str(work / "good" / f"{number}.png"), image[30:130, 40:160])
    monkeypatch.setenv("CORESET_RATE", "1")  # of few small images it would keep next to nothing
    assert run("fit", *IDS, "good", "--mm-per-px", "0.5")[0] == 0
    assert run("calibrate", *IDS, "--mm-per-px", "0.5", "--threshold", "0.9")[0] == 0
    (work / "layout.json").write_text(layout_of(ROI))
    (work / "in").mkdir()
    cv2.imwrite(str(work / "in" / "good.png"), good[0])
    cv2.imwrite(str(work / "in" / "bad.png"), np.random.default_rng(1).integers(0, 256, (160, 200, 3), np.uint8))
    return work


WATCH = ("watch", "layout.json", "in", "--recipe", RECIPE, "--once", "--settle", "0")


@pytest.mark.slow
def test_verdicts_are_those_of_infer_on_the_crops(line, run):
    status, out, err = run(*WATCH, "--out", "results.csv", "--ok", "ok", "--ng", "ng", "--not-judged", "other")
    assert (status, out) == (0, "")
    assert "2 parts: 1 OK, 1 NG, 0 NOT JUDGED" in err
    assert "NG: bad.png: Body: The score" in err
    assert [path.name for path in (*line.glob("ok/*"), *line.glob("ng/*"))] == ["good.png", "bad.png"]
    (line / "crops").mkdir()
    for file in ("ok/good.png", "ng/bad.png"):
        image = cv2.imread(str(line / file))
        cv2.imwrite(str(line / "crops" / file[3:]), image[30:130, 40:160])
    assert run("infer", *IDS, "crops", "--mm-per-px", "0.5", "--out", "crops.csv")[0] == 0
    with (line / "results.csv").open() as ours, (line / "crops.csv").open() as theirs:
        found = {row["file"]: (row["score"], row["threshold"], row["roi_verdict"]) for row in csv.DictReader(ours)}
        expected = {
            row["path"][6:]: (row["score"], row["threshold"], row["decision"]) for row in csv.DictReader(theirs)
        }
    assert found == expected


@pytest.mark.slow
def test_parts_count_in_the_statistics_of_drift_as_those_of_the_service(line, run):
    run(*WATCH)
    (drift,) = (line / "models" / ".drift").rglob("*.json")
    assert json.loads(drift.read_text())["n_parts"] == 2


@pytest.mark.slow
def test_without_out_each_part_is_a_line_of_json(line, run):
    status, out, _ = run(*WATCH)
    told = [json.loads(text) for text in out.splitlines()]
    assert (status, {part["file"]: part["verdict"] for part in told}) == (0, {"good.png": "ok", "bad.png": "ng"})
    assert run(*WATCH)[1] == ""  # none is judged twice


@pytest.mark.slow
def test_a_recipe_is_read_from_the_models_folder_as_the_console_stored_it(line, run):
    folder = line / "models" / "@recipes" / "line 1" / "layout"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layout.json").write_text(layout_of(ROI))
    status, out, err = run("watch", " Line 1 ", "in", "--once", "--settle", "0")
    assert (status, len(out.splitlines())) == (0, 2), err
    assert "1 ROI of recipe 'line 1' (Body)" in err


@pytest.mark.slow
def test_a_roi_without_threshold_or_model_is_never_ok(line, run):
    assert run("fit", "Inspection", "inspection-2", "--recipe", RECIPE, "good", "--mm-per-px", "0.5")[0] == 0
    for roi_id, said in (("inspection-2", "no threshold"), ("inspection-3", "memory not found")):
        (line / "layout.json").write_text(layout_of(ROI, roi_id=roi_id, model_key=roi_id))
        _, out, _ = run(*WATCH, "--state", line / roi_id)
        told = [json.loads(text) for text in out.splitlines()]
        assert [part["verdict"] for part in told] == ["not_judged"] * 2
        assert all(said in part["reason"] for part in told)


@pytest.mark.slow
def test_a_damaged_model_and_a_refit_are_never_ok(line, run):
    assert run("fit", *IDS, "good/0.png", "--mm-per-px", "0.5")[0] == 0
    told = [json.loads(text) for text in run(*WATCH)[1].splitlines()]
    assert {part["verdict"] for part in told} == {"not_judged"}
    assert all("since its threshold was chosen" in part["reason"] for part in told)
    for memory in (line / "models").rglob("memory.npz"):
        memory.write_bytes(memory.read_bytes()[:100])
    told = [json.loads(text) for text in run(*WATCH, "--state", line / "state")[1].splitlines()]
    assert {part["verdict"] for part in told} == {"not_judged"}


@pytest.mark.slow
def test_once_fails_where_messages_wait_and_the_next_run_sends_them(line, run, monkeypatch):
    monkeypatch.setattr(command, "_LAST_ONCE_S", 0.1)
    port = free_port()
    url = f"http://127.0.0.1:{port}/verdicts"
    status, _, err = run(*WATCH, "--out", "results.jsonl", "--webhook", url)
    assert status == 1
    assert "2 messages did not arrive; the next run sends them" in err
    assert "messages that are sent next time: 2 for webhook" in err
    assert "2 messages of an earlier run are waiting for --webhook, which was not given" in run(*WATCH)[2]
    monkeypatch.undo()
    monkeypatch.chdir(line)
    with Receiver(port) as receiver:
        journal = command.Journal(line / "in" / ".roi-anomaly-watch")
        delivery = Delivery(journal, command.Webhook(url, None), lambda _: None)
        delivery.start()
        delivery.close(10)
        journal.close()
    assert receiver.bodies == [json.loads(text) for text in (line / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["layout.json", "nowhere"], "no such folder"),
        (["missing.json", "in"], "cannot be read"),
        (["layout.json", "in", "--copy"], "--copy needs a folder"),
        (["layout.json", "in", "--ok", "in"], "files cannot be moved into the folder that they come from"),
        (["layout.json", "in", "--ok", "."], "files cannot be moved into the folder that they come from"),
        (["layout.json", "in", "--settle", "-1"], "not a number of seconds"),
        (["layout.json", "in", "--settle", "nan"], "not a number of seconds"),
        (["layout.json", "in", "--out", "results.txt"], "use .csv or .jsonl"),
        (["layout.json", "in", "--out", "results.jsonl", "--excel"], "--excel needs a CSV file"),
        (["layout.json", "in", "--webhook", "mes.example"], "--webhook: give an address"),
        (["layout.json", "in", "--mqtt", "broker"], "--mqtt: give an address"),
        (["layout.json", "in", "--url", "host:8000"], "--url: give an address"),
        (["line 1", "in", "--recipe", "line 2"], "--recipe needs a layout file"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_done(work, run, arguments, said):
    (work / "in").mkdir()
    (work / "layout.json").write_text(layout_of(ROI))
    status, out, err = run("watch", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert list((work / "in").iterdir()) == []


def test_a_recipe_that_was_never_drawn_says_where_it_was_looked_for(work, run):
    (work / "in").mkdir()
    status, _, err = run("watch", "line 9", "in")
    assert status == 1
    assert "no layout of recipe 'line 9' is stored in MODELS_DIR=models" in err


def _signal(number):
    """What this process does when a signal comes. A real one would come to the tests, too."""
    signal.getsignal(number)(number, None)


@pytest.fixture
def interruptible():
    with ctrl_c_is_heard():
        yield


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("interruptible")
@pytest.mark.slow
def test_a_signal_ends_it_after_the_part_in_hand_with_a_summary(line, run, monkeypatch, number, status):
    really = watching.prepare

    def then_stop(*arguments):
        if threading.current_thread() is threading.main_thread():
            _signal(number)
        return really(*arguments)

    monkeypatch.setattr(watching, "prepare", then_stop)
    found, out, err = run(*[argument for argument in WATCH if argument != "--once"], "--ok", "ok")
    assert found == status
    assert len(out.splitlines()) == 1
    assert "1 part: " in err
    monkeypatch.setattr(watching, "prepare", really)
    assert len(run(*WATCH)[1].splitlines()) == 1


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_ends_at_once():
    def signalled_twice():
        with _stopping() as stopping:
            _signal(signal.SIGINT)
            assert stopping.is_set()
            _signal(signal.SIGINT)
            pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        signalled_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _stopping() as stopping:
        assert not stopping.is_set()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_service_that_is_not_there_is_waited_for_and_once_gives_up(work, run, monkeypatch):
    monkeypatch.setattr(command, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(command, "_LONGEST_WAIT_S", 0.01)
    (work / "in").mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    status, _, err = run("watch", "line 1", "in", "--once", "--url", url)
    assert status == 1
    assert err.count("does not answer (ConnectError). The command tries again until it works.") == 1
    threading.Timer(0.3, _signal, (signal.SIGTERM,)).start()
    began = time.monotonic()
    assert run("watch", "line 1", "in", "--url", url)[0] == 143
    assert time.monotonic() - began < 30


def test_no_engine_is_loaded_where_a_service_judges(work, run, monkeypatch):
    monkeypatch.setattr(command, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(ModelStore, "load", lambda *_: pytest.fail("the engine was asked"))
    monkeypatch.setattr(command.InspectionService, "open", lambda *_: pytest.fail("the engine was loaded"))
    (work / "in").mkdir()
    assert run("watch", "line 1", "in", "--once", "--url", f"http://127.0.0.1:{free_port()}")[0] == 1
