"""Replies that name a stored image give the name that it came with, too."""

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from tests.factories import encoded, service_with

ROI = {"role_id": "Master1", "roi_id": "Pattern"}
WITH_SCALE = {**ROI, "default_mm_per_px": 0.2}


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def client(small_features, models):
    service = service_with(small_features, models, min_ok_samples=2)
    with TestClient(create_app(service.settings, service)) as client:
        yield client


def picture(number):
    image = np.random.default_rng(number).integers(90, 110, (80, 96, 3), np.uint8)
    cv2.circle(image, (48, 40), 25, (200, 180, 160), -1)
    return image


def upload(client, label, images):
    """Stored names by the names that the images came with."""
    files = [("images", (name, encoded(image), "image/png")) for name, image in images.items()]
    reply = client.post(f"/datasets/{label}/upload", data=ROI, files=files).json()
    return dict(zip(images, reply["files"], strict=True))


def test_lists_and_deletions_give_the_names_of_uploads(client):
    good = upload(client, "ok", {"part 1.png": picture(1), "part 2.png": picture(2)})
    defective = upload(client, "ng", {"bad.png": picture(3)})
    for path in ("/datasets/list", "/manifest"):
        reply = client.get(path, params=ROI).json()
        classes = (reply if path == "/datasets/list" else reply["datasets"])["classes"]
        assert classes["ok"]["uploaded_as"] == {stored: name for name, stored in good.items()}
        assert classes["ng"]["uploaded_as"] == {defective["bad.png"]: "bad.png"}
        assert classes["ok"]["files"] == list(good.values())
        assert classes["ok"]["meta"] == dict.fromkeys(good.values(), True)
    reply = client.delete("/datasets/file", params={**ROI, "label": "ok", "filename": "part 2.png"}).json()
    assert (reply["filename"], reply["uploaded_as"]) == (good["part 2.png"], "part 2.png")


def test_metadata_names_an_upload_before_its_file_does(client):
    files = {"images": ("crop.png", encoded(picture(1)), "image/png")}
    reply = client.post("/datasets/ok/upload", data={**ROI, "metas": '{"filename":"part7.png"}'}, files=files).json()
    assert client.get("/datasets/list", params=ROI).json()["classes"]["ok"]["uploaded_as"] == {
        reply["files"][0]: "part7.png"
    }


@pytest.mark.slow
def test_fits_calibrations_and_judgements_give_the_names_of_uploads(client, models):
    scratched = picture(9)
    cv2.line(scratched, (5, 5), (90, 75), (0, 0, 255), 9)
    images = {f"part {number}.png": picture(number) for number in range(6)} | {"scratched.png": scratched}
    good = upload(client, "ok", images)
    names = {stored: name for name, stored in good.items()}
    fit = client.post("/fit_ok", data={**ROI, "mm_per_px": 0.2, "use_dataset": "true", "thumbnails": "true"}).json()
    assert [(image["filename"], image["uploaded_as"]) for image in fit["suspicious"]] == [
        (good["scratched.png"], "scratched.png")
    ]
    bank = client.get("/bank", params=ROI).json()["images"]
    assert {image["filename"]: image["uploaded_as"] for image in bank} == names
    form = {"data": {**ROI, "mm_per_px": 0.2}, "files": {"image": ("x.png", encoded(scratched), "image/png")}}
    reasons = client.post("/explain", **form).json()["reasons"]
    assert reasons
    for reason in reasons:
        assert reason["good"]["uploaded_as"] == names[reason["good"]["filename"]]

    folder = next(models.glob("@recipes/*/datasets/Master1/Pattern/ok"))
    cut = folder / good["part 3.png"]
    cut.write_bytes(cut.read_bytes()[:900])
    items = client.post("/infer_dataset", json=WITH_SCALE).json()["items"]
    assert {item["filename"]: item["uploaded_as"] for item in items} == names
    calibration = client.post("/calibrate_dataset", json={**WITH_SCALE, "require_ng": False}).json()
    failed = [item for item in items if "error" in item]
    for (failure,) in (failed, calibration["errors"]):
        assert (failure["filename"], failure["uploaded_as"]) == (cut.name, "part 3.png")
        assert failure["error"].startswith(f"{cut.name} (uploaded as part 3.png): ")
    again = client.post("/fit_ok", data={**ROI, "mm_per_px": 0.2, "use_dataset": "true"})
    assert again.status_code == 400
    assert again.json()["error"].startswith(f"{cut.name} (uploaded as part 3.png): ")


@pytest.mark.slow
def test_fits_of_sent_images_are_stored_without_names_of_uploads(client):
    files = [("images", (f"{number}.png", encoded(picture(number)), "image/png")) for number in range(2)]
    client.post("/fit_ok", data={**ROI, "mm_per_px": 0.2}, files=files)
    images = client.get("/bank", params=ROI).json()["images"]
    assert [image["filename"] for image in images] == ["0.png", "1.png"]
    assert not any("uploaded_as" in image for image in images)


def test_the_reply_to_an_upload_says_what_is_stored_already(client):
    first = upload(client, "ok", {"a.png": picture(1)})["a.png"]
    files = [("images", (name, encoded(picture(number)), "image/png")) for number, name in ((1, "b.png"), (2, "c.png"))]
    reply = client.post("/datasets/ok/upload", data=ROI, files=files).json()
    stored = reply["files"]
    assert reply["images"] == [
        {
            "filename": stored[0],
            "uploaded_as": "b.png",
            "duplicate_of": first,
            "duplicate_uploaded_as": "a.png",
        },
        {"filename": stored[1], "uploaded_as": "c.png"},
    ]
    assert not {"warning", "n_not_compared"} & reply.keys()
    for asked, expected in (("true", 0), ("false", 2), ("", 2)):
        reply = client.post("/datasets/ok/upload", data={**ROI, "skip_duplicates": asked}, files=files).json()
        assert len(reply["files"]) == expected
        assert [image.get("skipped", False) for image in reply["images"]] == [expected == 0] * 2
    skipping = client.post("/datasets/ok/upload", data={**ROI, "skip_duplicates": "true"}, files=files).json()
    assert skipping["images"][0] == {
        "uploaded_as": "b.png",
        "duplicate_of": first,
        "duplicate_uploaded_as": "a.png",
        "skipped": True,
    }
    as_defective = client.post("/datasets/ng/upload", data=ROI, files=files[:1]).json()
    assert f"stored as ok: b.png ({first} (uploaded as a.png)); a part is" in as_defective["warning"]
    assert client.get("/datasets/list", params=ROI).json()["classes"]["ok"]["count"] == 7


def test_an_upload_with_a_misspelt_field_says_so_and_is_stored(client):
    files = {"images": ("a.png", encoded(picture(1)), "image/png")}
    reply = client.post("/datasets/ok/upload", data={**ROI, "skip_duplicate": "true"}, files=files).json()
    assert "'skip_duplicate' (did you mean skip_duplicates?)" in reply["warning"]
    assert len(reply["files"]) == 1
    wrong = client.post("/datasets/ok/upload", data={**ROI, "skip_duplicates": "perhaps"}, files=files)
    assert (wrong.status_code, "skip_duplicates" in wrong.json()["error"]) == (422, True)
