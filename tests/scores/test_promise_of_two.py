"""What two thresholds promise together, where either score rejects a part, against distributions that are known."""

import math

import numpy as np
import pytest
from scipy import stats

from backend.scores.promise import make_joint_promise
from backend.scores.two_scores import conformal_thresholds

REPETITIONS = 1500
# How the second of two scores goes with the first, both uniform on 0..1.
DEPENDENCE = {
    "independent": lambda first, other: other,
    "the same": lambda first, _: first,
    "opposite": lambda first, _: 1 - first,
}
STEPS = 8  # of scores with ties


def accepted(dependence, first, second):
    """The probability of a part below both thresholds: numbers of 0..1, of uniform scores."""
    if dependence == "independent":
        return first * second
    return np.minimum(first, second) if dependence == "the same" else np.maximum(0, first + second - 1)


def most_failures(repetitions=REPETITIONS):
    """What a binomial count of failures of 5 % exceeds once in 10,000 tests."""
    return stats.binom.ppf(0.9999, repetitions, 0.05)


def draw(dependence, n, seed, repetitions=REPETITIONS, ties=False):
    rng = np.random.default_rng(seed)
    for _ in range(repetitions):
        first, other = rng.random((2, n))
        pairs = np.stack([first, DEPENDENCE[dependence](first, other)], axis=1)
        yield np.ceil(pairs * STEPS) / STEPS if ties else pairs


def bounds(n):
    """Upper bounds: of the false reject rate by how many of n good parts are rejected, of escapes by how many do."""
    parts = [(0.5, 0.5)] * n
    every = range(n + 1)
    rejects = [make_joint_promise([*parts[k:], *[(2, 0)] * k], [], (1, 1)).false_reject_rate_at_most for k in every]
    escapes = [make_joint_promise(parts, [*parts[k:], *[(0, 2)] * k], (1, 1)).escape_rate_at_most for k in every]
    return np.array(rejects), np.array(escapes)[::-1]


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
@pytest.mark.parametrize("n", [8, 25])
@pytest.mark.parametrize("dependence", DEPENDENCE)
def test_no_choice_of_thresholds_breaks_the_bounds_more_often(dependence, n, ties):
    """Who knows the distribution and takes the worst of all pairs of thresholds breaks a bound in 5 % at most."""
    reject_bounds, escape_bounds = bounds(n)
    failed = {"rejects": 0, "escapes": 0}
    for pairs in draw(dependence, n, [n, ties], ties=ties):
        for name, nothing in (("rejects", 0.0), ("escapes", 2.0)):
            first, second = (np.append(np.unique(scores), nothing) for scores in pairs.T)
            if name == "rejects":  # just above a score, where it rejects most for what it counts
                below_first, below_second = (pairs[:, side, None] <= at for side, at in ((0, first), (1, second)))
            else:
                below_first, below_second = (pairs[:, side, None] < at for side, at in ((0, first), (1, second)))
            n_accepted = below_first.astype(int).T @ below_second.astype(int)
            if ties and name == "escapes":  # what is below a step of scores with ties
                first, second = (np.ceil(np.minimum(at, 1 + 1 / STEPS) * STEPS - 1) / STEPS for at in (first, second))
            shares = np.clip(first, 0, 1)[:, None], np.clip(second, 0, 1)[None]
            rate = accepted(dependence, *shares)
            if name == "rejects":
                failed[name] += bool(np.any(1 - rate > reject_bounds[n - n_accepted] + 1e-12))
            else:
                failed[name] += bool(np.any(rate > escape_bounds[n_accepted] + 1e-12))
    assert max(failed.values()) <= most_failures(), failed


@pytest.mark.parametrize("dependence", DEPENDENCE)
@pytest.mark.parametrize(("n", "rate"), [(40, 0.1), (60, 0.05), (12, 0.02), (1, 0.5)])
def test_cuts_reject_no_more_good_parts_than_they_were_asked_for(dependence, n, rate):
    """On average over calibrations at most the rate, and in 95 % of them no more than the bound."""
    rates, failed, n_missing = [], 0, max(0, math.ceil(2 / rate) - 1 - n)
    for pairs in draw(dependence, n, [n]):
        chosen = conformal_thresholds(pairs.tolist(), rate)
        promise = make_joint_promise(
            pairs.tolist(), [], (chosen.first, chosen.second), n_cut=chosen.n_cut, target=rate, ok_are_fresh=True
        )
        rates.append(1 - accepted(dependence, chosen.first, chosen.second))
        failed += rates[-1] > promise.false_reject_rate_at_most
        assert (promise.n_ok_missing_for_target or 0) == n_missing
        # The last part of each cut lies just below its threshold; that of the first may be rejected by the second.
        assert chosen.n_cut - 2 <= promise.n_rejected < chosen.n_cut
        assert np.count_nonzero(pairs[:, 0] >= chosen.first) == (chosen.n_cut + 1) // 2 - 1
    spread = 4 * np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) <= (max(rate, 2 / (n + 1)) if n > 1 else 1) + spread
    assert failed <= most_failures()


def test_bound_of_cuts_fails_as_often_as_it_may():
    """It is no wider than it has to be: of independent scores it fails in about 5 % of calibrations."""
    n, failed = 60, 0
    for pairs in draw("independent", n, [7]):
        chosen = conformal_thresholds(pairs.tolist(), 0.1)
        promise = make_joint_promise(pairs.tolist(), [], chosen[:2], n_cut=chosen.n_cut)
        failed += 1 - accepted("independent", *chosen[:2]) > promise.false_reject_rate_at_most
    assert failed >= stats.binom.ppf(0.0001, REPETITIONS, 0.05)


def test_either_score_rejects_and_both_let_escape():
    ok, ng = [(0.1, 0.9), (0.9, 0.1), (0.1, 0.1), (0.5, 0.5)], [(0.9, 0.9), (0.1, 0.1), (0.6, 0.1)]
    promise = make_joint_promise(ok, ng, (0.6, 0.6), ok_are_fresh=True, unusual={3})
    assert (promise.n_rejected, promise.n_escaped) == (3, 1)
    assert make_joint_promise(ok, ng, (0.6, 0.6), ok_are_fresh=False).false_reject_rate_at_most is None


def test_so_many_good_parts_promise_one_percent():
    """As many as are needed promise it, and one fewer do not."""
    needed = make_joint_promise([(0, 0)] * 30, [], (1, 1)).n_ok_needed
    assert make_joint_promise([(0, 0)] * needed, [], (1, 1)).false_reject_rate_at_most <= 0.01
    assert make_joint_promise([(0, 0)] * (needed - 1), [], (1, 1)).false_reject_rate_at_most > 0.01
    assert make_joint_promise([(0, 0)] * 29 + [(2, 0)], [], (1, 1)).n_ok_needed is None


@pytest.mark.parametrize(("n", "k"), [(12, 0), (40, 3), (300, 1)])
def test_each_count_of_each_cut_has_its_share_of_the_confidence(n, k):
    """Clopper and Pearson's bounds by the beta distribution, at 5 % shared by all counts and all cuts of a count."""
    parts = [(0.5, 0.5)] * (n - k)
    promise = make_joint_promise([*parts, *[(2, 0)] * k], [*[(0, 2)] * (n - k), *[(0.5, 0.5)] * k], (1, 1))
    share = 0.05 * 6 / math.pi**2 / (k + 1) ** 2
    rejects = stats.beta.ppf(1 - share / (k + 1), k + 2, n - k - 1)
    escapes = stats.beta.ppf(1 - share / (n - k + 1), k + 1, n - k)
    assert (promise.false_reject_rate_at_most, promise.escape_rate_at_most) == pytest.approx((rejects, escapes))


@pytest.mark.parametrize("rate", [0.005, 0.008, 0.002])
def test_so_many_good_parts_let_cuts_promise_one_percent(rate):
    """The first number whose cuts, of two parts at least, the beta distribution bounds by 1 %."""

    def bound(n):
        n_cut = max(2, math.floor((n + 1) * rate + 1e-9))
        return stats.beta.ppf(0.95, n_cut, n - n_cut + 1)

    parts = [(float(n), -float(n)) for n in range(30)]
    chosen = conformal_thresholds(parts, rate)
    promise = make_joint_promise(parts, [], chosen[:2], n_cut=chosen.n_cut, target=rate)
    assert promise.n_ok_needed == next(n for n in range(30, 100_000) if bound(n) <= 0.01)
