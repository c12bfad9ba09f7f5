"""What the service answers while it starts, where it could not load, and when it is about to end."""

import asyncio
import signal
import threading
import time

import pytest
from starlette.testclient import TestClient

from backend.api import lifecycle as lifecycle_module
from backend.app import create_app
from backend.common.config import Settings
from backend.common.errors import WeightsError
from backend.common.machine import STOP_SIGNAL
from backend.service.inspection import InspectionService


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_not_ready(client, words):
    for reply in (
        client.get("/ready"),
        client.post("/infer"),
        client.post("/fit_ok"),
        client.get("/state?role_id=a&roi_id=b"),
        client.get("/nowhere"),
    ):
        assert reply.status_code == 503
        assert set(reply.json()) == {"error", "trace", "code"}
        assert words in reply.json()["error"]
        assert int(reply.headers["retry-after"]) > 0
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path
    assert client.options("/infer").status_code == 204


@pytest.mark.slow
def test_while_it_starts_health_says_so_and_work_is_asked_to_come_again(service, monkeypatch, tmp_path):
    may_load = threading.Event()

    def open_service(_settings):
        may_load.wait(30)
        return service

    monkeypatch.setattr(InspectionService, "open", open_service)
    monkeypatch.setattr(lifecycle_module, "_STARTS_WITHIN_S", 0.1)
    with TestClient(create_app(Settings(models_dir=tmp_path))) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "starting")
        assert (health.json()["model"], "runtime" in health.json()) == ("vit_small_patch14_dinov2.lvd142m", False)
        check_not_ready(client, "starting")
        monkeypatch.setattr(lifecycle_module, "_STARTS_WITHIN_S", 30)
        threading.Timer(0.2, may_load.set).start()
        assert client.get("/state?role_id=a&roi_id=b").status_code == 200, "a short start is waited for"
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/health").json()["runtime"] == "openvino"
        assert client.get("/state?role_id=a&roi_id=b").status_code == 200


@pytest.mark.parametrize(
    "failure", [WeightsError("no weights in /srv/secret/weights"), OSError("disk"), ValueError("x")]
)
def test_a_load_that_fails_is_told_and_tried_again_until_it_succeeds(service, monkeypatch, tmp_path, failure):
    monkeypatch.setattr(lifecycle_module, "_RETRY_LOAD_AFTER_S", 0.05)
    fails = threading.Event()
    fails.set()

    def open_service(_settings):
        if fails.is_set():
            raise failure
        return service

    monkeypatch.setattr(InspectionService, "open", open_service)
    with TestClient(create_app(Settings(models_dir=tmp_path))) as client:
        wait_until(lambda: client.get("/health").json()["status"] == "failed")
        health = client.get("/health").json()
        assert health["reason"] == str(failure).replace("/srv/secret/weights", "weights")
        check_not_ready(client, health["reason"])
        fails.clear()
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert "reason" not in client.get("/health").json()


def test_a_service_that_runs_gives_back_free_memory_again_and_again(service, monkeypatch):
    returned = []
    monkeypatch.setattr(lifecycle_module, "return_free_memory", lambda: returned.append(time.monotonic()))
    monkeypatch.setattr(lifecycle_module, "_RETURN_MEMORY_EVERY_S", 0.01)
    with TestClient(create_app(service.settings, service)):
        wait_until(lambda: len(returned) >= 3)


def test_below_a_root_path_the_same_questions_are_answered_in_every_state(monkeypatch, tmp_path):
    def open_service(_settings):
        raise WeightsError("no weights")

    monkeypatch.setattr(InspectionService, "open", open_service)
    with TestClient(create_app(Settings(models_dir=tmp_path)), root_path="/api") as client:
        wait_until(lambda: client.get("/api/health").json().get("status") == "failed")
        assert [client.get(f"/api{path}").status_code for path in ("/metrics", "/docs", "/ready")] == [200, 200, 503]
        assert "script-src" in client.get("/api/docs").headers["content-security-policy"]
        assert client.post("/api/infer").status_code == 503
        assert client.post("/api/openapi.json").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("takes_signals", [True, False])
def test_stop_signal_stays_with_the_process_where_the_app_leaves_it(service, takes_signals):
    def of_the_process(_number, _frame):
        raise AssertionError("nobody sends the signal")

    async def handler_while_it_runs():
        app = create_app(service.settings, service, takes_signals=takes_signals)
        async with app.router.lifespan_context(app):
            return signal.getsignal(STOP_SIGNAL)

    before = signal.signal(STOP_SIGNAL, of_the_process)
    try:
        during = asyncio.run(handler_while_it_runs())
        assert (during is of_the_process) is not takes_signals
        assert signal.getsignal(STOP_SIGNAL) is of_the_process
    finally:
        signal.signal(STOP_SIGNAL, before)
