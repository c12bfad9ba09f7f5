"""The workflows of the GUI generations, written byte for byte as they write them."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest

from harness.gui import CALIBRATION, FIT, HEAD_INFERENCE, SEED_INFERENCE, Gui, Head, Part, Reply, image_parts, number
from harness.server import Server
from tests.integration.conftest import PICKS_OF_TWO, SIDE, TOKENS

SHAPES = {
    "rect": '{"kind":"rect","x":0,"y":0,"w":300,"h":240}',
    "circle": '{"kind":"circle","cx":150,"cy":120,"r":120}',
    "annulus": '{"kind":"annulus","cx":150,"cy":120,"r":119.5,"r_inner":40.5}',
}


def heatmap_of(reply: dict) -> np.ndarray:
    png = np.frombuffer(base64.b64decode(reply["heatmap_png_base64"]), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_UNCHANGED)


@dataclass(frozen=True)
class Generation:
    """How the clients of one time write their requests, and what they read."""

    client: Callable[[Gui], Gui]
    images: str
    image_type: str
    texts: dict[str, str]
    shape_type: str
    calibration: str
    inference: dict[str, Any]
    judges: bool


GENERATIONS = {
    "seed": Generation(
        client=lambda gui: gui,
        images="images[{}]",
        image_type="image/png",
        texts={},
        shape_type="application/json; charset=utf-8",
        calibration="",
        inference=SEED_INFERENCE,
        judges=False,
    ),
    "mid": Generation(
        client=lambda gui: gui,
        images="images",
        image_type="application/octet-stream",
        texts={"memory_fit": "false", "model_key": "A key of its own"},
        shape_type="text/plain; charset=utf-8",
        calibration=',"model_key":"A key of its own"',
        inference=SEED_INFERENCE | {"threshold": "double?"},
        judges=False,
    ),
    "head": Generation(
        client=lambda gui: Head(gui.host, gui.port, layout="Generations 1"),
        images="images",
        image_type="image/png",
        texts={"model_key": "Pattern"},
        shape_type="text/plain; charset=utf-8",
        calibration=',"model_key":"Pattern"',
        inference=HEAD_INFERENCE,
        judges=True,
    ),
}


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_from_the_fit_to_its_errors(server: Server, crops: list[bytes], name: str) -> None:
    generation = GENERATIONS[name]
    gui = generation.client(server.gui)
    role, roi = f"Generation {name}", "Pattern"
    ids = gui.roi(role, roi, mm_per_px=1e-05)
    texts = [Part(field, text.encode()) for field, text in generation.texts.items()]

    def files(images: list[bytes]) -> list[Part]:
        parts = image_parts(images, generation.images)
        return [replace(part, content_type=generation.image_type) for part in parts]

    def infer(image: bytes, shape: str | None = None) -> Reply:
        model_key = texts if name == "head" else []
        masks = [] if shape is None else [Part("shape", shape.encode(), generation.shape_type)]
        return gui.multipart("/infer", [*ids, *model_key, Part("image", image, "image/png", "crop.png"), *masks])

    missing = infer(crops[2])
    assert missing.status == 400
    assert set(missing.json) == {"error", "trace", "code"}
    for phrase in ("memory not found", "run /fit_ok first", "Memoria no encontrada"):
        assert phrase in missing.json["error"]
    refused_fits = [
        gui.multipart("/fit_ok", [*ids, *texts, *files([crops[0], crops[1][:700]])]),
        gui.multipart("/fit_ok", [*ids, *texts]),
        gui.multipart("/fit_ok", [*texts, *files(crops[:1])]),
    ]
    assert [reply.status for reply in refused_fits] == [400, 422, 422]
    for reply in refused_fits:
        assert set(reply.json) == {"error", "trace", "code"}
        text = reply.content.decode().lower()
        assert not any(
            phrase in text for phrase in ("already trained", "already exists", "ya entrenad", "memoria exis")
        )

    fit = gui.multipart("/fit_ok", [*ids, *texts, *files(crops[:2])])
    assert fit.status == 200, fit.content
    assert fit.read(FIT) == {"n_embeddings": 2 * TOKENS, "coreset_size": PICKS_OF_TWO, "token_shape": [SIDE, SIDE]}
    before = infer(crops[2])
    assert before.status == 200
    assert "threshold" not in before.json
    first = before.read(generation.inference)
    assert (first["threshold"] or 0, first["regions"]) == (0, [])
    fresh = infer(crops[0]).read(generation.inference)["score"]
    numbers = f'"ok_scores":[{number(fresh)},{number(fresh / 2)}],"ng_scores":null,"area_mm2_thr":1E-10'
    body = f'{{"role_id":"{role}","roi_id":"{roi}","mm_per_px":1E-05,{numbers},"score_percentile":99'
    calibrated = gui.chunked_json("/calibrate_ng", body + generation.calibration + "}")
    assert calibrated.status == 200, calibrated.content
    calibration = calibrated.read(CALIBRATION)
    assert None not in calibrated.json.values()
    assert (calibration["ng_mean"], calibration["score_percentile"]) == (0, 99)

    for shape in SHAPES.values():
        reply = infer(crops[2], shape)
        assert reply.status == 200, reply.content
        judged = reply.read(generation.inference)
        assert judged["threshold"] == calibration["threshold"]
        assert 0 < judged["score"] <= 2
        assert judged["regions"]
        for region in judged["regions"]:
            assert region["bbox"] == [region[side] for side in "xywh"]
            assert region["area_mm2"] == pytest.approx(region["area_px"] * 1e-10)
        assert heatmap_of(judged).shape == (240, 300)
        if generation.judges:
            assert judged["decision"] == ("ng" if judged["score"] >= judged["threshold"] else "ok")
    errors = [
        (infer(crops[2][:800]), 400),
        (infer(b"MZ\x90\x00"), 415),
        (infer(crops[2], '{"kind":"star"}'), 422),
        (infer(crops[2], '{"kind":"rect","x":900,"y":0,"w":9,"h":9}'), 422),
        (gui.chunked_json("/calibrate_ng", body.replace(numbers, '"ok_scores":[]') + "}"), 422),
        (gui.chunked_json("/calibrate_ng", body), 422),
    ]
    for reply, status in errors:
        assert reply.status == status, reply.content
        assert set(reply.json) == {"error", "trace", "code"}
    assert infer(crops[2]).read(generation.inference)["threshold"] == calibration["threshold"], "errors change nothing"


def test_seed_fits_infers_uncalibrated_calibrates_and_infers(server: Server, crops: list[bytes]) -> None:
    gui = server.gui
    fit = gui.fit("Seed Role", "Pattern.1", crops[:2], field="images[{}]")
    assert fit.status == 200, fit.content
    assert fit.json["n_embeddings"] == 2 * TOKENS
    assert fit.json["coreset_size"] == PICKS_OF_TWO
    assert fit.json["token_shape"] == [SIDE, SIDE]
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
    assert (reply["role_id"], reply["roi_id"], reply["token_shape"]) == ("Seed Role", "Pattern.1", [SIDE, SIDE])
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


def test_mid_generation_fits_octet_streams_with_all_embeddings_kept(gui: Gui, crops: list[bytes]) -> None:
    """The middle GUI generation sends images as octet streams, keeps all embeddings and names a model key."""
    files = [Part("images", crop, "application/octet-stream", f"ok{i}.img") for i, crop in enumerate(crops[:2])]
    texts = [Part("memory_fit", b"true"), Part("model_key", b"Pattern")]
    fit = gui.multipart("/fit_ok", [*gui.roi("Mid", "Pattern"), *texts, *files])
    assert fit.status == 200, fit.content
    assert fit.json["n_embeddings"] == fit.json["coreset_size"] == 2 * TOKENS

    parts = [*gui.roi("Mid", "Pattern", mm_per_px=1e-05), Part("file", crops[0], "application/octet-stream", "crop")]
    reply = gui.multipart("/infer", parts)
    assert reply.status == 200, reply.content
    assert reply.json["score"] == pytest.approx(0, abs=1e-3), "its own patches are in the memory"


def test_playbooks_bracket_field_and_integers_for_floats_are_accepted(gui: Gui, crops: list[bytes]) -> None:
    """The playbook calls the field `images[]`, and some clients send an integer where a float is meant."""
    parts = [
        *gui.roi("Book", "Pattern", mm_per_px=1),
        *(Part("images[]", crop, "image/png", "a.png") for crop in crops[:2]),
    ]
    assert b"\r\n\r\n1\r\n" in parts[2].encoded() + b"\r\n"
    assert gui.multipart("/fit_ok", parts).json["n_embeddings"] == 2 * TOKENS
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
