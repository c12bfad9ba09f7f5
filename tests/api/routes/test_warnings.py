"""Requests that can hardly be meant are answered as before, with a warning; others get the replies that they got."""

import json

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.bank.images import BankImage, as_metadata
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import unit_rows

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
KEY = RoiKey(**IDS)
SIDE = 200


def opened(features, folder, **settings):
    return InspectionService(Settings(models_dir=folder, **settings), features, ModelStore(folder))


@pytest.fixture
def service(features, tmp_path):
    """A ROI whose bank was built from an image of 200 × 200 pixels, and that was never calibrated."""
    service = opened(features, tmp_path)
    bank = PatchCoreMemory.build(unit_rows(20, 384, 1), features.token_hw, 1.0)
    images = [BankImage("a.png", "0" * 64, SIDE, SIDE, None, None, {})]
    service.store.save_memory(KEY, bank, {"images": as_metadata(images)})
    return service


@pytest.fixture
def client(service):
    with TestClient(create_app(service.settings, service)) as client:
        yield client


def image(height=SIDE, width=SIDE, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def infer(client, content=None, **fields):
    files = {"image": ("a.png", content or image(), "image/png")}
    reply = client.post("/infer", data={**IDS, "mm_per_px": "0.2", **fields}, files=files)
    assert reply.status_code == 200, reply.text
    return reply.json()


def fit(client, contents, **fields):
    files = [("images", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    reply = client.post("/fit_ok", data={**IDS, "mm_per_px": "0.2", **fields}, files=files)
    assert reply.status_code == 200, reply.text
    return reply.json()


def calibrate(client, **members):
    reply = client.post("/calibrate_ng", json={**IDS, "mm_per_px": 0.2, "ok_scores": [0.4, 0.5], **members})
    assert reply.status_code == 200, reply.text
    return reply.json()


# --- /calibrate_ng


def test_a_calibration_without_peculiarities_has_no_warning(client):
    assert "warning" not in calibrate(client)
    assert "warning" not in calibrate(client, area_mm2_thr=SIDE * SIDE * 0.04, score_percentile=99)


def test_a_share_as_percentile_is_stored_and_told(client):
    reply = calibrate(client, score_percentile=0.99)
    assert reply["score_percentile"] == 0.99
    assert "score_percentile 0.99 is read as percent (0 to 100)" in reply["warning"]
    assert "send 99 " in reply["warning"]


def test_scores_that_no_inference_gives_are_told(client):
    reply = calibrate(client, ok_scores=[90, 97], ng_scores=None)
    assert reply["threshold"] > 2
    assert "2 of 2 ok_scores (90 to 97) are not from 0 to 2" in reply["warning"]


def test_a_limit_above_the_whole_roi_is_told_at_calibration(client):
    reply = calibrate(client, area_mm2_thr=2000)
    assert reply["area_mm2_thr"] == 2000
    assert "area_mm2_thr 2000 mm²" in reply["warning"]
    assert "1600 mm² (200 × 200 pixels of 0.2 mm)" in reply["warning"]


def test_a_configured_limit_is_told_by_its_own_name(features, tmp_path, service):
    with TestClient(create_app(service.settings, opened(features, tmp_path, area_mm2_thr=3000))) as client:
        assert "AREA_MM2_THR 3000 mm²" in calibrate(client)["warning"]


def test_a_calibration_of_a_roi_that_was_never_fitted_is_told(client):
    reply = calibrate(client, roi_id="Other")
    assert "no model is fitted for" in reply["warning"]
    assert "Other" in reply["warning"]


def test_unknown_members_are_named_with_the_nearest_known_one(client):
    reply = calibrate(client, area_mm2=3, limit=0.7)
    assert reply["area_mm2_thr"] == 1
    assert reply["warning"] == "unknown and without effect: 'area_mm2' (did you mean area_mm2_thr?), 'limit'"


def test_members_that_existing_clients_send_are_no_reason_to_warn(client):
    reply = calibrate(client, request_id="1", recipe_id="default", model_key="Pattern", source_path="c:/a.png", angle=0)
    assert "warning" not in reply


def test_several_warnings_are_one_text(client):
    reply = calibrate(client, ng_scores=[0.45], score_percentile=0.99, area_mm2_thr=2000, foo=1)
    parts = reply["warning"].split("; ")
    starts = ("OK and NG scores overlap", "score_percentile 0.99", "area_mm2_thr 2000", "unknown and without effect")
    assert [start for start in starts for part in parts if part.startswith(start)] == list(starts)


@pytest.mark.parametrize("name", ["ä" * 100, "a\u0000b", '"; DROP', "x" * 10_000])
def test_odd_names_are_told_in_short_and_plain_text(client, name):
    warning = calibrate(client, **{name: 1})["warning"]
    assert warning.isascii()
    assert warning.isprintable()
    assert len(warning) < 400


def test_of_many_unknown_members_five_are_named(client):
    warning = calibrate(client, **{f"member{number}": 0 for number in range(30)})["warning"]
    assert "'member4' and 25 more" in warning
    assert "member5" not in warning


# --- /infer


def test_an_inference_without_peculiarities_has_no_warning(client):
    assert "warning" not in infer(client)
    calibrate(client)
    reply = infer(client, model_key="Pattern", recipe_id="default", shape="")
    assert "warning" not in reply


def test_an_unknown_field_of_a_form_is_named(client):
    reply = infer(client, mm_per_pixel="0.3", threshold="0.7")
    assert reply["warning"] == "unknown and without effect: 'mm_per_pixel' (did you mean mm_per_px?), 'threshold'"


def test_a_limit_above_the_image_is_told_where_it_applies(client):
    calibrate(client, area_mm2_thr=2000)
    reply = infer(client)
    assert (reply["decision"], reply["regions"]) == ("ng", [])
    assert "the calibration's area_mm2_thr 2000 mm² is larger than the whole ROI" in reply["warning"]


def test_an_image_of_another_size_is_judged_and_told(client):
    reply = infer(client, image(SIDE * 2 + 1, SIDE * 2))
    assert reply["score"] > 0
    assert "the image has 400 × 401 pixels, but those of the fit have 200 × 200" in reply["warning"]
    assert "warning" not in infer(client, image(SIDE * 2, SIDE))


@pytest.mark.parametrize(
    "images",
    [[{"height": "a", "width": 3}], [7], [{}], [{"height": True, "width": 0}], [{"height": [9], "width": 9}]],
)
def test_damaged_sizes_in_a_bank_tell_nothing(service, images):
    bank = PatchCoreMemory.build(unit_rows(20, 384, 2), service.features.token_hw, 1.0)
    service.store.save_memory(KEY, bank, {"images": images})
    with TestClient(create_app(service.settings, service)) as client:
        assert "warning" not in infer(client, image(900, 50))


def test_a_share_as_configured_percentile_is_told_everywhere(features, tmp_path, service):
    with TestClient(create_app(service.settings, opened(features, tmp_path, score_percentile=0.99))) as client:
        fitted = fit(client, [image(seed=1), image(seed=2)])
        for reply in (fitted, infer(client), calibrate(client)):
            assert "SCORE_PERCENTILE 0.99 is read as percent" in reply["warning"]


# --- /fit_ok


def test_a_fit_without_peculiarities_has_no_warning(client):
    reply = fit(client, [image(seed=1), image(seed=2)], memory_fit="false", model_key="Pattern")
    assert "warning" not in reply
    assert len(reply["ok_scores"]) == 2


@pytest.mark.parametrize(("seeds", "said"), [([1], "1 image has no others"), ([1, 1, 1], "3 copies of one image")])
def test_a_fit_tells_why_one_image_has_no_score(client, seeds, said):
    reply = fit(client, [image(seed=seed) for seed in seeds])
    assert "ok_scores" not in reply
    assert reply["warning"].startswith("no ok_scores: ")
    assert said in reply["warning"]


def test_append_with_another_mask_tells_why_there_are_no_scores(client):
    fit(client, [image(seed=1), image(seed=2)])
    circle = json.dumps({"kind": "circle", "cx": 100, "cy": 100, "r": 90})
    reply = fit(client, [image(seed=1), image(seed=3)], append="true", shape=circle)
    assert "ok_scores" not in reply
    assert "1 of 2 images are from an earlier fit, which scored them with another mask" in reply["warning"]


def test_an_unknown_field_of_a_fit_is_named(client):
    reply = fit(client, [image(seed=1), image(seed=2)], memoryfit="true")
    assert reply["warning"] == "unknown and without effect: 'memoryfit' (did you mean memory_fit?)"


# --- stored images


def test_a_calibration_from_stored_images_tells_the_same(client):
    for label, seeds in (("ok", (1, 2)), ("ng", (3,))):
        files = [("images", (f"{seed}.png", image(seed=seed), "image/png")) for seed in seeds]
        metas = [("metas", (None, json.dumps({"mm_per_px": 0.2}), "application/json"))] * len(files)
        assert client.post(f"/datasets/{label}/upload", data=IDS, files=[*files, *metas]).status_code == 200
    plain = client.post("/calibrate_dataset", json=IDS).json()
    odd = client.post("/calibrate_dataset", json={**IDS, "area_mm2_thr": 2000, "requireng": True}).json()
    before = [plain["warning"]] if "warning" in plain else []
    assert "area_mm2_thr 2000 mm² is larger than the whole ROI" in odd["warning"]
    assert odd["warning"].endswith("unknown and without effect: 'requireng' (did you mean require_ng?)")
    assert "area_mm2_thr" not in "".join(before)
