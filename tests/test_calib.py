"""From scores to a threshold, and what is recorded beside it."""

import math
from fractions import Fraction

import pytest

from backend.calib import Calibration, calibrate, choose_threshold


def percentile_by_hand(scores, percent):
    """Linear interpolation between order statistics, in exact fractions."""
    ordered = sorted(Fraction(score) for score in scores)
    place = Fraction(percent, 100) * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def calibrated(ok_scores, ng_scores, **changes):
    values = {"mm_per_px": 0.2, "area_mm2_thr": 1.0, "score_percentile": 99, "memory_id": "a1"}
    return calibrate(ok_scores, ng_scores, **{**values, **changes})


def test_a_worked_example():
    # p99 of 1..5 lies at place 3.96: 4 + 0.96. p5 of 10, 20 at place 0.05: 10 + 0.05 · 10.
    assert choose_threshold([3, 1, 5, 2, 4]) == pytest.approx(4.96)
    assert choose_threshold([3, 1, 5, 2, 4], [20, 10]) == pytest.approx((4.96 + 10.5) / 2)


@pytest.mark.parametrize("n_ok", [1, 2, 3, 7, 100, 101, 250])
@pytest.mark.parametrize("n_ng", [0, 1, 2, 20, 21, 99])
def test_threshold_is_p99_of_ok_or_midpoint_of_that_and_p5_of_ng(n_ok, n_ng):
    """Without NG scores the threshold is p99 of the OK scores."""
    ok_scores = [0.3 + 0.17 * (i * 37 % 101) / 101 for i in range(n_ok)]
    ng_scores = [0.6 + 0.5 * (i * 53 % 89) / 89 for i in range(n_ng)]
    p99_ok = percentile_by_hand(ok_scores, 99)
    p5_ng = percentile_by_hand(ng_scores, 5) if ng_scores else None
    expected = p99_ok if p5_ng is None else (p99_ok + p5_ng) / 2

    calibration = calibrated(ok_scores, ng_scores)

    assert choose_threshold(ok_scores, ng_scores) == pytest.approx(expected, rel=1e-12)
    assert calibration.threshold == pytest.approx(expected, rel=1e-12)
    assert calibration.p99_ok == pytest.approx(p99_ok, rel=1e-12)
    assert calibration.p5_ng == (None if p5_ng is None else pytest.approx(p5_ng, rel=1e-12))
    assert (calibration.n_ok, calibration.n_ng) == (n_ok, n_ng)


def test_means_are_means():
    calibration = calibrated([0.1, 0.2, 0.6], [1.0, 2.0])
    assert calibration.ok_mean == pytest.approx(0.3)
    assert calibration.ng_mean == 1.5
    assert calibrated([0.1], []).ng_mean is None
    assert calibrated([0.1] * 10, []).ok_mean == 0.1


@pytest.mark.parametrize(
    ("ok_scores", "ng_scores", "overlap"),
    [
        ([1, 2, 3], [4, 5], False),
        ([1, 2, 3], [3, 5], True),  # a tie: at the threshold an image is a defect
        ([1, 9], [4, 5], True),
        ([5, 6], [1, 2], True),  # the wrong way round
        ([1, 2, 3], [], None),
    ],
)
def test_classes_that_overlap_are_said_to(ok_scores, ng_scores, overlap):
    calibration = calibrated(ok_scores, ng_scores)
    assert calibration.overlap is overlap
    if overlap:
        assert calibration.warning is not None
        assert "overlap" in calibration.warning
    else:
        assert calibration.warning is None


def test_score_percentile_99_stays_an_integer_and_99_9_a_fraction():
    for given, stored in [(99, 99), (99.0, 99), (100.0, 100), (99.9, 99.9)]:
        kept = calibrated([1.0], [], score_percentile=given).score_percentile
        assert kept == stored
        assert type(kept) is type(stored)


def test_what_was_given_is_recorded():
    calibration = calibrated([1.0], [], mm_per_px=0.05, area_mm2_thr=2.5, memory_id=None)
    assert calibration == Calibration(
        threshold=1.0,
        score_percentile=99,
        area_mm2_thr=2.5,
        mm_per_px=0.05,
        p99_ok=1.0,
        ok_mean=1.0,
        n_ok=1,
        n_ng=0,
    )
    assert calibrated([1.0], [], memory_id="b2").memory_id == "b2"


def test_without_an_ok_score_there_is_no_threshold():
    with pytest.raises(ValueError, match="at least one OK score"):
        choose_threshold([])
    with pytest.raises(ValueError, match="at least one OK score"):
        calibrated([], [1.0])
