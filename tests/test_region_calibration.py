"""From image scores and region scores to decisions by regions."""

import numpy as np
import pytest

from backend.calib import ThresholdOptions, calibrate, choose_threshold
from backend.common.errors import InvalidRequest
from backend.region_calibration import RegionScores, calibrate_by_regions, check_ways
from backend.scores.recommended_threshold import recommend

CONDITIONS = {"mm_per_px": 0.2, "area_mm2_thr": 4.0, "score_percentile": 99.5, "memory_id": "a"}
RNG = np.random.default_rng(5)
OK = RNG.normal(0.5, 0.03, 40).tolist()
NG = RNG.normal(0.7, 0.05, 12).tolist()
OK_REGIONS = [float(np.float32(score)) for score in RNG.normal(0.6, 0.05, 40)]
NG_REGIONS = [float(np.float32(score)) for score in RNG.normal(0.9, 0.03, 12)]


def by_regions(decide_by, *, with_ng=False, pixel_threshold=None, regions=OK_REGIONS, **options):
    given = RegionScores(decide_by, regions, NG_REGIONS if with_ng else [], pixel_threshold)
    return calibrate_by_regions(
        OK, NG if with_ng else [], given, options=ThresholdOptions(**options), ok_are_fresh=True, **CONDITIONS
    )


def by_score(scores, ng=(), **options):
    return calibrate(scores, ng, options=ThresholdOptions(**options), ok_are_fresh=True, **CONDITIONS)


@pytest.mark.parametrize("with_ng", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"rule": "recommended"}, {"target_false_reject_rate": 0.1}], ids=["contract", "recommended", "rate"]
)
def test_by_region_the_rule_and_promise_are_those_of_region_scores(options, with_ng):
    found = by_regions("region", with_ng=with_ng, **options)
    of_scores = by_score(OK, NG if with_ng else (), **options)
    of_regions = by_score(OK_REGIONS, NG_REGIONS if with_ng else (), **options)
    assert found.pixel_threshold == pytest.approx(of_regions.threshold, rel=1e-7)
    assert found.pixel_threshold >= of_regions.threshold
    assert (found.promise, found.pixel_why) == (of_regions.promise, of_regions.why)
    assert (found.threshold, found.why, found.p99_ok) == (of_scores.threshold, of_scores.why, of_scores.p99_ok)
    assert found.pixel_overlap == of_regions.overlap


@pytest.mark.parametrize("decide_by", ["region", "either"])
def test_a_chosen_pixel_threshold_is_a_number_that_maps_hold(decide_by):
    """Else a map value between it and the nearest float32 would be a region without a region score that reaches it."""
    for options in ({}, {"rule": "recommended"}, {"target_false_reject_rate": 0.1}):
        threshold = by_regions(decide_by, **options).pixel_threshold
        assert float(np.float32(threshold)) == threshold


def test_by_either_the_recommended_rule_gives_half_its_rate_to_each_test():
    found = by_regions("either", rule="recommended")
    assert found.threshold == recommend(OK, rate=0.0125).threshold
    assert found.pixel_threshold == pytest.approx(recommend(OK_REGIONS, rate=0.0125).threshold, rel=1e-7)
    assert found.why.startswith("about 1.25 % of good parts score above")
    assert found.pixel_why.startswith("about 1.25 % of good parts score above")


def test_by_either_the_contracts_rule_is_applied_to_each():
    found = by_regions("either", with_ng=True)
    assert found.threshold == choose_threshold(OK, NG)
    assert found.pixel_threshold == pytest.approx(choose_threshold(OK_REGIONS, NG_REGIONS), rel=1e-7)


def test_by_either_a_rate_is_that_of_both_tests_together():
    found = by_regions("either", target_false_reject_rate=0.1)
    rejected = [s >= found.threshold or r >= found.pixel_threshold for s, r in zip(OK, OK_REGIONS, strict=True)]
    assert sum(rejected) <= 3  # floor(41 * 0.1) - 1
    assert found.promise.n_rejected == sum(rejected)
    assert found.promise.false_reject_rate == 4 / 41


def test_by_either_parts_that_any_test_rejects_are_counted():
    found = by_regions("either", threshold=0.5, pixel_threshold=0.6)
    pairs = list(zip(OK, OK_REGIONS, strict=True))
    assert found.promise.n_rejected == sum(s >= 0.5 or r >= np.float32(0.6) for s, r in pairs)
    assert (found.threshold, found.pixel_threshold, found.rule) == (0.5, 0.6, "manual")


def test_an_image_that_stands_out_by_its_regions_does_not_count():
    regions = [*OK_REGIONS[:-1], 1.5]
    found = by_regions("region", regions=regions, rule="recommended")
    assert (found.unusual, found.pixel_unusual) == (None, (39,))
    assert found.promise.n_rejected == sum(score >= found.pixel_threshold for score in regions) > 0
    kept = by_regions("region", regions=regions, rule="recommended", keep=(39,))
    assert kept.pixel_unusual is None
    assert kept.pixel_threshold > found.pixel_threshold
    left = by_regions("either", regions=regions, rule="recommended", not_good=(39,))
    assert (left.n_ok, left.pixel_unusual) == (39, None)


def test_overlapping_regions_are_told_where_they_decide():
    regions = [*OK_REGIONS[:-1], max(NG_REGIONS)]
    assert "OK and NG parts overlap" in by_regions("region", with_ng=True, regions=regions).warning
    assert by_regions("region", with_ng=True).warning is None
    assert by_regions("region", with_ng=True, regions=regions, rule="recommended").warning is None


def test_overlapping_scores_are_not_told_where_they_decide_nothing():
    scores = [*OK[:-1], max(NG)]
    found = calibrate_by_regions(scores, NG, RegionScores("region", OK_REGIONS, NG_REGIONS), **CONDITIONS)
    assert found.overlap
    assert found.warning is None


@pytest.mark.parametrize("scores_overlap", [False, True])
@pytest.mark.parametrize("regions_overlap", [False, True])
def test_by_either_each_overlap_is_told(scores_overlap, regions_overlap):
    scores = [*OK[:-1], max(NG)] if scores_overlap else OK
    regions = [*OK_REGIONS[:-1], max(NG_REGIONS)] if regions_overlap else OK_REGIONS
    found = calibrate_by_regions(scores, NG, RegionScores("either", regions, NG_REGIONS), **CONDITIONS)
    told = found.warning or ""
    assert ("OK and NG scores overlap" in told, "so no pixel threshold separates" in told) == (
        scores_overlap,
        regions_overlap,
    )


def test_the_cost_of_regions_is_weighed_by_their_scores():
    costs = {"escape_cost": 50.0, "defect_rate": 0.02}
    found = by_regions("region", with_ng=True, **costs)
    assert found.pixel_threshold == pytest.approx(by_score(OK_REGIONS, NG_REGIONS, **costs).threshold, rel=1e-7)
    assert found.rule == "cost"


@pytest.mark.parametrize(
    ("decide_by", "pixel_threshold", "options", "told"),
    [
        ("score", 0.5, {}, "pixel_threshold needs decide_by=region or decide_by=either"),
        ("region", 0.5, {"rule": "recommended"}, "pixel_threshold cannot be combined with rule=recommended"),
        ("either", 0.5, {"target_false_reject_rate": 0.1}, "pixel_threshold cannot be combined"),
        ("region", None, {"threshold": 0.5}, "decide_by=region also uses a pixel threshold: send pixel_threshold"),
        ("either", None, {"threshold": 0.5}, "decide_by=either also uses a pixel threshold"),
        ("either", 0.5, {}, "decide_by=either uses two thresholds: send threshold together with pixel_threshold"),
        ("either", None, {"escape_cost": 5, "defect_rate": 0.1}, "escape_cost chooses one threshold"),
    ],
)
def test_half_of_a_way_or_two_ways_at_once_are_refused(decide_by, pixel_threshold, options, told):
    with pytest.raises(InvalidRequest, match=told):
        check_ways(decide_by, pixel_threshold, ThresholdOptions(**options))


@pytest.mark.parametrize(
    ("decide_by", "low", "high", "regions", "both"),
    [(None, False, True, False, True), ("region", False, False, True, True), ("either", False, True, True, True)],
)
def test_what_decides_is_what_was_asked_for(decide_by, low, high, regions, both):
    found = by_regions(decide_by, threshold=0.5, pixel_threshold=0.6) if decide_by else by_score(OK, threshold=0.5)
    decisions = [found.is_defective(score, n) for score, n in ((0.4, 0), (0.5, 0), (0.4, 1), (0.6, 2))]
    assert decisions == [low, high, regions, both]
    assert found.region_threshold == (0.6 if decide_by else 0.5)
