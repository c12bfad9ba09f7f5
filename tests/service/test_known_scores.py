"""Scores of stored images without inferring: those of the fit and of the last calibration, honest or not."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.disk import file_hashes
from backend.disk.datasets import Sample
from backend.service import known_scores
from backend.service.inspection import InspectionService
from backend.utils import ImageLimits, decode_image
from tests.factories import encoded, service_with, smooth_parts, with_one_pixel_changed

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
LIMITS = ImageLimits(1 << 20, 1 << 20)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def features(small_features):
    return small_features


@pytest.fixture
def client(features, tmp_path):
    service = service_with(features, tmp_path)
    return TestClient(create_app(service.settings, service), raise_server_exceptions=False)


@pytest.fixture
def parts():
    """Good parts, and one with a spot."""
    good = smooth_parts(5)
    spot = good[0].copy()
    spot[40:60, 40:60] = 255
    return [encoded(image) for image in (*good, spot)]


def upload(client, label, *contents):
    files = [("images", (f"{number}.png", content)) for number, content in enumerate(contents)]
    reply = client.post(f"/datasets/{label}/upload", data=IDS, files=files)
    assert reply.status_code == 200, reply.text
    return reply.json()["files"]


def fit(client, *contents):
    files = [("images", (f"{number}.png", content)) for number, content in enumerate(contents)]
    reply = client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2}, files=files)
    assert reply.status_code == 200, reply.text
    return reply.json()


def calibrate(client, **more):
    reply = client.post("/calibrate_dataset", json={**IDS, "default_mm_per_px": 0.2, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def asked(client, **query):
    reply = client.get("/datasets/scores", params={**IDS, **query})
    assert reply.status_code == 200, reply.text
    return reply.json()


def by_name(body):
    return {image["filename"]: image for image in body["images"]}


def inferred(client):
    items = client.post("/infer_dataset", json={**IDS, "default_mm_per_px": 0.2}).json()["items"]
    return {item["filename"]: item["score"] for item in items}


def test_a_roi_that_was_never_fitted_has_no_scores(client, parts):
    upload(client, "ok", *parts[:2])
    reply = client.get("/datasets/scores", params=IDS)
    assert (reply.status_code, reply.json()["code"]) == (400, "not_fitted")


def test_before_a_calibration_only_images_of_the_fit_have_scores(client, parts, monkeypatch):
    good = upload(client, "ok", *parts[:4])
    (fresh,) = upload(client, "ok", parts[4])
    (bad,) = upload(client, "ng", parts[5])
    fitted = fit(client, *parts[:4])
    monkeypatch.setattr(InspectionService, "run_engine", lambda *_, **__: pytest.fail("something was inferred"))
    body = asked(client)
    images = by_name(body)
    assert list(images) == [*good, fresh, bad]
    assert [images[name]["score"] for name in good] == fitted["ok_scores"]
    for name in good:
        assert (images[name]["known"], images[name]["honest"], images[name]["in_fit"]) == (True, True, True)
    for name in (fresh, bad):
        assert not images[name]["known"]
        assert not {"score", "honest", "in_fit"} & images[name].keys()
    assert (body["n_total"], body["n_unknown"], body["calibration"]) == (6, 2, "none")
    assert "threshold" not in body


def test_after_a_calibration_every_score_is_the_one_that_infer_gives(client, parts):
    good = upload(client, "ok", *parts[:4])
    (fresh,) = upload(client, "ok", parts[4])
    (bad,) = upload(client, "ng", parts[5])
    fitted = fit(client, *parts[:4])
    calibrated = calibrate(client)
    body = asked(client)
    images, scores = by_name(body), inferred(client)
    assert (body["n_unknown"], body["threshold"], body["score_percentile"]) == (0, calibrated["threshold"], 99)
    for name in (fresh, bad):
        assert (images[name]["score"], images[name]["honest"], images[name]["in_fit"]) == (scores[name], True, False)
    assert [images[name]["score"] for name in good] == fitted["ok_scores"]
    stored = client.get("/manifest", params=IDS).json()["calib"]
    assert body["calib"] == {name: value for name, value in stored.items() if value is not None}
    assert all(scores[name] < images[name]["score"] for name in good), "by its own bank an image scores too low"


@pytest.mark.parametrize("options", [{"score_percentile": 95}, {"score_percentile": 100}, {"choose_percentile": True}])
def test_scores_are_those_of_the_percentile_that_judges(client, parts, options):
    upload(client, "ok", *parts[:5])
    (bad,) = upload(client, "ng", parts[5])
    fit(client, *parts[:4])
    calibrate(client, **options)
    assert by_name(asked(client))[bad]["score"] == inferred(client)[bad]
    assert asked(client)["score_percentile"] == options.get("score_percentile", 99)


def test_scores_are_known_where_regions_decide(client, parts):
    upload(client, "ok", *parts[:5])
    (bad,) = upload(client, "ng", parts[5])
    fit(client, *parts[:4])
    calibrate(client, decide_by="either")
    body = asked(client)
    assert by_name(body)[bad]["score"] == inferred(client)[bad]
    assert (body["decide_by"], body["n_unknown"]) == ("either", 0)


def test_image_of_the_fit_with_another_mask_has_no_honest_score(client, parts):
    mask = '{"shape_json": "{\\"kind\\":\\"rect\\",\\"x\\":0,\\"y\\":0,\\"w\\":50,\\"h\\":50}", "mm_per_px": 0.2}'
    files = [("images", ("0.png", parts[0]))]
    (name,) = client.post("/datasets/ok/upload", data={**IDS, "metas": mask}, files=files).json()["files"]
    fit(client, *parts[:4])
    assert by_name(asked(client))[name] == {
        "label": "ok", "filename": name, "uploaded_as": "0.png", "known": False, "in_fit": True
    }  # fmt: skip
    calibrate(client, require_ng=False)
    image = by_name(asked(client))[name]
    assert (image["score"], image["honest"], image["in_fit"]) == (inferred(client)[name], False, True)


def test_near_copy_of_an_image_of_the_fit_is_not_honest(client, parts):
    (copy,) = upload(client, "ok", with_one_pixel_changed(parts[0]))
    fit(client, *parts[:4])
    calibrate(client, require_ng=False)
    image = by_name(asked(client))[copy]
    assert (image["known"], image["honest"], image["in_fit"]) == (True, False, False)


def test_images_without_recorded_pixels_are_known_by_their_files(client, parts, tmp_path, monkeypatch):
    (name,) = upload(client, "ok", parts[0])
    (stored,) = tmp_path.rglob(name)
    own = stored.with_name("own.png")
    own.write_bytes(parts[1])
    fitted = fit(client, *parts[:4])
    monkeypatch.setattr(known_scores, "_READS_FOR_S", 0.0)
    assert not by_name(asked(client))["own.png"]["known"], "no time to read it"
    monkeypatch.setattr(known_scores, "_READS_FOR_S", 60.0)
    assert by_name(asked(client))["own.png"]["score"] == fitted["ok_scores"][1]
    monkeypatch.setattr(file_hashes, "read_whole", lambda _: pytest.fail("read again"))
    assert by_name(asked(client))["own.png"]["score"] == fitted["ok_scores"][1]


def test_a_damaged_image_is_listed_with_its_error(client, parts, tmp_path):
    first, second = upload(client, "ok", parts[0], parts[1])
    fit(client, *parts[:4])
    next(tmp_path.rglob(f"{first}.json")).write_text("{")
    images = by_name(asked(client))
    assert (images[first]["known"], images[first]["code"]) == (False, "storage_failed")
    assert images[second]["known"]


def test_listing_again_reads_no_metadata(client, parts, monkeypatch):
    upload(client, "ok", *parts[:3])
    fit(client, *parts[:3])
    before = asked(client)
    monkeypatch.setattr(Sample, "metadata_bytes", lambda sample: pytest.fail(f"{sample.name} was read again"))
    assert asked(client)["images"] == before["images"]
    assert before["n_unknown"] == 0


def test_classes_and_pages_can_be_asked_for(client, parts):
    good = upload(client, "ok", *parts[:4])
    bad = upload(client, "ng", parts[5])
    fit(client, *parts[:4])
    assert list(by_name(asked(client, label="NG"))) == bad
    pages = [asked(client, offset=offset, limit=3) for offset in (0, 3)]
    assert [name for page in pages for name in by_name(page)] == [*good, *bad]
    assert {page["n_total"] for page in pages} == {5}
    assert client.get("/datasets/scores", params={**IDS, "limit": 10_001}).status_code == 422


def test_a_16_bit_image_is_known_by_its_file(client, parts):
    wide = [encoded(decode_image(part, "a", LIMITS).astype(np.uint16) * 16) for part in parts[:4]]
    names = upload(client, "ok", *wide)
    fitted = fit(client, *wide)
    images = by_name(asked(client))
    assert [images[name].get("score") for name in names] == fitted["ok_scores"]
