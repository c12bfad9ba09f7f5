"""The workflows of the GUI generations seed and mid, written byte for byte as they write them."""

import base64
import json
import re

import cv2
import numpy as np
import pytest

from tests.integration.conftest import Server
from tests.integration.gui import Gui, Part

SHAPES = {
    "rect": '{"kind":"rect","x":0,"y":0,"w":300,"h":240}',
    "circle": '{"kind":"circle","cx":150,"cy":120,"r":120}',
    "annulus": '{"kind":"annulus","cx":150,"cy":120,"r":119.5,"r_inner":40.5}',
}


def heatmap_of(reply: dict) -> np.ndarray:
    png = np.frombuffer(base64.b64decode(reply["heatmap_png_base64"]), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_UNCHANGED)


def test_seed_fits_infers_uncalibrated_calibrates_and_infers(server: Server, crops: list[bytes]) -> None:
    gui = server.gui
    fit = gui.fit("Seed Role", "Pattern.1", crops[:2], field="images[{}]")
    assert fit.status == 200, fit.content
    assert fit.json["n_embeddings"] == 2048
    assert fit.json["coreset_size"] == 41
    assert fit.json["token_shape"] == [32, 32]
    assert all(type(number) is int for number in (fit.json["n_embeddings"], fit.json["coreset_size"]))

    before = gui.infer("Seed Role", "Pattern.1", crops[2])
    assert before.status == 200, before.content
    assert "threshold" not in before.json
    assert "decision" not in before.json
    assert before.json["regions"] == []

    ok, ng = before.json["score"], before.json["score"] / 2
    calibration = gui.calibrate("Seed Role", "Pattern.1", [ng], [ok], area_mm2_thr=0.04, score_percentile=99)
    assert calibration.status == 200, calibration.content
    assert calibration.json["threshold"] == pytest.approx((ok + ng) / 2)
    assert calibration.json["ok_mean"] == pytest.approx(ng)
    assert calibration.json["ng_mean"] == pytest.approx(ok)
    assert None not in calibration.json.values()

    # seed sends the shape as a JSON part
    parts = [*gui.roi("Seed Role", "Pattern.1"), Part("image", crops[2], "image/png", "crop.png")]
    shape = Part("shape", SHAPES["annulus"].encode(), "application/json; charset=utf-8")
    after = gui.multipart("/infer", [*parts, shape])
    assert after.status == 200, after.content
    reply = after.json
    assert reply["threshold"] == calibration.json["threshold"]
    assert reply["decision"] == ("ng" if reply["score"] >= reply["threshold"] else "ok")
    assert (reply["role_id"], reply["roi_id"], reply["token_shape"]) == ("Seed Role", "Pattern.1", [32, 32])
    assert reply["regions"], "half the score of this image as threshold must mark something"
    for region in reply["regions"]:
        assert region["bbox"] == [region["x"], region["y"], region["w"], region["h"]]
        assert region["area_mm2"] == pytest.approx(region["area_px"] * 0.2**2)
        assert region["area_mm2"] >= 0.04
    heatmap = heatmap_of(reply)
    assert heatmap.shape == (240, 300)
    assert heatmap[120, 150] == 0, "inside the inner radius"
    assert heatmap[0, 0] == 0, "outside the outer radius"

    folder = server.models / "Seed Role" / "Pattern.1"
    assert {path.name for path in folder.iterdir()} >= {"memory.npz", "index.faiss", "calib.json"}
    assert json.loads((folder / "calib.json").read_text())["threshold"] == reply["threshold"]


def test_mid_sends_images_as_octet_streams_keeps_all_embeddings_and_names_a_model_key(
    gui: Gui, crops: list[bytes]
) -> None:
    files = [Part("images", crop, "application/octet-stream", f"ok{i}.img") for i, crop in enumerate(crops[:2])]
    texts = [Part("memory_fit", b"true"), Part("model_key", b"Pattern")]
    fit = gui.multipart("/fit_ok", [*gui.roi("Mid", "Pattern"), *texts, *files])
    assert fit.status == 200, fit.content
    assert fit.json["n_embeddings"] == fit.json["coreset_size"] == 2048

    parts = [*gui.roi("Mid", "Pattern", mm_per_px=1e-05), Part("file", crops[0], "application/octet-stream", "crop")]
    reply = gui.multipart("/infer", parts)
    assert reply.status == 200, reply.content
    assert reply.json["score"] == pytest.approx(0, abs=1e-3), "its own patches are in the memory"


def test_the_playbooks_bracket_field_and_an_integer_for_a_float_are_accepted(gui: Gui, crops: list[bytes]) -> None:
    parts = [
        *gui.roi("Book", "Pattern", mm_per_px=1),
        *(Part("images[]", crop, "image/png", "a.png") for crop in crops[:2]),
    ]
    assert b"\r\n\r\n1\r\n" in parts[2].encoded() + b"\r\n"
    assert gui.multipart("/fit_ok", parts).json["n_embeddings"] == 2048
    reply = gui.calibrate("Book", "Pattern", [1, 2], None, area_mm2_thr=1, score_percentile=95)
    assert reply.status == 200, reply.content
    assert "ng_mean" not in reply.json
    assert reply.json["score_percentile"] == 95
    assert re.search(rb'"score_percentile":95[,}]', reply.content), "an integer for clients that read one"


@pytest.mark.parametrize("kind", SHAPES)
def test_each_shape_masks_score_and_heatmap(gui: Gui, fitted: tuple[str, str], crops: list[bytes], kind: str) -> None:
    reply = gui.infer(*fitted, crops[2], SHAPES[kind])
    assert reply.status == 200, reply.content
    whole = gui.infer(*fitted, crops[2]).json["score"]
    if kind == "rect":  # covers everything
        assert reply.json["score"] == whole
    else:
        assert heatmap_of(reply.json)[0, 0] == 0
        assert reply.json["score"] != whole


def test_a_refit_makes_the_old_calibration_stale_until_the_next_one(gui: Gui, crops: list[bytes]) -> None:
    assert gui.fit("Refit", "Pattern", crops[:1]).status == 200
    assert gui.calibrate("Refit", "Pattern", [0.1, 0.2], None).status == 200
    assert gui.infer("Refit", "Pattern", crops[2]).json["calibration"] == "applied"
    assert gui.fit("Refit", "Pattern", crops[1:2]).status == 200
    stale = gui.infer("Refit", "Pattern", crops[2]).json
    assert stale["calibration"] == "stale"
    assert "threshold" not in stale
    assert gui.calibrate("Refit", "Pattern", [0.1, 0.3], None).status == 200
    assert gui.infer("Refit", "Pattern", crops[2]).json["calibration"] == "applied"


def test_the_leftover_polls_of_old_clients_are_404_and_the_probes_are_not(gui: Gui) -> None:
    assert gui.get("/train_status").status == 404
    assert all(gui.send("OPTIONS", path).status != 404 for path in ("/fit_ok", "/calibrate_ng", "/infer"))
