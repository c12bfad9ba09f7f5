"""`detail` over HTTP: what a form may say, and which replies tell it."""

import cv2
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
FIT = {**IDS, "mm_per_px": "0.2"}


@pytest.fixture(scope="module")
def files(images):
    small = [cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA) for image in images[:3]]
    pngs = [cv2.imencode(".png", image)[1].tobytes() for image in small]
    return [("images", (f"{number}.png", png)) for number, png in enumerate(pngs)]


@pytest.fixture
def client(features, block_features, tmp_path):
    settings = Settings(models_dir=tmp_path / "models", min_ok_samples=3)
    service = InspectionService(settings, features, ModelStore(settings.models_dir), recommended=block_features)
    with TestClient(create_app(settings, service)) as client:
        yield client


def fit(client, files, **fields):
    reply = client.post("/fit_ok", data={**FIT, **fields}, files=files)
    assert reply.status_code == 200, reply.text
    return reply.json()


def infer(client, files, **fields):
    reply = client.post("/infer", data={**FIT, **fields}, files=[("image", files[0][1])])
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_fit_tells_its_detail_and_so_does_every_reply_of_its_model(client, files):
    body = fit(client, files, detail="3")
    assert (body["detail"], body["token_shape"], body["n_embeddings"]) == (3, [20, 20], 1200)
    assert "detail_reason" not in body
    inferred = infer(client, files)
    assert (inferred["model"]["detail"], inferred["token_shape"]) == (3, [20, 20])
    assert client.get("/state", params=IDS).json()["model"]["detail"] == 3
    assert client.get("/bank", params=IDS).json()["model"]["detail"] == 3
    (roi,) = client.get("/rois").json()["rois"]
    assert (roi["status"], roi["model"]["detail"]) == ("ok", 3)
    explained = client.post("/explain", data=FIT, files=[("image", files[0][1])]).json()
    assert explained["model"]["detail"] == 3
    assert client.get("/health").json()["token_shape"] == [8, 8], "of the network, not of a ROI"


@pytest.mark.parametrize("detail", [{}, {"detail": "1"}, {"detail": ""}])
def test_nothing_is_said_of_detail_1(client, files, detail):
    body = fit(client, files, **detail)
    assert body["token_shape"] == [8, 8]
    replies = [body, infer(client, files)["model"], client.get("/rois").json()["rois"][0]["model"]]
    assert all("detail" not in reply for reply in replies)


@pytest.mark.parametrize("detail", ["0", "6", "-1", "x", "2.5", "1e0", "AUTO"])
def test_another_detail_is_refused(client, files, detail):
    reply = client.post("/fit_ok", data={**FIT, "detail": detail}, files=files)
    assert reply.status_code == 422
    assert "detail: a whole number from 1 to 5, or auto" in reply.json()["error"]


@pytest.mark.parametrize("length", ["0", "-1", "nan", "1e7", "two"])
def test_a_length_that_is_none_is_refused(client, files, length):
    reply = client.post("/fit_ok", data={**FIT, "detail": "auto", "smallest_defect_mm": length}, files=files)
    assert reply.status_code == 422
    assert "smallest_defect_mm" in reply.json()["error"]


def test_auto_says_what_it_chose_and_why(client, files):
    # 160 pixels of 0.2 mm: at detail 2 a token is 11.4 pixels.
    body = fit(client, files, detail="auto", smallest_defect_mm="1.4")
    assert (body["detail"], body["token_shape"]) == (2, [14, 14])
    assert body["detail_reason"] == (
        "detail=2: a defect of 1.4 mm is 7 pixels long, and a token 11.4: it covers 0.61 tokens"
    )
    body = fit(client, files, detail="auto")
    assert "detail" not in body
    assert body["detail_reason"] == "detail=1: the 160 pixels of the ROI's longer side are shrunk 1.4 times"


def test_an_append_with_another_detail_is_refused(client, files):
    fit(client, files[:2], detail="2")
    assert fit(client, files[2:], append="true")["detail"] == 2
    reply = client.post("/fit_ok", data={**FIT, "append": "true", "detail": "1"}, files=files)
    assert reply.status_code == 422
    assert "append keeps the detail of the model, 2: leave detail out, or fit anew" in reply.json()["error"]


def test_stored_images_are_fitted_in_tiles_too(client, files):
    for _, (name, png) in files:
        client.post("/datasets/ok/upload", data=IDS, files=[("images", (name, png))])
    reply = client.post("/fit_ok", data={**FIT, "use_dataset": "true", "detail": "2"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["detail"] == 2


def test_drift_and_calibration_go_on_as_before(client, files):
    scores = fit(client, files, detail="2", profile="recommended")["ok_scores"]
    calibrated = client.post("/calibrate_ng", json={**IDS, "mm_per_px": 0.2, "ok_scores": scores}).json()
    assert calibrated["score_percentile"] == 100
    assert infer(client, files)["decision"] in ("ok", "ng")
    assert client.get("/drift", params=IDS).status_code == 200
