"""The judgements that are kept, over HTTP."""

import cv2
import numpy as np
import pytest

from backend.common.errors import StorageError
from backend.disk.judgements import Judgement, JudgementFiles, NewJudgement
from tests.api.sending import IDS, PARTS, check_refusal, infer, listed
from tests.factories import KEY, smooth_parts

FULL, INFER = "full-key-of-the-line", "infer-key-of-the-line"


def keep(root, *decisions):
    """Judgements of the seconds from 1,000,000,000 on."""
    kept = [
        NewJudgement(Judgement(1e9 + number, 0.5, 0.6, decision, 0.2, "9f86", None), b"\xff\xd8")
        for number, decision in enumerate(decisions)
    ]
    JudgementFiles(root).add(KEY, kept, 1000)


@pytest.mark.slow
def test_what_infer_found_is_kept_with_a_thumbnail(inspecting):
    client, service = inspecting(history=10)
    client.post("/calibrate_ng", json={**IDS, "mm_per_px": 0.2, "ok_scores": [0.0001]})
    replies = [infer(client, part) for part in PARTS]
    service.history.flush()
    body = listed(client)
    assert (body["keeps"], len(body["judgements"])) == (10, 3)
    assert "next" not in body
    for kept, reply in zip(body["judgements"], reversed(replies), strict=True):
        assert {name: kept[name] for name in ("score", "threshold", "decision", "request_id")} == {
            name: reply[name] for name in ("score", "threshold", "decision", "request_id")
        }
        assert (kept["mm_per_px"], kept["memory_id"]) == (0.2, reply["model"]["memory_id"])
    picture = client.get("/history/thumbnail", params={**IDS, "number": body["judgements"][0]["number"]})
    assert picture.headers["content-type"] == "image/jpeg"
    shown = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(shown.astype(int) - smooth_parts(3)[2]).mean() < 12


@pytest.mark.slow
def test_trials_and_other_endpoints_leave_no_judgement(inspecting):
    client, service = inspecting(history=10)
    infer(client, trial="true")
    client.post("/explain", data={**IDS, "mm_per_px": 0.2}, files={"image": ("a.png", PARTS[0])})
    client.post("/datasets/ok/upload", data=IDS, files=[("images", ("a.png", PARTS[0]))])
    client.post("/infer_dataset", json={**IDS, "default_mm_per_px": 0.2})
    client.post("/infer", data={**IDS, "mm_per_px": 0.2}, files={"image": ("a.png", PARTS[0][:99])})
    service.history.flush()
    assert listed(client)["judgements"] == []
    infer(client)
    service.history.flush()
    (kept,) = listed(client)["judgements"]
    assert not {"threshold", "decision"} & kept.keys(), "before a calibration"


@pytest.mark.slow
def test_without_the_setting_nothing_is_kept_and_replies_are_the_same(inspecting, tmp_path):
    client, service = inspecting(history=5)
    kept = infer(client)
    off, without = inspecting()
    reply = infer(off)
    without.history.flush()
    service.history.flush()
    assert {**reply, "request_id": ""} == {**kept, "request_id": ""}
    assert listed(off)["keeps"] == 0
    assert len(listed(off)["judgements"]) == 1, "what was kept before can be read"


@pytest.mark.slow
def test_a_full_disk_fails_no_inference(inspecting, monkeypatch):
    client, service = inspecting(history=5)

    def full(*_):
        raise StorageError("the history cannot be stored (database or disk is full)")

    monkeypatch.setattr(JudgementFiles, "add", full)
    first = infer(client)
    service.history.flush()
    assert infer(client)["score"] == first["score"]
    monkeypatch.undo()
    service.history.flush()
    assert len(listed(client)["judgements"]) == 2


def test_only_full_keys_read_the_history(calling, tmp_path):
    keep(tmp_path / "models", "ok")
    client = calling(api_keys=FULL, infer_keys=INFER)
    for path, more in (("/history", {}), ("/history/thumbnail", {"number": 1})):
        params = {**IDS, **more}
        assert client.get(path, params=params).status_code == 401
        check_refusal(client.get(path, params=params, headers={"X-API-Key": INFER}), 403, "needs a full API key")
        assert client.get(path, params=params, headers={"X-API-Key": FULL}).status_code == 200


def test_decisions_times_and_pages_can_be_asked_for(calling, tmp_path):
    keep(tmp_path / "models", "ok", "ng", "ok", "ng", "ok")
    client = calling()
    assert [kept["decision"] for kept in listed(client, decision="NG")["judgements"]] == ["ng", "ng"]
    first = listed(client)["judgements"][-1]
    assert first["at_utc"] == "2001-09-09T01:46:40.000000+00:00"
    for since in ("2001-09-09T01:46:43", "2001-09-09T01:46:43Z", "2001-09-09T03:46:43+02:00"):
        assert [kept["number"] for kept in listed(client, since_utc=since)["judgements"]] == [5, 4], since
    until = "/history?role_id=Master1&roi_id=Pattern&until_utc=2001-09-09T01:46:42+00:00"
    assert [kept["number"] for kept in client.get(until).json()["judgements"]] == [2, 1], "a plus that is a blank"
    page = listed(client, limit=2)
    assert ([kept["number"] for kept in page["judgements"]], page["next"]) == ([5, 4], 4)
    page = listed(client, limit=3, before=page["next"])
    assert [kept["number"] for kept in page["judgements"]] == [3, 2, 1]
    assert "next" not in page


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1001}, {"before": 0}, {"before": 2**63}, {"decision": "bad"}, {"since_utc": "yesterday"}],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused(calling, query):
    check_refusal(calling().get("/history", params={**IDS, **query}), 422, next(iter(query)))


def test_a_thumbnail_that_is_not_kept_is_not_found(calling):
    reply = calling().get("/history/thumbnail", params={**IDS, "number": 7})
    check_refusal(reply, 404, "judgement 7")
    assert reply.json()["code"] == "judgement_not_found"


def test_a_damaged_history_says_so(calling, tmp_path):
    keep(tmp_path / "models", "ok")
    JudgementFiles(tmp_path / "models").path(KEY).write_bytes(b"text" * 1000)
    reply = calling().get("/history", params=IDS)
    check_refusal(reply, 500, "history")
    assert reply.json()["code"] == "storage_failed"
