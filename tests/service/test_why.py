"""The sentences beside a decision: true, and with as many digits as tell numbers apart."""

import re

import numpy as np
import pytest

from backend.calib import Calibration
from backend.infer import Inference, find_regions
from backend.roi_mask import parse_shape
from backend.service.scoring import Scoring
from backend.service.why import about_regions, about_score, why_of


def judged(level_of, score, calibration, state="applied", shape=None):
    """Why a map of 20x20 pixels of 1 mm was judged so: 0.5 all over, and rectangles of other levels."""
    distance_map = np.full((20, 20), 0.5, np.float32)
    for (x, y, w, h), level in level_of.items():
        distance_map[y : y + h, x : x + w] = level
    regions = []
    if calibration is not None:
        regions = find_regions(distance_map, None, calibration.region_threshold, calibration.area_mm2_thr, 1.0)
    heatmap, embeddings = np.zeros((20, 20), np.uint8), np.zeros((1, 1), np.float32)
    inference = Inference(score, regions, (), heatmap, distance_map, embeddings, distance_map)
    scoring = Scoring(1.0, parse_shape(shape), with_why=True)
    return why_of(inference, calibration, state, scoring, percentile=99, area_mm2=1.0)


def by(decide_by, threshold=0.71, pixel_threshold=0.8, area=4.0):
    level = None if decide_by is None else pixel_threshold
    return Calibration(threshold, 99, area, 1.0, decide_by=decide_by, pixel_threshold=level)


SMALL = {(1, 1, 3, 1): 0.9, (8, 8, 1, 1): 0.85}
LARGE = {(1, 1, 5, 4): 0.9, **{(10, 10, 2, 2): 0.9}}

BELOW, REACHED = "The score 0.70 is below the threshold 0.71.", "The score 0.75 reaches the threshold 0.71."


@pytest.mark.parametrize(
    ("decide_by", "map_of", "score", "why"),
    [
        (None, {}, 0.7, BELOW),
        (
            None,
            SMALL,
            0.7,
            f"{BELOW} 2 regions reach it and are smaller than 4 mm²: the largest has 3 mm².",
        ),
        (
            None,
            LARGE,
            0.7,
            f"{BELOW} 2 regions reach it, but the score is p99 of the map, which leaves out the highest 1 % of the "
            "pixels.",
        ),
        (None, LARGE, 0.75, f"{REACHED} 2 regions reach it: the largest has 20 mm²."),
        (
            None,
            SMALL,
            0.75,
            f"{REACHED} No region of 4 mm² or more does: the largest has 3 mm².",
        ),
        ("region", LARGE, 0.75, "2 regions of 4 mm² or more reach the pixel threshold 0.80: the largest has 20 mm²."),
        (
            "region",
            LARGE,
            0.7,
            "2 regions of 4 mm² or more reach the pixel threshold 0.80: the largest has 20 mm². The score 0.70 "
            "is below the threshold 0.71, which does not decide here.",
        ),
        (
            "region",
            SMALL,
            0.75,
            "No region of 4 mm² or more reaches the pixel threshold 0.80. 2 smaller ones do: the largest has 3 mm². "
            "The score 0.75 reaches the threshold 0.71, which does not decide here.",
        ),
        ("region", {(0, 0, 9, 9): 0.79}, 0.7, "No pixel reaches the pixel threshold 0.80: the highest value is 0.79."),
        (
            "either",
            SMALL,
            0.7,
            f"{BELOW} No region of 4 mm² or more reaches the pixel threshold 0.80. 2 "
            "smaller ones do: the largest has 3 mm².",
        ),
        (
            "either",
            {(0, 0, 2, 2): 0.8},
            0.75,
            f"{REACHED} 1 region of 4 mm² or more reaches the pixel threshold 0.80: it has 4 mm².",
        ),
    ],
)
def test_a_decision_says_what_it_rests_on(decide_by, map_of, score, why):
    assert judged(map_of, score, by(decide_by)) == why


def test_without_a_threshold_it_says_what_to_do():
    assert judged({}, 0.7, None, "none") == "The ROI has no threshold: calibrate it."
    assert judged({}, 0.7, None, "stale").endswith("so it has no threshold: calibrate again.")


def test_what_is_masked_is_not_told():
    why = judged({(0, 0, 9, 9): 0.9}, 0.6, by("region"), shape='{"kind":"rect","x":10,"y":0,"w":10,"h":20}')
    assert "the highest value is 0.50" in why


@pytest.mark.parametrize("seed", range(20))
def test_two_numbers_that_are_compared_never_look_the_same(seed):
    rng = np.random.default_rng(seed)
    limit = rng.uniform(0.2, 1.5)
    for exponent in range(1, 17):
        value = limit - 10.0**-exponent
        for sentence in (about_score(value, limit), about_regions([], [], value, limit, 4)):
            one, other, *_ = re.findall(r"\d+\.\d+", sentence)
            assert (one == other) == (value == limit)
    area = float(np.nextafter(4.0, 0))
    assert "the largest has 3.9999999999999996 mm²" in about_regions([], [area, 1], 1, 0.5, 4)
