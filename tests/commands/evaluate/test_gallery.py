"""Pictures of judged images: with a threshold there is colour exactly where the distance reaches it."""

import base64

import cv2
import numpy as np
import pytest

from backend.commands.evaluate.dataset import TestImage
from backend.commands.evaluate.gallery import ColourScale, thumbnails
from backend.commands.evaluate.results import Case
from backend.infer import to_image_grid
from backend.utils import ImageLimits

LIMITS = ImageLimits(1 << 30, 1 << 30)
RANDOM = np.random.default_rng(11)


def case_of(path, distances, image_hw=(200, 300)):
    if not path.exists():
        cv2.imwrite(str(path), np.full((*image_hw, 3), (60, 120, 180), np.uint8))
    image = TestImage(str(path), path.name, "good", ())
    return Case(image, float(distances.max()), None, 0, 1.0, image_hw, distances.astype(np.float32))


def heatmap_of(case, threshold, cases=None):
    scale = ColourScale.of(cases or [case], threshold)
    pictures = thumbnails(case, scale, threshold, 1.0, LIMITS)
    content = np.frombuffer(base64.b64decode(pictures.heatmap.partition(",")[2]), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)


def saturated(picture):
    return picture.max(axis=2) - picture.min(axis=2) > 12  # JPEG is not exact


def test_a_good_image_has_no_colour_however_its_distances_vary(tmp_path):
    case = case_of(tmp_path / "good.png", RANDOM.uniform(0.1, 0.499, (32, 32)))
    assert not saturated(heatmap_of(case, 0.5)).any()
    assert saturated(heatmap_of(case, None)).mean() > 0.5, "without a threshold all distances are coloured"


def test_colour_is_where_the_distance_reaches_the_threshold(tmp_path):
    distances = np.full((32, 32), 0.3)
    distances[8:20, 10:16] = 0.9
    case = case_of(tmp_path / "bad.png", distances)
    picture = saturated(heatmap_of(case, 0.5))
    height, width = picture.shape
    expected = cv2.resize(to_image_grid(case.distances, case.image_hw, 1.0), (width, height)) >= 0.5
    assert expected.any()
    assert np.mean(picture != expected) < 0.02, "but for the blur of JPEG at the edge"


def test_other_images_of_the_set_do_not_change_the_colours_of_one(tmp_path):
    case, worse = (case_of(tmp_path / "a.png", RANDOM.uniform(0, high, (32, 32))) for high in (0.7, 2.0))
    assert np.array_equal(heatmap_of(case, 0.5), heatmap_of(case, 0.5, [case, worse]))
    assert not np.array_equal(heatmap_of(case, None), heatmap_of(case, None, [case, worse]))


@pytest.mark.parametrize("threshold", [0.5, 1.7])
def test_the_scale_that_is_shown_is_white_up_to_its_mark(tmp_path, threshold):
    scale = ColourScale.of([case_of(tmp_path / "a.png", np.full((32, 32), 0.1))], threshold)
    stops = scale.gradient().removeprefix("linear-gradient(to right,").rstrip(")").split(",")
    assert (scale.low, scale.high, scale.position(threshold)) == (0, 2 * threshold, 0.5)
    for number, stop in enumerate(stops):
        assert (stop == "#ffffff") == (number / (len(stops) - 1) < scale.position(threshold))


@pytest.mark.parametrize("threshold", [None, 0.0, -0.1])
def test_without_a_threshold_above_0_the_scale_is_of_the_distances(tmp_path, threshold):
    distances = RANDOM.uniform(0.2, 0.8, (32, 32))
    scale = ColourScale.of([case_of(tmp_path / "a.png", distances)], threshold)
    assert (scale.low, scale.high) == pytest.approx(np.percentile(distances, (1, 99.9)), rel=1e-5)
    assert scale.threshold is None
