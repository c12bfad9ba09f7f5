"""The recommended threshold: its limit against Student's prediction interval, and what unusual and NG scores do."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from backend.calib import ThresholdOptions, calibrate, recommended_for
from backend.common.errors import InvalidRequest
from backend.scores import recommended_threshold
from backend.scores.outliers import outliers
from backend.scores.promise import upper_bound
from backend.scores.recommended_threshold import MISSED_PER_NG, REJECTED_RATE, cheapest, recommend

OK = stats.norm(0.5, 0.03).ppf((np.arange(30) + 0.5) / 30).tolist()
score = st.floats(0.1, 1.5, allow_nan=False)


def calibrated(ok, ng=(), **options):
    return calibrate(
        list(ok),
        list(ng),
        mm_per_px=0.2,
        area_mm2_thr=1,
        score_percentile=99,
        memory_id=None,
        options=ThresholdOptions(**options),
    )


def test_the_limit_is_the_prediction_limit_of_the_next_score():
    limit = recommend(OK).threshold
    low, high = stats.t(len(OK) - 1, np.mean(OK), np.std(OK, ddof=1) * math.sqrt(1 + 1 / len(OK))).interval(
        1 - 2 * REJECTED_RATE
    )
    assert low < high == pytest.approx(limit, rel=1e-12)


@pytest.mark.slow
def test_the_limit_rejects_as_many_good_parts_as_it_says():
    rng = np.random.default_rng(0)
    rejected = [rng.normal() >= recommend(rng.normal(size=12).tolist()).threshold for _ in range(4000)]
    # Scores that chance makes stand out are left out now and then, so somewhat more than 2.5 %.
    assert 0.02 < np.mean(rejected) < 0.055


def test_unusual_scores_do_not_count_unless_they_are_kept():
    found = recommend([*OK, 0.8, 0.9])
    assert found.unusual == (30, 31)
    assert found.threshold == recommend(OK).threshold
    assert found.threshold_with_unusual > 0.6
    assert "2 scores stand out" in found.why
    assert "0.8 (position 30), 0.9 (position 31)" in found.why
    kept = recommend([*OK, 0.8, 0.9], keep=(30, 31))
    assert kept.unusual == ()
    assert kept.threshold == found.threshold_with_unusual


def test_ng_scores_above_the_limit_change_nothing():
    assert recommend(OK, [0.7, 0.9]) == recommend(OK)


def test_one_ng_score_below_the_limit_lowers_it_to_reject_that_part():
    limit = recommend(OK).threshold
    low = limit - 0.004
    found = recommend(OK, [low, 0.9])
    assert found.threshold_of_ok == limit
    assert max(value for value in [*OK, 0] if value < low) < found.threshold <= low
    assert found.lowered_by == (0,)


def test_an_ng_score_among_the_good_ones_does_not_lower_it():
    found = recommend(OK, [float(np.median(OK))])
    assert found.threshold == recommend(OK).threshold
    assert "1 of 1 NG scores is still below the threshold" in found.why


@given(st.lists(score, min_size=1, max_size=12), st.lists(score, max_size=8), score)
def test_ng_scores_never_raise_it_and_higher_ones_never_change_it(ok, ng, further):
    alone, before = recommend(ok).threshold, recommend(ok, ng).threshold
    assert before <= alone
    if further >= max([before, *ng]):
        assert recommend(ok, [*ng, further]).threshold == before


@given(st.lists(score, min_size=2, max_size=12), st.lists(score, min_size=1, max_size=8))
def test_the_lowered_threshold_costs_least_of_all_candidates(ok, ng):
    counted = np.delete(ok, outliers(ok))
    degrees, n = max(len(counted) - 1, 4), len(counted)
    deviation = max(np.std(counted, ddof=1) if n > 1 else 0, 0.02 * np.mean(counted)) * math.sqrt(1 + 1 / n)

    def cost(threshold):
        rejected = stats.t.sf((threshold - np.mean(counted)) / deviation, degrees)
        return MISSED_PER_NG * sum(value < threshold for value in ng) + max(np.mean(counted >= threshold), rejected)

    found = recommend(ok, ng)
    escaping = [value for value in ng if value < found.threshold_of_ok]
    least = min(cost(value) for value in [found.threshold_of_ok, *escaping])
    rejected_first = min((value for value in ng if value >= found.threshold), default=math.inf)
    assert cost(min(rejected_first, found.threshold_of_ok)) == pytest.approx(least, abs=1e-9)


def test_few_scores_are_said_to_be_few():
    assert "3 are few: 10 or more show how much good parts vary" in recommend([0.41, 0.44, 0.39]).why
    assert "is a guess" in recommend([0.41]).why
    assert recommend([0.41]).threshold > 0.41
    assert recommend([0.5] * 20).threshold > 0.5, "equal scores do not reject one another"


def test_the_cheapest_threshold_is_that_of_a_search_over_all():
    rng = np.random.default_rng(5)
    ok, ng = rng.normal(0.5, 0.05, 60), rng.normal(0.65, 0.1, 20)

    def cost(threshold, escape_cost, defect_rate):
        spread = stats.t(len(ok) - 1, ok.mean(), ok.std(ddof=1) * math.sqrt(1 + 1 / len(ok)))
        rejected = max(np.mean(ok >= threshold), spread.sf(threshold))
        return defect_rate * escape_cost * np.mean(ng < threshold) + (1 - defect_rate) * rejected

    for given_costs in [(1, 0.5), (100, 0.01), (1000, 0.01), (1, 0.01)]:
        assert outliers(ok.tolist()) == []
        found = cheapest(ok.tolist(), ng.tolist(), *given_costs)
        least = min(cost(threshold, *given_costs) for threshold in np.linspace(0.3, 1.2, 2000))
        # It lies half way to the next lower score, which rejects somewhat more good parts than the best there.
        assert cost(found, *given_costs) <= least + 0.05
    dear, cheap = (cheapest(ok.tolist(), ng.tolist(), escape_cost, 0.01) for escape_cost in (1000, 1))
    assert dear < cheap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "recommended", "threshold": 0.5}, "rule=recommended and threshold cannot be combined"),
        (
            {"target_false_reject_rate": 0.1, "threshold": 0.5},
            "target_false_reject_rate and threshold cannot be combined",
        ),
        ({"escape_cost": 5.0}, "escape_cost and defect_rate belong together"),
        ({"escape_cost": 5.0, "defect_rate": 0.1}, "needs at least 10 NG scores, but there are 2"),
        ({"keep": (0,)}, "keep needs rule=recommended"),
        ({"rule": "recommended", "keep": (30,)}, "keep names position 30, but there are only 30 OK scores"),
        ({"rule": "recommended", "keep": (1,), "not_good": (1,)}, "position 1 is in keep and in not_good"),
        ({"not_good": tuple(range(30))}, "not_good names every OK score"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InvalidRequest, match=message):
        calibrated(OK, [0.6, 0.7], **options)


def test_scores_that_are_not_of_good_parts_count_nowhere():
    with_bad = [0.9, *OK, 0.8]
    found = calibrated(with_bad, rule="recommended", not_good=(0, 31))
    expected = calibrated(OK, rule="recommended")
    assert (found.threshold, found.n_ok, found.promise) == (expected.threshold, 30, expected.promise)
    assert calibrated(with_bad, not_good=(0, 31)).threshold == calibrated(OK).threshold


def test_positions_are_those_of_the_request():
    found = calibrated([0.9, *OK, 0.8], rule="recommended", not_good=(0,))
    assert found.unusual == (31,)
    assert "0.8 (position 31)" in found.why


def test_scores_that_were_left_out_count_as_rejected_in_the_promise():
    found = calibrated([*OK, 0.8, 0.9], rule="recommended")
    assert found.promise.n_rejected == sum(value >= found.threshold for value in OK) + 2


def test_a_manual_threshold_is_taken_and_marked():
    found = calibrated(OK, [0.6, 0.7], threshold=0.65)
    assert (found.threshold, found.rule) == (0.65, "manual")
    assert (found.promise.n_rejected, found.promise.n_escaped) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("process", ["normal", "heavy tails", "two kinds"])
@pytest.mark.parametrize("options", [{"rule": "recommended"}, {"escape_cost": 20, "defect_rate": 0.05}])
def test_bounds_hold_for_thresholds_that_are_chosen_freely(process, options):
    """Each bound fails in at most 5 % of the calibrations, and by chance in a little more."""
    rng = np.random.default_rng(11)
    processes = {
        "normal": stats.norm(0.5, 0.05),
        "heavy tails": stats.t(2, 0.5, 0.05),
        "two kinds": stats.beta(0.3, 0.3),
    }
    good, bad = processes[process], stats.norm(0.62, 0.08)
    repetitions, failed = 400, np.zeros(2)
    for _ in range(repetitions):
        found = calibrated(good.rvs(25, random_state=rng), bad.rvs(12, random_state=rng), **options)
        failed += [
            good.sf(found.threshold) > found.promise.false_reject_rate_at_most,
            bad.cdf(found.threshold) > found.promise.escape_rate_at_most,
        ]
    assert (failed <= stats.binom.ppf(0.9999, repetitions, 0.05)).all()


def test_thresholds_are_weighed_together_however_many_scores_there_are(monkeypatch):
    """One by one, those of a million scores each took hours, in which the service answered nobody."""
    rng = np.random.default_rng(0)
    ok, ng = rng.normal(0.4, 0.03, 20_000), rng.normal(0.45, 0.05, 20_000)
    asked = []
    rejected = recommended_threshold._rejected
    monkeypatch.setattr(
        recommended_threshold, "_rejected", lambda thresholds, *rest: asked.append(1) or rejected(thresholds, *rest)
    )
    recommend(ok.tolist(), ng.tolist())
    cheapest(ok.tolist(), ng.tolist(), 100, 0.01)
    assert len(asked) <= 3


def test_an_unusual_score_below_the_threshold_counts_as_rejected_too():
    found = calibrated([0.4] * 6 + [0.44] * 4 + [0.45], rule="recommended")
    assert found.unusual == (10,)
    assert found.threshold > 0.45
    assert found.promise.n_rejected == 1


def test_the_bound_of_a_count_has_its_own_share_of_the_error():
    found = calibrated(OK, threshold=sorted(OK)[-4])
    assert found.promise.n_rejected == 4
    share = 6 / (math.pi * 5) ** 2
    assert found.promise.false_reject_rate_at_most == upper_bound(4, len(OK), 1 - 0.05 * share)
    assert sum(6 / (math.pi * (count + 1)) ** 2 for count in range(100_000)) == pytest.approx(1, abs=1e-4)


def test_unusual_scores_that_overlap_the_ng_ones_are_no_overlap_to_warn_of():
    found = calibrated([*OK, 0.9], [0.7, 0.75, 0.8], rule="recommended")
    assert found.overlap
    assert found.warning is None
    assert "no threshold separates them" in calibrated([*OK, 0.9], [0.7, 0.75, 0.8]).warning


def test_the_recommendation_leaves_out_what_is_not_good():
    options = ThresholdOptions(not_good=(0,))
    found = recommended_for([0.9, *OK, 0.8], [], options)
    assert (found.unusual, found.threshold) == ((31,), recommend([*OK, 0.8]).threshold)


def test_neighbours_in_floating_point_reject_no_good_part():
    next_one = math.nextafter(0.5, 1)
    assert cheapest([0.5] * 30, [next_one] * 10, 1e6, 0.5) == next_one
    assert recommend([0.0] * 10).threshold > 0
