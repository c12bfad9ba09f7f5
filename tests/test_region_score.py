"""Region scores, against a labelling of every level of a map with SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from backend.infer import find_regions, region_score


def brute_force(distance_map, mask, n_pixels):
    """The highest value of a map at which 8-connected pixels, so many or more, reach it."""
    inside = np.ones(distance_map.shape, bool) if mask is None else mask
    for level in np.unique(distance_map[inside])[::-1]:
        labels, _ = ndimage.label((distance_map >= level) & inside, np.ones((3, 3)))
        if np.bincount(labels.ravel())[1:].max() >= n_pixels:
            return float(level)
    return None


def maps(rng):
    """Small maps: noise, smooth ones, few levels, such as are below 0 in places, and one of a single level."""
    noise = rng.normal(0.5, 0.2, (11, 14)).astype(np.float32)
    return {
        "noise": noise,
        "smooth": ndimage.gaussian_filter(noise, 1.5),
        "few levels": np.round(noise * 4) / np.float32(4),
        "below 0": noise - np.float32(0.6),
        "all below 0": noise - np.float32(3),
        "flat": np.full((11, 14), 0.25, np.float32),
    }


@pytest.mark.parametrize("kind", maps(np.random.default_rng(0)))
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_score_is_the_highest_level_with_a_region_of_the_area(kind, masked):
    rng = np.random.default_rng(len(kind) + 100 * masked)
    for _ in range(5):
        distance_map = maps(rng)[kind]
        mask = None
        if masked:  # two parts that do not touch, and holes
            mask = rng.random(distance_map.shape) < 0.8
            mask[:, 6] = False
        for n_pixels in (0, 1, 2, 5, 30, 60, 154):
            expected = brute_force(distance_map, mask, n_pixels)
            assert region_score(distance_map, mask, n_pixels * 0.04, 0.2) == expected


def test_a_region_is_found_exactly_up_to_the_score():
    rng = np.random.default_rng(3)
    distance_map = ndimage.gaussian_filter(rng.random((80, 60)).astype(np.float32), 3)
    score = region_score(distance_map, None, 1.5, 0.2)
    assert find_regions(distance_map, None, score, 1.5, 0.2)
    above = float(np.nextafter(np.float32(score), np.float32(2)))
    assert find_regions(distance_map, None, above, 1.5, 0.2) == []


def test_there_is_no_score_where_the_mask_has_no_room_for_the_region():
    distance_map = np.ones((10, 10), np.float32)
    mask = np.zeros((10, 10), bool)
    mask[:3] = mask[5:8] = True  # 60 pixels, of which 30 are connected
    assert region_score(distance_map, mask, 30, 1) == 1
    assert region_score(distance_map, mask, 31, 1) is None


def test_pixels_that_touch_at_a_corner_are_one_region():
    distance_map = np.eye(6, dtype=np.float32)
    assert region_score(distance_map, None, 6, 1) == 1
    assert region_score(distance_map, None, 7, 1) == 0
