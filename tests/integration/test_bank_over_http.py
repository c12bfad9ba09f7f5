"""Honest scores, further images and reasons over HTTP, on real images."""

import base64
from typing import Any

import cv2
import numpy as np
import pytest

from harness.gui import Gui, Part, Reply
from tests.integration.conftest import TOKENS

ROLE = "Bank"


def explain(gui: Gui, roi: str, image: bytes, **fields: str) -> Reply:
    texts = [Part(name, text.encode()) for name, text in fields.items()]
    return gui.multipart("/explain", [*gui.roi(ROLE, roi), Part("image", image, "image/png", "crop.png"), *texts])


def bank(gui: Gui, roi: str) -> Any:
    reply = gui.get(f"/bank?role_id={ROLE}&roi_id={roi}")
    assert reply.status == 200, reply.content
    return reply.json


def test_a_fit_replies_with_what_each_image_scores_by_the_others(gui: Gui, crops: list[bytes]) -> None:
    fit = gui.fit(ROLE, "scores", crops[:3]).json
    assert len(fit["ok_scores"]) == 3
    assert fit["suspicious"] == []
    listed = bank(gui, "scores")
    assert [image["score"] for image in listed["images"]] == fit["ok_scores"]
    assert [image["filename"] for image in listed["images"]] == ["ok_0.png", "ok_1.png", "ok_2.png"]
    assert sum(image["n_kept"] for image in listed["images"]) == listed["coreset_size"] == fit["coreset_size"]
    naive = [gui.infer(ROLE, "scores", crop).json["score"] for crop in crops[:3]]
    assert all(honest > seen for honest, seen in zip(fit["ok_scores"], naive, strict=True))
    assert "ok_scores" not in gui.fit(ROLE, "alone", crops[:1]).json


def test_the_mask_of_a_fit_is_that_of_its_scores(gui: Gui, crops: list[bytes]) -> None:
    whole = gui.fit(ROLE, "mask", crops[:3]).json
    masked = gui.fit(ROLE, "mask", crops[:3], shape='{"kind":"circle","cx":150,"cy":120,"r":40}').json
    assert masked["ok_scores"] != whole["ok_scores"]
    small = cv2.imencode(".png", np.zeros((50, 50, 3), np.uint8))[1].tobytes()
    refused = gui.fit(ROLE, "mask", [*crops[:2], small], shape='{"kind":"circle","cx":150,"cy":120,"r":40}')
    assert refused.status == 422
    assert refused.json["error"] == "ok_2.png: shape circle selects no pixel of the 50x50 image"


def test_a_false_reject_is_fed_back(gui: Gui, crops: list[bytes]) -> None:
    assert gui.fit(ROLE, "append", crops[:1]).status == 200
    rejected = crops[2]
    before = gui.infer(ROLE, "append", rejected).json["score"]
    fed_back = gui.fit(ROLE, "append", [rejected], append="true")
    assert fed_back.status == 200, fed_back.content
    assert fed_back.json["n_embeddings"] == 2 * TOKENS
    assert gui.infer(ROLE, "append", rejected).json["score"] < before / 1.2
    assert len(bank(gui, "append")["images"]) == 2
    nothing = gui.fit(ROLE, "never fitted", [rejected], append="true")
    assert nothing.status == 400
    assert "run /fit_ok first" in nothing.json["error"]


def test_a_rejected_image_is_explained_by_pictures(gui: Gui, crops: list[bytes]) -> None:
    gui.fit(ROLE, "why", crops[:2], thumbnails="true")
    scores = [gui.infer(ROLE, "why", crop).json["score"] for crop in crops[:2]]
    assert gui.calibrate(ROLE, "why", scores, None, area_mm2_thr=0).status == 200
    judged = gui.infer(ROLE, "why", crops[3]).json
    reply = explain(gui, "why", crops[3])
    assert reply.status == 200, reply.content
    found = reply.json
    for name in ("score", "threshold", "decision", "calibration", "model"):
        assert found[name] == judged[name]
    assert [reason["region"] for reason in found["reasons"]] == list(range(min(8, len(judged["regions"]))))
    for reason in found["reasons"]:
        assert reason["good"]["filename"] in ("ok_0.png", "ok_1.png")
        picture = cv2.imdecode(
            np.frombuffer(base64.b64decode(reason["picture_png_base64"]), np.uint8), cv2.IMREAD_COLOR
        )
        assert picture.shape[0] == 288
        assert picture.shape[1] > 500, "the place, and the good patch beside it"
        x, y, w, h = reason["good"]["box"]
        assert 0 <= x < x + w <= 300
        assert 0 <= y < y + h <= 240


def test_a_pixel_may_be_asked_about(gui: Gui, crops: list[bytes]) -> None:
    gui.fit(ROLE, "pixel", crops[:2])
    (reason,) = explain(gui, "pixel", crops[0], x="150", y="60", pictures="false").json["reasons"]
    assert "picture_png_base64" not in reason
    assert "region" not in reason
    x, y, w, h = reason["box"]
    assert x <= 150 < x + w
    assert y <= 60 < y + h


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"x": "300", "y": "0"}, "outside the image of 300x240 pixels"),
        ({"x": "3"}, "send x and y, or neither"),
        ({"x": "-1", "y": "0"}, "x: must be at least 0"),
        ({"x": "1.5", "y": "0"}, "x: must be a whole number"),
    ],
)
def test_a_place_that_is_none_is_refused(gui: Gui, crops: list[bytes], fields: dict[str, str], says: str) -> None:
    gui.fit(ROLE, "place", crops[:1])
    reply = explain(gui, "place", crops[0], **fields)
    assert reply.status == 422
    assert says in reply.json["error"]


def test_without_a_model_there_is_nothing_to_explain_or_to_list(gui: Gui, crops: list[bytes]) -> None:
    assert explain(gui, "nothing", crops[0]).status == 400
    assert gui.get(f"/bank?role_id={ROLE}&roi_id=nothing").status == 400


def test_copies_are_known_by_pixels_and_near_copies_are_named(gui: Gui, crops: list[bytes]) -> None:
    pixels = cv2.imdecode(np.frombuffer(crops[0], np.uint8), cv2.IMREAD_COLOR)
    bmp = cv2.imencode(".bmp", pixels)[1].tobytes()
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    alone = gui.fit(ROLE, "copies", crops[:3]).json
    assert "warning" not in alone
    both = gui.fit(ROLE, "copies", [*crops[:3], bmp]).json
    assert both["ok_scores"][0] == both["ok_scores"][3]
    assert both["ok_scores"][1] == pytest.approx(alone["ok_scores"][1], abs=0.1)  # a bank of four patches, or of six
    known = gui.fit(ROLE, "copies", [bmp], append="true").json
    assert known["memory_id"] == both["memory_id"]
    near = gui.fit(ROLE, "copies", [*crops[:3], jpeg])
    assert near.status == 200, near.content
    assert "1 pair of images looks nearly the same (ok_0.png and ok_3.png)" in near.json["warning"]
    grouped = gui.fit(ROLE, "copies", [*crops[:3], jpeg], group_copies="true").json
    assert grouped["ok_scores"][0] > near.json["ok_scores"][0]
