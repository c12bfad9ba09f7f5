"""How seldom the sequential test alarms without a drift, and how soon with one."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, ttest_1samp

from backend.scores import drift_detector
from backend.scores.drift_detector import ALARM_AT, DriftDetector, reference_of, rejecting_stretch, tolerated_rate

MEAN, SPREAD = 0.45, 0.03
MIDPOINT = 0.6
TOLERATED = 0.1


def starting(rng, n_ok, threshold=MIDPOINT, tolerated=TOLERATED):
    ok = rng.normal(MEAN, SPREAD, n_ok).tolist()
    threshold = float(np.percentile(ok, 99)) if threshold is None else threshold
    return DriftDetector.starting(reference_of(ok, threshold), threshold, tolerated)


def parts_to_alarm(detector, rng, most, draw):
    """How many parts it took, `most` where there was none."""
    for number in range(1, most + 1):
        detector.add(draw(), rng.random())
        if detector.alarm is not None:
            return number
    return most


def good_or_defective(rng, share, mean=MEAN):
    return lambda: 0.9 if rng.random() < share else rng.normal(mean, SPREAD)


def test_evidence_sums_bets_on_conformal_ranks_over_every_start():
    """The evidence sums, over every start that a change may have, the products of bets on ranks and on rejects."""
    rng = np.random.default_rng(1)
    ok, scores, lots = (np.round(rng.normal(MEAN, SPREAD, n) * 2048) / 2048 for n in (12, 40, 0))
    lots = rng.random(40)
    scores[7] = 0.9
    detector = DriftDetector.starting(reference_of(ok.tolist(), MIDPOINT), MIDPOINT, TOLERATED)
    bag, higher, lower, rejects = list(ok), [], [], []
    for score, lot in zip(scores, lots, strict=True):
        detector.add(float(score), float(lot))
        rejected = score >= MIDPOINT
        rejects.append([_likelihood_ratio(rejected, odds) for odds in (2, 4, 8)])
        if not rejected:
            joined = np.array([*bag, score])
            rank = ((joined < score).sum() + lot * (joined == score).sum()) / len(joined)
            higher.append([b * (1 - rank) ** (b - 1) for b in (0.3, 0.55, 0.8)])
            lower.append([b * rank ** (b - 1) for b in (0.3, 0.55, 0.8)])
            bag.append(score)
    from_each_start = {
        "higher": [np.prod(higher[start:], axis=0) for start in range(len(higher))],
        "lower": [np.prod(lower[start:], axis=0) for start in range(len(lower))],
        "rejects": [np.prod(rejects[start:], axis=0) for start in range(len(rejects))],
    }
    mean = {direction: np.sum(products, axis=0).mean() for direction, products in from_each_start.items()}
    assert detector.evidence == pytest.approx(mean["higher"] / 4 + mean["lower"] / 4 + mean["rejects"] / 2)
    assert detector.bag.sum() == len(bag)


def _likelihood_ratio(rejected, odds):
    more = odds * TOLERATED / (1 - TOLERATED)
    more /= 1 + more
    return more / TOLERATED if rejected else (1 - more) / (1 - TOLERATED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_ok", "threshold"), [(0, MIDPOINT), (10, MIDPOINT), (30, None), (100, MIDPOINT), (100, None)]
)
def test_false_alarms_are_as_rare_as_stated_for_few_ok_scores(monkeypatch, n_ok, threshold):
    """However few OK scores there are, a false alarm comes after ALARM_AT parts on average, and rarely early."""
    level, early, runs = 200, 20, 60
    monkeypatch.setattr(drift_detector, "ALARM_AT", float(level))
    rng = np.random.default_rng(n_ok)
    # Where p99 is the threshold, good parts are rejected, too: some of what is tolerated is theirs.
    share = TOLERATED if threshold else 0.02
    lengths = [
        parts_to_alarm(starting(rng, n_ok, threshold), rng, 10 * level, good_or_defective(rng, share))
        for _ in range(runs)
    ]
    assert ttest_1samp(lengths, level, alternative="less").pvalue > 0.01, "on average after ALARM_AT parts at least"
    n_early = sum(length <= early for length in lengths)
    assert binomtest(n_early, runs, early / level, alternative="greater").pvalue > 0.01, "within m parts: m / ALARM_AT"


def test_false_alarm_simulation_notices_a_test_that_alarms_too_often(monkeypatch):
    """With twice the rejects that are tolerated, the simulation that checks the rate of false alarms does fail."""
    monkeypatch.setattr(drift_detector, "ALARM_AT", 200.0)
    rng = np.random.default_rng(0)
    lengths = [parts_to_alarm(starting(rng, 30), rng, 2000, good_or_defective(rng, 2 * TOLERATED)) for _ in range(30)]
    assert ttest_1samp(lengths, 200, alternative="less").pvalue < 0.01


@pytest.mark.parametrize("n_ok", [10, 30, 100])
def test_a_few_per_cent_of_defects_in_a_thousand_parts_are_no_drift(n_ok):
    rng = np.random.default_rng(n_ok)
    detectors = [starting(rng, n_ok) for _ in range(5)]
    for detector in detectors:
        parts_to_alarm(detector, rng, 1000, good_or_defective(rng, 0.03))
    assert [detector.alarm for detector in detectors] == [None] * 5
    assert max(detector.evidence for detector in detectors) < ALARM_AT / 100


@pytest.mark.parametrize("before", [0, 300])
@pytest.mark.parametrize(("shift", "direction"), [(2, "higher"), (-2, "lower")])
def test_shift_of_good_parts_is_noticed_in_dozens_and_direction_named(before, shift, direction):
    """A shift of good parts by two standard deviations is noticed within 60 parts, even after 300 parts without one."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        detector = starting(rng, 100)
        parts_to_alarm(detector, rng, before, good_or_defective(rng, 0.03))
        assert detector.alarm is None
        parts_to_alarm(detector, rng, 60, good_or_defective(rng, 0.03, MEAN + shift * SPREAD))
        assert detector.alarm == direction


@pytest.mark.parametrize("n_ok", [30, 100])
def test_a_part_that_is_always_rejected_is_a_drift_within_fifteen(n_ok):
    rng = np.random.default_rng(2)
    detector = starting(rng, n_ok, tolerated=tolerated_rate(TOLERATED, n_ok, 0))
    assert parts_to_alarm(detector, rng, 100, lambda: 0.9) <= 15
    assert detector.alarm == "rejects"


def test_five_defects_in_a_row_are_no_drift():
    rng = np.random.default_rng(2)
    detector = starting(rng, 30)
    parts_to_alarm(detector, rng, 200, good_or_defective(rng, 0))
    assert parts_to_alarm(detector, rng, 5, lambda: 0.9) == 5
    assert detector.alarm is None


def test_later_parts_are_compared_with_the_first_without_ok_scores():
    """Without OK scores, the first parts are what later ones are compared with."""
    rng = np.random.default_rng(3)
    detector = starting(rng, 0)
    parts_to_alarm(detector, rng, 150, good_or_defective(rng, 0.03))
    assert detector.alarm is None
    parts_to_alarm(detector, rng, 60, good_or_defective(rng, 0.03, MEAN - 2 * SPREAD))
    assert detector.alarm == "lower"


def test_an_alarm_stays_and_what_comes_later_changes_nothing():
    rng = np.random.default_rng(4)
    detector = starting(rng, 30)
    parts_to_alarm(detector, rng, 100, lambda: 0.9)
    evidence, known = detector.evidence, detector.bag.sum()
    for _ in range(100):
        detector.add(MEAN, rng.random())
    assert (detector.alarm, detector.evidence, detector.bag.sum()) == ("rejects", evidence, known)


def test_equal_scores_of_one_part_are_ranked_by_lot_and_give_no_alarm():
    """The same part is inspected over and over; lots break the ties between its equal scores."""
    rng = np.random.default_rng(6)
    detector = DriftDetector.starting(reference_of([MEAN] * 30, MIDPOINT), MIDPOINT, TOLERATED)
    assert parts_to_alarm(detector, rng, 1000, lambda: MEAN) == 1000
    assert detector.alarm is None


def test_scores_beyond_every_distance_are_taken_as_the_nearest_one():
    detector = DriftDetector.starting(reference_of([-1, 0, 3], 1e6), 1e6, TOLERATED)
    detector.add(-5, 0.5)
    detector.add(1e5, 0.5)
    assert (detector.bag[0], detector.bag[-1]) == (3, 2)


@pytest.mark.parametrize(("n_ok", "n_rejected"), [(10, 1), (30, 0), (100, 1), (100, 12)])
def test_tolerated_rate_includes_the_bound_of_what_calibration_rejects(n_ok, n_rejected):
    """What the calibration itself rejects is tolerated up to the upper confidence bound of its rate."""
    bound = binomtest(n_rejected, n_ok).proportion_ci(0.98, "exact").high
    assert tolerated_rate(0.1, n_ok, n_rejected) == pytest.approx(1 - 0.9 * (1 - bound))


def test_the_bound_on_few_scores_is_that_of_clopper_and_pearson():
    """Of 10 OK scores with 1 rejected, 0.504 may be: a reject rate of that gives 1 or none in 1 % of calibrations."""
    bound = 1 - (1 - tolerated_rate(0.1, 10, 1)) / 0.9
    assert bound == pytest.approx(0.504, abs=5e-4)
    assert binom.cdf(1, 10, bound) == pytest.approx(0.01)


def test_the_rejecting_stretch_begins_where_the_rejects_did():
    rejected = [False] * 70 + [True] * 13
    assert rejecting_stretch(rejected, 0.21) == (13, 13)
    assert rejecting_stretch([True] * 5 + rejected, 0.21) == (13, 13)
    assert rejecting_stretch([False] * 9, 0.21) == rejecting_stretch([], 0.21) == (0, 0)


@pytest.mark.parametrize("tolerated", [0.05, 0.21, 0.5, 0.9])
def test_the_rejecting_stretch_rejects_more_than_is_tolerated(tolerated):
    rng = np.random.default_rng(int(100 * tolerated))
    for _ in range(50):
        rejected = (rng.random(200) < min(0.98, 1.2 * tolerated)).tolist()
        length, count = rejecting_stretch(rejected, tolerated)
        by_start = np.max([binom_ratios(rejected, odds, tolerated) for odds in (2, 4, 8)], axis=0)
        best = by_start.max()
        if best <= 0:
            assert (length, count) == (0, 0)
            continue
        assert best == pytest.approx(by_start[len(rejected) - length])
        assert count == sum(rejected[-length:]) > tolerated * length


def binom_ratios(rejected, odds, tolerated):
    """Log likelihood ratios of the rejects from each position to the end, by the binomial distribution."""
    more = odds * tolerated / (1 - tolerated)
    n, count = np.arange(len(rejected), 0, -1), np.cumsum(rejected[::-1])[::-1]
    return binom.logpmf(count, n, more / (1 + more)) - binom.logpmf(count, n, tolerated)


def test_only_defects_are_tolerated_without_ok_scores_and_never_all_parts():
    """The tolerated rate is that of defects where no OK scores are known, and 0.9 at most."""
    assert tolerated_rate(0.1, 0, 0) == 0.1
    assert tolerated_rate(0.1, 3, 3) == 0.9
    rng = np.random.default_rng(0)
    detector = DriftDetector.starting({}, MIDPOINT, 0.9)
    assert parts_to_alarm(detector, rng, 1000, lambda: 0.9) < 200
