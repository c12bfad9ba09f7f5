"""Pictures that are asked for by name: heatmaps on the scale of the threshold, and overlays."""

import base64
import contextlib
import importlib

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from backend.api.schemas.datasets import InferDatasetRequest, ItemReply
from backend.api.schemas.inspection import ExplainFields, ExplainReply, InferFields, InferReply
from backend.app import create_app
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory
from backend.roi_mask import build_mask, parse_shape
from backend.service import datasets
from backend.service.calibrate import calibrate
from backend.service.inspection import InspectionService
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from tests.factories import unit_rows

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
KEY = RoiKey(**IDS)
CIRCLE = '{"kind":"circle","cx":45,"cy":30,"r":25}'
CONTRACT_KEYS = [
    "role_id",
    "roi_id",
    "recipe_id",
    "model_key",
    "request_id",
    "score",
    "threshold",
    "decision",
    "calibration",
    "heatmap_png_base64",
    "regions",
    "token_shape",
    "model",
]
BOTH = {"heatmap": "threshold", "overlay": "true"}


@pytest.fixture(scope="module")
def image(images):
    return cv2.resize(images[0], (90, 60), interpolation=cv2.INTER_AREA)


@pytest.fixture
def service(features, tmp_path):
    service = InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path))
    service.store.save_memory(KEY, PatchCoreMemory.build(unit_rows(20, 384, 1), features.token_hw, 1.0), {})
    return service


@pytest.fixture
def distance_map(service, image):
    """What pictures of the image are made of."""
    return service.run_engine(service.fitted(KEY), image, Scoring(0.2))[0].distance_map


@pytest.fixture
def threshold(service, distance_map):
    """Of a calibration by which a twentieth of the image is defective."""
    threshold = float(np.percentile(distance_map, 95))
    calibrate(service, KEY, [threshold], [], mm_per_px=0.2, area_mm2_thr=0)
    return threshold


@pytest.fixture
def client(service):
    with TestClient(create_app(service.settings, service)) as client:
        yield client


@pytest.fixture
def send(client, image):
    def send(path="/infer", **fields):
        png = cv2.imencode(".png", image)[1].tobytes()
        files = {"image": ("a.png", png, "image/png")}
        return client.post(path, data={**IDS, "mm_per_px": "0.2", **fields}, files=files)

    return send


def picture(encoded):
    return cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)


def without_ids(reply):
    return {**reply.json(), "request_id": ""}


@pytest.mark.parametrize("fields", [{}, {"heatmap": ""}, {"heatmap": "contract", "overlay": "false"}, {"overlay": ""}])
def test_without_a_new_option_the_reply_is_the_contracts(send, threshold, distance_map, fields):
    reply = send(**fields)
    assert list(reply.json()) == CONTRACT_KEYS
    low, high = np.percentile(distance_map, (1, 99))
    stretched = np.rint(np.clip((distance_map - np.float32(low)) * np.float32(255 / (high - low)), 0, 255))
    assert np.array_equal(picture(reply.json()["heatmap_png_base64"]), stretched)
    assert without_ids(reply) == without_ids(send())
    ids = reply.json()["request_id"], send().json()["request_id"]
    assert len(reply.content) == len(send().content) + len(ids[0]) - len(ids[1])


@pytest.mark.parametrize("path", ["/infer", "/explain"])
@pytest.mark.parametrize("shape", ["", CIRCLE])
def test_heatmap_threshold_is_128_and_above_where_it_is_defective(send, threshold, distance_map, path, shape):
    reply = send(path, heatmap="threshold", shape=shape).json()
    mask = build_mask(parse_shape(shape or None), (60, 90))
    defective = distance_map >= np.float32(threshold)
    heatmap = picture(reply["heatmap_png_base64"])
    assert heatmap.shape == (60, 90)
    assert np.array_equal(heatmap >= 128, defective if mask is None else defective & mask)
    if mask is not None:
        assert (heatmap[~mask] == 0).all()
    inside = (heatmap > 0) & (heatmap < 255)
    assert np.abs(heatmap[inside] * threshold / 128 - distance_map[inside]).max() <= 1.001 * threshold / 128
    assert "overlay_png_base64" not in reply
    assert "warning" not in reply


def test_an_option_changes_nothing_but_its_picture(send, threshold):
    plain, both = without_ids(send()), without_ids(send(**BOTH))
    assert both.pop("overlay_png_base64")
    assert both.pop("heatmap_png_base64") != plain.pop("heatmap_png_base64")
    assert both == plain
    explained, with_pictures = without_ids(send("/explain")), without_ids(send("/explain", **BOTH))
    assert {"heatmap_png_base64", "overlay_png_base64"}.isdisjoint(explained)
    assert [with_pictures.pop(name, None) is None for name in ("heatmap_png_base64", "overlay_png_base64")] == [
        False
    ] * 2
    assert with_pictures == explained


@pytest.mark.parametrize("path", ["/infer", "/explain"])
def test_the_overlay_is_the_image_where_nothing_is_found(send, service, image, distance_map, path):
    calibrate(service, KEY, [1.9], [], mm_per_px=0.2)
    assert np.array_equal(picture(send(path, overlay="true").json()["overlay_png_base64"]), image)
    calibrate(service, KEY, [float(np.percentile(distance_map, 95))], [], mm_per_px=0.2)
    found = picture(send(path, overlay="true").json()["overlay_png_base64"])
    assert found.shape == image.shape
    changed = (found != image).any(axis=2)
    assert 0.02 < changed.mean() < 0.6


def test_explain_gives_the_contracts_heatmap_where_it_is_named(send, threshold):
    assert send("/explain", heatmap="contract").json()["heatmap_png_base64"] == send().json()["heatmap_png_base64"]


@pytest.mark.parametrize("path", ["/infer", "/explain"])
@pytest.mark.parametrize(
    ("state", "says"),
    [("none", "no calibration"), ("stale", "earlier fit or another BLUR_SIGMA"), ("negative", "is -0.5")],
)
def test_without_a_threshold_pictures_of_it_are_left_out_and_it_says_so(send, service, features, path, state, says):
    if state != "none":
        calibrate(service, KEY, [0.5 if state == "stale" else -0.5], [], mm_per_px=0.2)
    if state == "stale":
        service.store.save_memory(KEY, PatchCoreMemory.build(unit_rows(20, 384, 2), features.token_hw, 1.0), {})
    reply = send(path, **BOTH)
    assert reply.status_code == 200, reply.text
    assert {"heatmap_png_base64", "overlay_png_base64"}.isdisjoint(reply.json())
    assert reply.json()["score"] > 0
    assert "heatmap=threshold and overlay are left out: " in reply.json()["warning"]
    assert says in reply.json()["warning"]
    assert "overlay is left out: " in send(path, overlay="true").json()["warning"]
    assert "heatmap_png_base64" in send().json(), "the contract's heatmap needs no threshold"
    assert "warning" not in send().json()


@pytest.mark.parametrize(("field", "value"), [("heatmap", "turbo"), ("overlay", "perhaps")])
@pytest.mark.parametrize("path", ["/infer", "/explain"])
def test_other_values_are_refused_by_name(send, threshold, path, field, value):
    reply = send(path, **{field: value})
    assert reply.status_code == 422
    assert field in reply.json()["error"]


@pytest.fixture
def stored(client, image, threshold):
    """Three stored images; what /infer_dataset replies about them."""
    for angle in range(3):
        png = cv2.imencode(".png", np.roll(image, angle, axis=1))[1].tobytes()
        client.post("/datasets/ok/upload", data=IDS, files={"images": (f"{angle}.png", png, "image/png")})

    def infer_dataset(**members):
        reply = client.post("/infer_dataset", json={**IDS, "default_mm_per_px": 0.2, **members})
        assert reply.status_code == 200, reply.text
        return reply.json()

    return infer_dataset


def test_a_data_set_has_the_pictures_of_single_inferences(stored, send):
    single = send(**BOTH).json()
    items = stored(include_heatmap=True, heatmap="threshold", overlay=True)["items"]
    assert [items[0][name] for name in ("heatmap_png_base64", "overlay_png_base64")] == [
        single[name] for name in ("heatmap_png_base64", "overlay_png_base64")
    ]
    assert len({item["overlay_png_base64"] for item in items}) == 3
    assert stored(include_heatmap=True)["items"][0]["heatmap_png_base64"] == send().json()["heatmap_png_base64"]


@pytest.mark.parametrize("members", [{}, {"overlay": False}, {"heatmap": None}])
def test_a_data_set_without_options_has_no_pictures(stored, members):
    reply = stored(**members)
    assert {"heatmap_png_base64", "overlay_png_base64", "warning"}.isdisjoint(reply["items"][0])
    assert "warning" not in reply


def test_a_scale_without_heatmaps_has_no_effect_and_it_says_so(stored):
    reply = stored(heatmap="threshold")
    assert reply["warning"] == "heatmap=threshold has no effect without include_heatmap"
    assert "heatmap_png_base64" not in reply["items"][0]


def test_the_overlays_of_one_reply_are_bounded(stored, monkeypatch):
    size = len(stored(overlay=True)["items"][0]["overlay_png_base64"])
    monkeypatch.setattr(datasets, "_MOST_OVERLAY_BYTES", size + 1)
    items = stored(overlay=True, include_heatmap=True)["items"]
    assert ["overlay_png_base64" in item for item in items] == [True, True, False]
    assert ["overlay is left out" in item.get("warning", "") for item in items] == [False, False, True]
    assert all("heatmap_png_base64" in item for item in items)


def test_pictures_are_drawn_while_the_pixels_of_the_image_are_held(send, service, threshold, monkeypatch):
    held = []
    hold = service.hold_pixels

    @contextlib.contextmanager
    def noted(pixels):
        with hold(pixels):
            held.append(pixels)
            yield
            held.remove(pixels)

    drawn = []
    monkeypatch.setattr(service, "hold_pixels", noted)
    for module in ("judge", "explain"):
        name = f"backend.service.{module}.draw_pictures"
        draw = importlib.import_module(f"backend.service.{module}").draw_pictures
        monkeypatch.setattr(name, lambda *given, draw=draw: drawn.append(list(held)) or draw(*given))
    for path in ("/infer", "/explain"):
        assert send(path, **BOTH).status_code == 200
    assert drawn == [[60 * 90]] * 2


@pytest.mark.parametrize("request_model", [InferFields, ExplainFields, InferDatasetRequest])
def test_the_document_says_what_the_options_mean(request_model):
    options = request_model.model_json_schema()["properties"]
    assert "floor(128 * distance / threshold)" in options["heatmap"]["description"]
    assert "overlay_png_base64" in options["overlay"]["description"]


@pytest.mark.parametrize("reply_model", [InferReply, ExplainReply, ItemReply])
def test_the_document_says_what_the_pictures_are(reply_model):
    members = reply_model.model_json_schema()["properties"]
    assert members["heatmap_png_base64"]["description"]
    assert "left out if there is no threshold" in members["overlay_png_base64"]["description"]
