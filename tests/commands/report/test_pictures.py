"""Pictures of judged images: with a threshold there is colour exactly where the distance reaches it."""

import base64

import cv2
import numpy as np
import pytest

from backend.commands.report.pictures import draw, scale_of
from backend.infer import to_image_grid

RANDOM = np.random.default_rng(11)
HW = (200, 300)
IMAGE = np.full((*HW, 3), (60, 120, 180), np.uint8)


def heatmap_of(distances, threshold, every=None):
    scale = scale_of(every or [distances], threshold)
    pictures = draw(IMAGE, distances, scale, threshold, 1.0)
    content = np.frombuffer(base64.b64decode(pictures.heatmap.partition(",")[2]), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)


def grid(values):
    return np.asarray(values, np.float32)


def saturated(picture):
    return picture.max(axis=2) - picture.min(axis=2) > 12  # JPEG is not exact


def test_a_good_image_has_no_colour_however_its_distances_vary():
    distances = grid(RANDOM.uniform(0.1, 0.499, (32, 32)))
    assert not saturated(heatmap_of(distances, 0.5)).any()
    assert saturated(heatmap_of(distances, None)).mean() > 0.5, "without a threshold all distances are coloured"


def test_colour_is_where_the_distance_reaches_the_threshold():
    distances = grid(np.full((32, 32), 0.3))
    distances[8:20, 10:16] = 0.9
    picture = saturated(heatmap_of(distances, 0.5))
    height, width = picture.shape
    expected = cv2.resize(to_image_grid(distances, HW, 1.0), (width, height)) >= 0.5
    assert expected.any()
    assert np.mean(picture != expected) < 0.02, "but for the blur of JPEG at the edge"


def test_other_images_of_the_set_do_not_change_the_colours_of_one():
    one, worse = (grid(RANDOM.uniform(0, high, (32, 32))) for high in (0.7, 2.0))
    assert np.array_equal(heatmap_of(one, 0.5), heatmap_of(one, 0.5, [one, worse]))
    assert not np.array_equal(heatmap_of(one, None), heatmap_of(one, None, [one, worse]))


@pytest.mark.parametrize("threshold", [0.5, 1.7])
def test_the_scale_that_is_shown_is_white_up_to_its_mark(threshold):
    scale = scale_of([grid(np.full((32, 32), 0.1))], threshold)
    stops = scale.gradient.removeprefix("linear-gradient(to right,").rstrip(")").split(",")
    assert (scale.low, scale.high, scale.position(threshold)) == (0, 2 * threshold, 0.5)
    for number, stop in enumerate(stops):
        assert (stop == "#ffffff") == (number / (len(stops) - 1) < scale.position(threshold))


@pytest.mark.parametrize("threshold", [None, 0.0, -0.1])
def test_without_a_threshold_above_0_the_scale_is_of_the_distances(threshold):
    distances = grid(RANDOM.uniform(0.2, 0.8, (32, 32)))
    scale = scale_of([distances], threshold)
    assert (scale.low, scale.high) == pytest.approx(np.percentile(distances, (1, 99.9)), rel=1e-5)
    assert scale.start is None
