"""The heatmap on the scale of the threshold: 128 and above is defective, whatever rounds, and no image changes it."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from backend.infer import find_regions, to_heatmap, to_threshold_heatmap

RANDOM = np.random.default_rng(7)
THRESHOLDS = [*RANDOM.uniform(0.05, 1.9, 200).tolist(), 1 / 3, 0.1, 0.55, 1.0, 2.0, 1e-30, 1e-300, 1e6, 1e39, 1e300]


def around(threshold):
    """float32 [1, N]: the threshold, all grey steps, their neighbours, and what maps hold otherwise."""
    steps = np.minimum(np.arange(256) * min(threshold, 8) / 128, 4)
    values = np.concatenate([steps, [min(threshold, 4)], RANDOM.uniform(-0.2, 2, 500)]).astype(np.float32)
    below, above = (np.nextafter(values, np.float32(side)) for side in (-np.inf, np.inf))
    return np.concatenate([values, below, above])[None]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_pixel_is_128_exactly_where_it_is_defective(threshold):
    distance_map = around(threshold)
    heatmap = to_threshold_heatmap(distance_map, None, threshold)
    with np.errstate(over="ignore"):
        defective = distance_map >= np.float32(threshold)
    assert defective.any() == (threshold <= 4)
    assert np.array_equal(heatmap >= 128, defective)
    area = sum(region.area_px for region in find_regions(distance_map, None, threshold, 0, 1))
    assert area == np.count_nonzero(heatmap >= 128), "as regions have it"


@pytest.mark.parametrize("threshold", [*THRESHOLDS[:20], 1 / 3, 0.1, 1.0, 2.0])
def test_grey_is_the_floor_of_the_distance_in_128ths_of_the_threshold(threshold):
    distance_map = around(threshold)[:, ::7]
    for distance, grey in zip(distance_map[0], to_threshold_heatmap(distance_map, None, threshold)[0], strict=True):
        exact = 128 * Fraction(float(distance)) / Fraction(threshold)
        close = {floor(exact * (1 + Fraction(rounds))) for rounds in (-2e-7, 0, 2e-7)}
        assert int(grey) in {min(max(value, 0), 255) for value in close}
        if 0 < grey < 255:
            assert grey * threshold / 128 * (1 - 1e-6) <= distance <= (grey + 1) * threshold / 128 * (1 + 1e-6)


def test_the_scale_rises_and_never_depends_on_the_image():
    distances = np.sort(RANDOM.uniform(-0.3, 1.5, 4000).astype(np.float32))[None]
    heatmap = to_threshold_heatmap(distances, None, 0.6)
    assert (np.diff(heatmap[0].astype(int)) >= 0).all()
    some = distances[:, 100:900]
    assert np.array_equal(to_threshold_heatmap(some, None, 0.6), heatmap[:, 100:900])
    assert not np.array_equal(to_heatmap(some, None, *np.percentile(some, (1, 99))), heatmap[:, 100:900])


def test_large_maps_are_worked_through_to_their_last_row():
    distances = RANDOM.uniform(0, 1, (1500, 700)).astype(np.float32)
    heatmap = to_threshold_heatmap(distances, None, 0.5)
    assert np.array_equal(heatmap >= 128, distances >= np.float32(0.5))
    assert np.array_equal(heatmap[-1:], to_threshold_heatmap(distances[-1:], None, 0.5))


def test_negative_distances_and_what_is_outside_the_mask_are_black():
    distance_map = np.float32([[-0.1, 0.4, 0.9], [0.9, -3.0, 0.2]])
    mask = np.array([[True, True, False], [True, True, False]])
    assert to_threshold_heatmap(distance_map, mask, 0.4).tolist() == [[0, 128, 0], [255, 0, 0]]
