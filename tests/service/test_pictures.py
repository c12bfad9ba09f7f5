"""Pictures of a judgement: of the threshold that pixels are judged by, and none where there is no such threshold."""

import base64

import cv2
import numpy as np
import pytest

from backend.calib import Calibration
from backend.common.png_writer import png_text
from backend.infer import Inference, find_regions, to_heatmap
from backend.service.pictures import CONTRACT_PICTURES, NO_PICTURES, Wanted, draw_pictures, no_scale
from backend.utils import encode_png_base64

RANDOM = np.random.default_rng(2)
MAP = cv2.resize(RANDOM.uniform(0.2, 0.9, (6, 8)).astype(np.float32), (80, 60))
IMAGE = RANDOM.integers(0, 256, (60, 80, 3), np.uint8)
BOTH = Wanted("threshold", overlay=True)


def drawn(wanted, calibration, state="applied"):
    heatmap = to_heatmap(MAP, None, *np.percentile(MAP, (1, 99)))
    regions = find_regions(MAP, None, calibration.region_threshold, 0, 0.1) if calibration else []
    inference = Inference(0.7, regions, (), heatmap, MAP, np.zeros((1, 1), np.float32), MAP)
    return draw_pictures(wanted, inference, IMAGE, None, calibration, state)


def decoded(encoded):
    return cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("calibration", "level"),
    [
        (Calibration(0.6), 0.6),
        (Calibration(0.6, decide_by="region", pixel_threshold=0.8), 0.8),
        (Calibration(-1.0, decide_by="either", pixel_threshold=0.5), 0.5),
    ],
)
def test_pictures_show_the_threshold_that_pixels_are_judged_by(calibration, level):
    pictures = drawn(BOTH, calibration)
    assert np.array_equal(decoded(pictures.heatmap) >= 128, np.float32(level) <= MAP)
    assert (
        png_text(base64.b64decode(pictures.heatmap))
        == f"heatmap=threshold threshold={level!r} distance=grey*threshold/128"
    )
    assert png_text(base64.b64decode(pictures.overlay)) == f"overlay threshold={level!r}"
    assert pictures.warning is None


def test_the_contracts_heatmap_is_that_of_the_inference():
    heatmap = to_heatmap(MAP, None, *np.percentile(MAP, (1, 99)))
    for calibration in (None, Calibration(0.6)):
        pictures = drawn(CONTRACT_PICTURES, calibration)
        assert pictures.heatmap == encode_png_base64(heatmap)
        assert (pictures.overlay, pictures.warning) == (None, None)
    assert drawn(Wanted("contract", overlay=True), Calibration(0.6)).heatmap == encode_png_base64(heatmap)


def test_nothing_is_made_that_is_not_wanted():
    pictures = drawn(NO_PICTURES, None, "none")
    assert (pictures.heatmap, pictures.overlay, pictures.warning) == (None, None, None)
    assert drawn(Wanted(None, overlay=True), Calibration(0.6)).heatmap is None


@pytest.mark.parametrize("threshold", [0.0, -0.3])
def test_a_threshold_of_0_or_below_has_no_scale(threshold):
    pictures = drawn(BOTH, Calibration(threshold))
    assert (pictures.heatmap, pictures.overlay) == (None, None)
    assert f"the threshold is {threshold:g}" in pictures.warning
    assert no_scale(Calibration(1e-9), "applied") is None
