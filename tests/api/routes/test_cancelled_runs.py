"""What HTTP says of a run that somebody cancels: to whoever cancels it, and to whoever waits for it."""

import threading
import time

import pytest

from backend.disk.progress import Run
from tests.api.sending import IDS, check_refusal

DEADLINE_S = 20
KEYS = {"api_keys": "full-key-of-the-line", "infer_keys": "infer-key-of-the-line"}
NEVER = "0" * 32


@pytest.fixture
def fitting(client, crop, monkeypatch):
    """A fit that has embedded one of its two images and goes on as soon as it is told to; and its reply, then."""
    goes_on, replies, report = threading.Event(), [], Run.report

    def hold(run, *progress):
        run.show(dict(zip(("step", "done", "total"), progress, strict=True)))
        assert goes_on.wait(DEADLINE_S)
        report(run, *progress)

    monkeypatch.setattr(Run, "report", hold)
    form = {"data": {**IDS, "mm_per_px": 0.2}, "files": [("images", (name, crop)) for name in ("a.png", "b.png")]}
    thread = threading.Thread(target=lambda: replies.append(client.post("/fit_ok", **form)))
    thread.start()
    while not (runs := client.get("/runs").json()["runs"]) or runs[0]["step"] == "wait":
        time.sleep(0.01)

    def end():
        goes_on.set()
        thread.join(DEADLINE_S)
        return replies[0]

    yield runs[0], end
    end()


def test_cancelled_fit_is_told_to_who_cancels_it_and_to_who_waits_for_it(client, fitting):
    run, end = fitting
    reply = client.post("/runs/cancel", json={"run_id": run["run_id"]}, headers={"X-Request-Id": "cancel-1"})
    assert reply.status_code == 200
    assert reply.json() == {
        **IDS,
        "recipe_id": "default",
        "model_key": "Pattern",
        "request_id": "cancel-1",
        "cancelled": True,
        "run_id": run["run_id"],
        "kind": "fit",
        "step": "extract",
        "done": 1,
        "total": 2,
    }
    ended = end()
    check_refusal(ended, 409, "the run was cancelled (POST /runs/cancel) at step extract, 1 of 2: no model")
    assert ended.json()["code"] == "run_cancelled"
    misread = ("already trained", "already exists", "ya entrenad", "memoria existente")
    assert not [phrase for phrase in misread if phrase in ended.text.lower()]
    assert client.get("/runs").json()["runs"] == []
    assert client.get("/state", params=IDS).json()["memory_fitted"] is False
    again = client.post("/runs/cancel", json={"run_id": run["run_id"]})
    check_refusal(again, 404, f"run '{run['run_id']}' is not under way: it has ended, or never existed")
    assert again.json()["code"] == "run_not_found"


def test_fit_goes_on_where_another_run_is_cancelled(client, fitting):
    _, end = fitting
    check_refusal(client.post("/runs/cancel", json={"run_id": NEVER}), 404, NEVER)
    assert end().status_code == 200


def test_run_that_stores_is_refused_with_a_code_of_its_own(client, fitting, monkeypatch):
    run, end = fitting
    conclude, refused = Run.conclude, []

    def then_cancel(concluded):
        conclude(concluded)
        refused.append(client.post("/runs/cancel", json={"run_id": run["run_id"]}))

    monkeypatch.setattr(Run, "conclude", then_cancel)
    assert end().status_code == 200
    check_refusal(
        refused[0], 409, "the fit of role 'Master1', roi 'Pattern' is storing its result and can no longer be cancelled"
    )
    assert refused[0].json()["code"] == "run_storing"


@pytest.mark.parametrize(
    ("body", "words"), [({}, "run_id: it is missing"), ({"run_id": ""}, "run_id: "), ({"run_id": 7}, "run_id: ")]
)
def test_request_without_the_id_of_a_run_is_refused(calling, body, words):
    check_refusal(calling().post("/runs/cancel", json=body), 422, words)


def test_members_without_effect_are_named_where_a_run_is_cancelled(client, fitting):
    run, end = fitting
    reply = client.post("/runs/cancel", json={"run_id": run["run_id"], "why": "lunch"})
    assert (reply.json()["cancelled"], reply.json()["warning"]) == (True, "unknown and without effect: 'why'")
    assert end().status_code == 409


def test_only_a_key_that_may_do_everything_cancels_runs(calling):
    client = calling(**KEYS)
    for key, status in ((None, 401), ("infer_keys", 403), ("api_keys", 404)):
        headers = {"X-API-Key": KEYS[key]} if key else {}
        assert client.post("/runs/cancel", json={"run_id": NEVER}, headers=headers).status_code == status
