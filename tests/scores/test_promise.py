"""What thresholds promise, against simulations with known distributions and an integral over the worst of them."""

import json
from dataclasses import dataclass
from math import ceil, floor, inf, nextafter

import numpy as np
import pytest
from scipy import stats
from scipy.special import betainc

from backend.calib import Calibration, ThresholdOptions, calibrate, choose_threshold, conformal_threshold
from backend.scores.promise import _SHARE_OF_MIXED, Promise, make_promise, upper_bound

REPETITIONS = 800


def calibrated(ok, ng=(), *, n_candidates=1, ok_are_fresh=None, **options) -> Calibration:
    given = {"mm_per_px": 0.2, "area_mm2_thr": 1.0, "score_percentile": 99, "memory_id": None}
    return calibrate(
        list(ok),
        list(ng),
        **given,
        options=ThresholdOptions(**options),
        n_candidates=n_candidates,
        ok_are_fresh=ok_are_fresh,
    )


def most_failures(errors: float, repetitions: int = REPETITIONS) -> float:
    """What a binomial count of failures of this probability exceeds once in 10,000 tests, as a share."""
    return float(stats.binom.ppf(0.9999, repetitions, errors)) / repetitions


# --- bounds


@pytest.mark.parametrize("n", [1, 2, 10, 299, 5000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.985])
def test_the_bound_of_a_count_is_that_of_clopper_and_pearson(n, confidence):
    for count in {0, 1, n // 3, n - 1, n}:
        interval = stats.binomtest(count, n, alternative="less").proportion_ci(confidence, "exact")
        assert upper_bound(count, n, confidence) == pytest.approx(interval.high, rel=1e-9)


def worst_failure_rate(n, rank, error):
    """How often a bound at confidence 1 - `error` can fail that counts the scores on one side of a threshold which may
    be any function of the order statistics `rank` and `rank` + 1: the integral over these two of the most likely
    failure given them, where the scores below and above are samples again.

    From above but for the chance in the second order statistic: failures given an order statistic get rarer as it
    rises, so a cell of the integral is taken at its lower end.
    """
    counts = np.arange(n + 1)
    lowest = np.r_[0, stats.beta.ppf(error, counts[1:], n - counts[1:] + 1)]  # a true rate below it breaks the bound

    def below(u):
        m = counts[1:rank]
        return betainc(m, rank - m, np.minimum(1, lowest[m] / u[:, None])).max(axis=1, initial=0)

    def above(u):
        m = counts[rank + 2 :]
        share = np.clip((lowest[m] - u[:, None]) / (1 - u[:, None]), 0, 1)
        failures = betainc(m - rank - 1, n - m + 1, share).max(axis=1, initial=0)
        return np.where(u < lowest[rank + 1], 1, failures)

    def from_above(failures, u):
        cells = np.quantile(u, np.linspace(0, 1, 500))
        return failures(cells)[np.clip(np.searchsorted(cells, u, "right") - 1, 0, len(cells) - 1)]

    shares = (np.arange(50_000) + 0.5) / 50_000
    first = stats.beta.ppf(shares, rank, n + 1 - rank)
    worst = np.where(first < lowest[rank], 1, from_above(below, first))
    if rank < n:
        second = first + (1 - first) * np.random.default_rng(0).beta(1, n - rank, len(first))
        worst = np.maximum(worst, from_above(above, second))
    return worst.mean()


@pytest.mark.parametrize("n_candidates", _SHARE_OF_MIXED)
@pytest.mark.parametrize("n", [2, 3, 10, 20, 21, 30, 40, 50, 80, 100, 101, 150, 200, 300, 400, 1000])
def test_no_mixture_of_both_classes_breaks_a_bound_more_than_stated(n, n_candidates):
    """A threshold may mix a percentile of one class with scores of the other; bounds still hold as often as stated."""
    below_p99 = floor(0.99 * (n - 1)) + 1
    above_p5 = max(1, n - floor(0.05 * (n - 1)) - 1)  # mirrored: of the defective scores in falling order
    error = 0.05 / n_candidates
    for rank in {below_p99, above_p5}:
        assert worst_failure_rate(n, rank, error * _SHARE_OF_MIXED[n_candidates]) <= error


# --- simulations


@dataclass(frozen=True)
class Process:
    """A distribution of scores on a grid of `step`, or on none."""

    law: object
    step: float = 0

    def draw(self, rng, n):
        values = self.law.rvs(size=n, random_state=rng)
        return np.round(values / self.step) * self.step if self.step else values

    def reaching(self, threshold):
        """Probability of a score at or above a threshold."""
        if self.step:
            threshold = (ceil(threshold / self.step) - 0.5) * self.step
        return float(self.law.sf(threshold))


NORMAL = Process(stats.norm())
HEAVY = Process(stats.pareto(0.7))
BOUNDED = Process(stats.beta(5, 0.6))
COARSE = Process(stats.norm(), 0.5)
FEW_VALUES = Process(stats.norm(8), 4)  # three, none of them 0
OK = {"normal": NORMAL, "heavy": HEAVY, "bounded": BOUNDED, "coarse": COARSE, "few values": FEW_VALUES}


def failures(ok, ng, n_ok, n_ng, **options):
    """How often the bounds of false rejects and of escapes failed, and the mean true false reject rate."""
    rng = np.random.default_rng([n_ok, n_ng, len(options)])
    rejects = escapes = 0
    rates = []
    for _ in range(REPETITIONS):
        calibration = calibrated(ok.draw(rng, n_ok), ng.draw(rng, n_ng) if n_ng else (), **options)
        rates.append(ok.reaching(calibration.threshold))
        rejects += rates[-1] > calibration.promise.false_reject_rate_at_most + 1e-12
        if n_ng:
            escaping = 1 - ng.reaching(calibration.threshold)
            escapes += escaping > calibration.promise.escape_rate_at_most + 1e-12
    return rejects / REPETITIONS, escapes / REPETITIONS, np.mean(rates), np.std(rates) / REPETITIONS**0.5


@pytest.mark.parametrize("n", [1, 12, 101])
@pytest.mark.parametrize("process", OK)
def test_the_bound_of_p99_holds_as_often_as_stated(process, n):
    rejects, *_ = failures(OK[process], None, n, 0)
    assert rejects <= most_failures(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 2.5, 8])  # from no difference to far apart
@pytest.mark.parametrize(("n_ok", "n_ng"), [(1, 1), (10, 30), (120, 5)])
@pytest.mark.parametrize("process", ["normal", "heavy", "coarse"])
def test_the_bounds_of_the_midpoint_hold_as_often_as_stated(process, n_ok, n_ng, shift):
    ng = Process(stats.norm(shift, 1.5), OK[process].step)
    rejects, escapes, *_ = failures(OK[process], ng, n_ok, n_ng)
    assert rejects <= most_failures(0.05)
    assert escapes <= most_failures(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "target"), [(5, 0.3), (5, 0.01), (40, 0.05), (99, 0.01)])
@pytest.mark.parametrize("process", OK)
def test_a_target_is_kept_on_average_and_its_bound_as_often_as_stated(process, n, target):
    ng = Process(stats.norm(2), OK[process].step)
    rejects, escapes, mean, error = failures(OK[process], ng, n, 20, target_false_reject_rate=target)
    assert mean <= max(target, 1 / (n + 1)) + 4 * error
    assert rejects <= most_failures(0.05)
    assert escapes <= most_failures(0.05)


def test_bound_of_a_threshold_above_all_scores_is_as_tight_as_possible():
    rejects, *_ = failures(NORMAL, None, 60, 0, target_false_reject_rate=0.001)
    assert 1 - most_failures(0.95) <= rejects <= most_failures(0.05), "no smaller number would hold"


def test_the_observed_share_as_a_promise_would_be_broken_far_more_often():
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(500):
        scores = NORMAL.draw(rng, 30)
        broken += NORMAL.reaching(choose_threshold(list(scores))) > 1 / 30
    assert broken / 500 > 0.3


# --- the target


@pytest.mark.parametrize(("n", "target", "rank"), [(99, 0.01, 99), (98, 0.01, 98), (100, 0.29, 72), (199, 0.01, 198)])
def test_the_threshold_of_a_target_lies_just_above_the_score_of_its_rank(n, target, rank):
    scores = list(np.random.default_rng(n).permutation(n) / n)
    threshold, found = conformal_threshold(scores, target)
    assert (threshold, found) == (nextafter(sorted(scores)[rank - 1], inf), rank)
    assert sum(score >= threshold for score in scores) == n - rank, "a score that equals the rank's passes"


def test_too_few_scores_for_a_target_are_said_and_the_largest_of_them_pass():
    calibration = calibrated([0.3, 0.5, 0.5], target_false_reject_rate=0.01)
    assert calibration.threshold == nextafter(0.5, inf)
    assert calibration.target_false_reject_rate == 0.01
    promise = calibration.promise
    assert promise.n_ok_missing_for_target == 96
    assert promise.false_reject_rate == 1 / 4
    assert promise.text.startswith("3 OK scores are too few for a false reject rate of 0.01, 96 more are needed")
    assert calibrated([0.1] * 99, target_false_reject_rate=0.01).promise.n_ok_missing_for_target == 0
    with pytest.raises(ValueError, match="at least one OK score"):
        conformal_threshold([], 0.01)


# --- the reply


def calibrated_on_clean(n_ok, n_ng, **options):
    """Of good scores without ties, all of them far below the defective ones."""
    return calibrated(np.arange(n_ok) / n_ok, [9.0] * n_ng, **options).promise


@pytest.mark.parametrize("n_candidates", _SHARE_OF_MIXED)
@pytest.mark.parametrize("n_ng", [0, 20])
@pytest.mark.parametrize("target", [None, 0.05, 0.01, 0.0099, 0.008, 0.006, 0.005, 0.002, 1e-6])
@pytest.mark.parametrize("n_ok", [1, 28, 298, 299, 340, 700, 2000])
def test_missing_scores_suffice_for_one_percent_and_one_less_do_not(n_ok, target, n_ng, n_candidates):
    """With as many scores as the promise says are missing, one per cent is promised; with one less it is not."""
    options = {"target_false_reject_rate": target, "n_candidates": n_candidates}
    promise = calibrated_on_clean(n_ok, n_ng, **options)
    assert (promise.n_ok_missing == 0) == (promise.false_reject_rate_at_most <= 0.01)
    if (target is None and not n_ng) or target in (0.05, 0.01, 0.0099):
        assert (promise.n_ok_needed, promise.n_ok_missing) == (None, None)
        assert "ask for a smaller target_false_reject_rate" in promise.text
        return
    if promise.n_ok_missing:
        assert promise.n_ok_needed == n_ok + promise.n_ok_missing
        assert f"{promise.n_ok_missing} more are needed" in promise.text or promise.n_ok_missing == 1
        assert calibrated_on_clean(promise.n_ok_needed - 1, n_ng, **options).false_reject_rate_at_most > 0.01
    assert calibrated_on_clean(promise.n_ok_needed, n_ng, **options).false_reject_rate_at_most <= 0.01


@pytest.mark.parametrize(("n", "target"), [(299, None), (5000, None), (299, 0.05), (5000, 0.01)])
def test_rule_rejecting_one_percent_by_design_never_promises_that(n, target):
    """A rule that rejects one per cent or more of good parts by design says so; no number of scores helps."""
    promise = calibrated_on_clean(n, 0, target_false_reject_rate=target, ok_are_fresh=True)
    assert promise.false_reject_rate_at_most > 0.01
    assert promise.n_ok_missing is None
    assert promise.text.partition("; ")[2] == (
        f"this rule rejects about {100 * (target or 0.01):g} % by design: to promise 1 %, ask for a smaller "
        "target_false_reject_rate"
    )


def test_of_scores_that_overlap_no_number_is_named():
    promise = calibrated([0.1] * 90 + [0.9] * 10, [0.5] * 10).promise
    assert promise.n_rejected == 10
    assert promise.n_ok_needed is None
    assert (
        "10 of 100 good scores are rejected, so more scores like these will not reach 1 %: check those parts"
        in promise.text
    )


def test_missing_scores_are_those_for_as_many_rejected():
    """Some good scores are rejected: the scores that are missing are counted for as many rejected scores."""
    ok, ng = [0.1] * 599 + [0.9], [0.5] * 10
    promise = calibrated(ok, ng).promise
    assert (promise.n_rejected, promise.n_ok_missing) == (1, promise.n_ok_needed - 600)
    more, one_less = ([0.1] * (promise.n_ok_missing - missing) for missing in (0, 1))
    assert calibrated([*ok, *more], ng).promise.false_reject_rate_at_most <= 0.01
    assert calibrated([*ok, *one_less], ng).promise.false_reject_rate_at_most > 0.01


def test_one_missing_score_is_one():
    promise = calibrated_on_clean(298, 0, target_false_reject_rate=0.002)
    assert "298 OK scores are too few to promise 1 %: 1 more is needed" in promise.text
    promise = calibrated_on_clean(98, 0, target_false_reject_rate=0.01)
    assert "98 OK scores are too few for a false reject rate of 0.01, 1 more is needed" in promise.text


def test_few_scores_are_said_to_be_few_instead_of_extrapolated():
    promise = calibrated([0.41], [0.7], ok_are_fresh=True).promise
    assert promise.false_reject_rate_at_most == 0.985
    assert (promise.n_ok_needed, promise.n_ok_missing) == (418, 417)
    assert promise.text.startswith(
        "at most 99 % of good parts are rejected (95 % confidence); 1 OK score is too few to promise 1 %: "
        "417 more are needed; "
    )


def test_promise_names_its_condition_where_fitted_parts_are_unknown():
    """Nobody can tell whether the scored parts were in the fit: the numbers stay, the words name the condition."""
    given, fresh = (calibrated([0.41], ok_are_fresh=known).promise for known in (None, True))
    assert given.as_dict() == {**fresh.as_dict(), "text": given.text}
    assert given.text == fresh.text.replace(
        "(95 % confidence)",
        "(95 % confidence), if the scores are ok_scores of the fit or of parts that were not in the fit",
    )


def test_of_a_worked_example_every_number_is_known():
    promise = calibrated([0.41, 0.44, 0.39], [0.72, 0.66]).promise
    assert (promise.n_rejected, promise.n_escaped) == (0, 0)
    assert (promise.false_reject_rate, promise.escape_rate) == (1 / 4, 1 / 3)
    assert promise.false_reject_rate_at_most == pytest.approx(1 - 0.015 ** (1 / 3))
    assert promise.escape_rate_at_most == pytest.approx(1 - 0.015 ** (1 / 2))
    assert "escape" in promise.text


def test_good_scores_from_the_fit_promise_nothing_about_false_rejects():
    promise = calibrated([0.1] * 500, [0.9] * 10, ok_are_fresh=False).promise
    assert promise.false_reject_rate_at_most is None
    assert promise.escape_rate_at_most == pytest.approx(1 - 0.015 ** (1 / 10))
    assert promise.text.startswith("nothing is promised about false rejects")


def test_best_of_several_candidates_promises_less_than_one_given():
    """A calibration chosen as the best of several has looser bounds than the same one if it was given."""
    given, chosen = (
        make_promise([0.1] * 50, [0.9] * 50, 0.5, rank=None, n_candidates=number) for number in _SHARE_OF_MIXED
    )
    assert given.false_reject_rate_at_most < chosen.false_reject_rate_at_most
    assert given.escape_rate_at_most < chosen.escape_rate_at_most


def test_a_promise_comes_back_from_json_and_anything_else_is_none():
    promise = calibrated([0.41, 0.44, 0.39], [0.72, 0.66], target_false_reject_rate=0.1).promise
    stored = json.loads(json.dumps(promise.as_dict(), allow_nan=False))
    assert Promise.read(stored) == promise
    assert Promise.read({**stored, "of_a_newer_version": 1}) == promise
    wrong = [
        {"text": 1},
        {"confidence": "0.95"},
        {"n_rejected": 0.5},
        {"escape_rate": float("nan")},
        {"n_escaped": True},
    ]
    for other in (None, 7, [], {}, {"text": "x"}, *({**stored, **change} for change in wrong)):
        assert Promise.read(other) is None


@pytest.mark.parametrize("count", [0, 1, 5, 40, 400])
def test_percents_in_words_are_rounded_up(count):
    promise = make_promise([1.0] * count + [0.0] * (1000 - count), [], 0.5, rank=1000 - count)
    percent = float(promise.text.split()[2])
    assert 0 <= percent - 100 * promise.false_reject_rate_at_most < 0.1 * percent
