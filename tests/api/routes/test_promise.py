"""Promises and target rates in requests and replies."""

import cv2
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.calib import ThresholdOptions, calibrate, choose_threshold
from backend.common.config import Settings
from backend.scores.recommended_threshold import recommend
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

BODY = {"role_id": "Master1", "roi_id": "Pattern", "mm_per_px": 0.2, "ok_scores": [0.41, 0.44, 0.39]}


@pytest.fixture
def client(features, tmp_path):
    settings = Settings(models_dir=tmp_path)
    with TestClient(create_app(settings, InspectionService(settings, features, ModelStore(tmp_path)))) as client:
        yield client


def test_the_reply_carries_the_promise_and_leaves_out_what_there_is_not(client):
    for more, options in [
        ({"ng_scores": [0.72, 0.66]}, {}),
        ({"ng_scores": None}, {}),
        ({"target_false_reject_rate": 0.01}, {"target_false_reject_rate": 0.01}),
    ]:
        reply = client.post("/calibrate_ng", json={**BODY, **more}).json()
        expected = calibrate(
            BODY["ok_scores"],
            more.get("ng_scores") or [],
            mm_per_px=0.2,
            area_mm2_thr=1,
            score_percentile=99,
            memory_id=None,
            options=ThresholdOptions(**options),
        )
        assert reply["threshold"] == expected.threshold
        assert reply["promise"] == expected.promise.as_dict()
        assert reply.get("target_false_reject_rate") == options.get("target_false_reject_rate")
        assert None not in reply["promise"].values()


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, "0.1", True, 1e-9])
def test_a_target_that_is_no_rate_is_refused(client, rate):
    reply = client.post("/calibrate_ng", json={**BODY, "target_false_reject_rate": rate})
    assert reply.status_code == 422
    assert "target_false_reject_rate" in reply.json()["error"]


@pytest.mark.slow
def test_the_manifest_keeps_the_promise(client, images):
    ids = {"role_id": "Master1", "roi_id": "Pattern"}
    png = cv2.imencode(".png", images[0])[1].tobytes()
    assert client.post("/fit_ok", data={**ids, "mm_per_px": 0.2}, files={"images": png}).status_code == 200
    promise = client.post("/calibrate_ng", json={**BODY, "target_false_reject_rate": 0.001}).json()["promise"]
    assert promise["n_ok_missing"] == 296
    assert "if the scores are ok_scores of the fit or of parts that were not in the fit" in promise["text"]
    assert client.get("/manifest", params=ids).json()["calib"]["promise"] == promise


def test_the_documents_show_what_a_promise_holds(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert "false_reject_rate_at_most" in schemas["PromiseReply"]["properties"]
    assert "choose_percentile" in schemas["CalibrateDatasetRequest"]["properties"]


def test_every_calibration_by_scores_tells_the_recommended_threshold(client):
    scores = [0.41, 0.44, 0.39, 0.42, 0.4, 0.43, 0.75, 0.41, 0.38, 0.42]
    plain = client.post("/calibrate_ng", json={**BODY, "ok_scores": scores}).json()
    named = client.post("/calibrate_ng", json={**BODY, "ok_scores": scores, "rule": "recommended"}).json()
    found = recommend(scores)
    assert "rule" not in plain
    assert plain["threshold"] == choose_threshold(scores)
    for reply in (plain, named):
        assert reply["recommended"] == {
            "threshold": found.threshold,
            "why": found.why,
            "positions": [6],
            "threshold_with_unusual": found.threshold_with_unusual,
        }
    assert (named["rule"], named["threshold"], named["why"]) == ("recommended", found.threshold, found.why)
    assert named["unusual"] == [{"position": 6, "score": 0.75}]
    kept = client.post("/calibrate_ng", json={**BODY, "ok_scores": scores, "rule": "recommended", "keep": [6]}).json()
    assert kept["threshold"] == named["threshold_with_unusual"]
    assert "unusual" not in kept


def test_a_manual_threshold_is_marked_in_the_reply(client):
    reply = client.post("/calibrate_ng", json={**BODY, "threshold": 0.55}).json()
    assert (reply["rule"], reply["threshold"]) == ("manual", 0.55)
    assert reply["promise"]["n_rejected"] == sum(score >= 0.55 for score in BODY["ok_scores"])


def test_two_ways_to_choose_a_threshold_are_refused(client):
    reply = client.post("/calibrate_ng", json={**BODY, "threshold": 0.55, "rule": "recommended"})
    assert reply.status_code == 422
    assert "rule=recommended and threshold cannot be combined" in reply.json()["error"]
