"""``decide_by`` and ``why`` over HTTP: what is replied where they are asked for, and that nothing changes elsewhere."""

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
NEW = {"decide_by", "pixel_threshold", "why"}


@pytest.fixture
def client(features, block_features, tmp_path):
    settings = Settings(models_dir=tmp_path / "models", min_ok_samples=2)
    service = InspectionService(settings, features, ModelStore(settings.models_dir), recommended=block_features)
    with TestClient(create_app(settings, service), raise_server_exceptions=False) as client:
        yield client


def part(images, number):
    small = cv2.resize(images[number], (96, 96), interpolation=cv2.INTER_AREA)
    return "images", (f"{number}.png", cv2.imencode(".png", small)[1].tobytes(), "image/png")


@pytest.fixture
def fitted(client, images):
    """Two OK images and an NG one are stored, and a bank of the recommended profile was fitted on the OK ones."""
    files = [part(images, 0), part(images, 1)]
    assert client.post("/datasets/ok/upload", data=IDS, files=files).status_code == 200
    assert client.post("/datasets/ng/upload", data=IDS, files=[part(images, 4)]).status_code == 200
    fields = {**IDS, "mm_per_px": "0.2", "use_dataset": "true", "profile": "recommended"}
    assert client.post("/fit_ok", data=fields).status_code == 200
    return client


def infer(client, images, path="/infer", **fields):
    sent = part(images, 4)[1]
    reply = client.post(path, data={**IDS, "mm_per_px": "0.2", **fields}, files=[("image", sent)])
    assert reply.status_code == 200, reply.text
    return reply.json()


def calibrate(client, **members):
    body = {**IDS, "default_mm_per_px": 0.2, "area_mm2_thr": 1.0, **members}
    return client.post("/calibrate_dataset", json=body)


@pytest.mark.slow
def test_calibrated_by_regions_every_reply_says_so(fitted, images):
    told = calibrate(fitted, decide_by="either", rule="recommended").json()
    assert told["decide_by"] == "either"
    assert told["pixel_why"].startswith("about 1.25 % of good parts score above")
    for reply in (infer(fitted, images), infer(fitted, images, "/explain", pictures="false")):
        assert (reply["decide_by"], reply["pixel_threshold"]) == ("either", told["pixel_threshold"])
        assert reply["threshold"] == told["threshold"]
        assert "the pixel threshold" in reply["why"]
    (item,) = fitted.post("/infer_dataset", json={**IDS, "labels": ["ng"], "default_mm_per_px": 0.2}).json()["items"]
    assert {name: item[name] for name in NEW} == {name: reply[name] for name in NEW}
    calib = fitted.get("/manifest", params=IDS).json()["calib"]
    assert (calib["decide_by"], calib["threshold"]) == ("either", told["threshold"])


@pytest.mark.slow
def test_without_being_asked_for_replies_stay_as_they_are(fitted, images):
    assert not {name for name in calibrate(fitted).json() if name == "decide_by" or name.startswith("pixel")}
    assert not NEW & infer(fitted, images).keys()
    asked = infer(fitted, images, why="true")
    assert NEW & asked.keys() == {"why"}
    body = {**IDS, "labels": ["ng"], "default_mm_per_px": 0.2}
    assert not NEW & fitted.post("/infer_dataset", json=body).json()["items"][0].keys()
    (item,) = fitted.post("/infer_dataset", json={**body, "why": True}).json()["items"]
    assert item["why"] == asked["why"]


@pytest.mark.slow
def test_a_pixel_threshold_by_hand_rejects_by_the_largest_region(fitted, images):
    reply = calibrate(fitted, decide_by="region", pixel_threshold=0.05)
    assert reply.json()["rule"] == "manual"
    rejected = infer(fitted, images)
    assert rejected["decision"] == "ng"
    assert f"{rejected['regions'][0]['area_mm2']:.3g} mm²" in rejected["why"]
    calibrate(fitted, decide_by="region", pixel_threshold=2.5)
    accepted = infer(fitted, images)
    assert (accepted["decision"], accepted["regions"]) == ("ok", [])
    assert accepted["why"].startswith("No pixel reaches the pixel threshold 2.50")


@pytest.mark.parametrize("members", [{"decide_by": "region"}, {"decide_by": "either"}, {"pixel_threshold": 0.5}])
def test_scores_alone_cannot_say_where_regions_stand(client, members):
    body = {**IDS, "mm_per_px": 0.2, "ok_scores": [0.4, 0.5], **members}
    reply = client.post("/calibrate_ng", json=body)
    assert reply.status_code == 422
    assert "use /calibrate_dataset" in reply.json()["error"]
    assert client.get("/state", params=IDS).json()["calib_present"] is False


def test_an_unknown_way_to_decide_is_refused(client):
    reply = calibrate(client, decide_by="regions")
    assert reply.status_code == 422
    assert "decide_by" in reply.json()["error"]


def test_scores_that_decide_as_ever_may_be_named(client):
    body = {**IDS, "mm_per_px": 0.2, "ok_scores": [0.4, 0.5]}
    named, plain = (client.post("/calibrate_ng", json={**body, **more}).json() for more in ({"decide_by": "score"}, {}))
    assert {**named, "request_id": ""} == {**plain, "request_id": ""}
    assert np.isclose(named["threshold"], 0.499)
