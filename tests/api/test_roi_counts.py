"""The counts of /health: at most a second old when asked, made when asked, and never in the way of the reply."""

import os
import shutil
import threading
import time
from types import SimpleNamespace

import cv2
import pytest
from starlette.testclient import TestClient

from backend.api import roi_counts
from backend.app import create_app
from backend.common.roi_key import RoiKey
from tests.factories import KEY, store_memory, store_threshold

BOTH = {"drifting_rois", "stale_calibrations"}


@pytest.fixture
def always_fresh(monkeypatch):
    """Nobody waits for a second to pass."""
    monkeypatch.setattr(roi_counts, "_FRESH_S", 0.0)


@pytest.fixture
def client(service):
    with TestClient(create_app(service.settings, service)) as client:
        client.get("/health")  # once the count of the start is there
        yield client


def stale(client):
    return client.get("/health").json().get("stale_calibrations")


@pytest.mark.slow
@pytest.mark.usefixtures("always_fresh")
def test_health_counts_calibrations_that_a_refit_made_stale(client, service, images):
    pngs = [cv2.imencode(".png", image)[1].tobytes() for image in images[:2]]
    ids = {"role_id": "Master1", "roi_id": "Pattern", "mm_per_px": 0.2}

    def fit(number, **more):
        files = [("images", ("a.png", pngs[number], "image/png"))]
        return client.post("/fit_ok", data={**ids, **more}, files=files).json()["calibration"]

    assert fit(0) == "none"
    assert client.post("/calibrate_ng", json={**ids, "ok_scores": [0.5]}).status_code == 200
    assert stale(client) == 0
    assert fit(0) == "applied", "the same images give the same memory"
    assert fit(1) == "stale"
    assert stale(client) == 1
    assert fit(0, recipe_id="line 1") == "none"
    assert client.post("/calibrate_ng", json={**ids, "ok_scores": [0.5]}).status_code == 200
    assert stale(client) == 0
    (service.settings.models_dir / "Master1" / "Pattern" / "calib.json").write_text("{")
    assert stale(client) == 1
    assert fit(1) == "none", "a damaged one is set aside"
    assert stale(client) == 0


@pytest.mark.usefixtures("always_fresh")
def test_counts_are_those_of_the_files_whoever_changed_them(client, tmp_path):
    """Another process fits, calibrates, copies and deletes; what did not change is not read again, and counts on."""
    assert stale(client) == 0
    for number in range(5):
        key = RoiKey("Master1", f"{number}")
        store_memory(tmp_path, 1, key)
        store_threshold(tmp_path, 0.5, key)
    assert stale(client) == 0
    for number in (1, 3):
        store_memory(tmp_path, 2, RoiKey("Master1", f"{number}"))
    assert stale(client) == 2
    shutil.copytree(tmp_path / "Master1" / "3", tmp_path / "Master1" / "copy")
    assert stale(client) == 3
    shutil.rmtree(tmp_path / "Master1" / "1")
    (tmp_path / "Master1" / "0" / "calib.json").write_text("{")
    (tmp_path / "Master1" / "3" / "calib.json").unlink()
    assert stale(client) == 2
    assert stale(client) == 2
    shutil.rmtree(tmp_path / "Master1")
    assert stale(client) == 0


@pytest.mark.usefixtures("always_fresh")
def test_models_in_folders_that_were_left_alone_for_long_are_counted_too(client, tmp_path):
    """Folders that did not change lately are not listed again; what comes into one of them is seen all the same."""
    store_memory(tmp_path, 1)
    store_threshold(tmp_path, 0.5)
    store_memory(tmp_path, 1, RoiKey("Master1", "Pattern", "line 1"))
    long_ago = time.time() - 1000
    for folder in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):
        os.utime(folder, (long_ago, long_ago))
    assert stale(client) == stale(client) == 0
    for key in (KEY, RoiKey("Master1", "New"), RoiKey("New", "Pattern"), RoiKey("Master1", "Pattern", "line 1", "K")):
        store_memory(tmp_path, 1, key)
        store_threshold(tmp_path, 0.5, key)
        store_memory(tmp_path, 2, key)
    assert stale(client) == 4


def test_counts_are_made_when_asked_and_once_a_second_for_all(client, service, monkeypatch):
    asked, now = [], time.monotonic() + 100
    monkeypatch.setattr(service.store, "count_stale", lambda: asked.append(now) or len(asked))
    monkeypatch.setattr(roi_counts, "time", SimpleNamespace(monotonic=lambda: now))
    assert client.get("/ready").status_code == 200
    assert asked == [], "nobody asked"
    assert [stale(client) for _ in range(5)] == [1] * 5
    now += 0.9
    assert stale(client) == 1
    now += 0.1
    assert stale(client) == 2
    assert len(asked) == 2


@pytest.mark.usefixtures("always_fresh")
def test_health_leaves_out_counts_that_take_long_and_all_share_one_count(client, service, monkeypatch):
    may_end, began = threading.Event(), []

    def count():
        began.append(time.monotonic())
        may_end.wait(30)
        return 3

    monkeypatch.setattr(roi_counts, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(service.store, "count_stale", count)
    replies = [client.get("/health").json() for _ in range(3)]
    assert not any(BOTH & reply.keys() for reply in replies)
    assert all(reply["status"] == "ok" for reply in replies)
    assert len(began) == 1
    assert client.get("/ready").status_code == 200
    monkeypatch.setattr(roi_counts, "_PATIENCE_S", 30)
    may_end.set()
    assert stale(client) == 3


@pytest.mark.usefixtures("always_fresh")
@pytest.mark.parametrize("failure", [OSError("Input/output error"), ValueError("what nobody thought of")])
@pytest.mark.parametrize(("fails", "counted"), [("drift", "stale_calibrations"), ("store", "drifting_rois")])
def test_what_cannot_be_counted_is_left_out_of_health_rather_than_old(
    client, service, monkeypatch, fails, counted, failure
):
    def fail():
        raise failure

    assert client.get("/health").json().keys() >= BOTH
    with monkeypatch.context() as patched:
        patched.setattr(getattr(service, fails), "drifting" if fails == "drift" else "count_stale", fail)
        assert BOTH & client.get("/health").json().keys() == {counted}
    assert client.get("/health").json().keys() >= BOTH
