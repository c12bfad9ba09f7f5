"""Fresh good parts that score higher than the images of a fit are named, and rarely where nothing is."""

import contextlib
import itertools

import numpy as np
import pytest

from backend.bank.building import build_bank
from backend.calib import ThresholdOptions, calibrate
from backend.scores.shift import Shift


def promised(ok_scores, rule):
    options = ThresholdOptions(rule=rule)
    chosen = calibrate(
        ok_scores,
        [],
        mm_per_px=1,
        area_mm2_thr=0,
        score_percentile=99,
        memory_id=None,
        options=options,
        ok_are_fresh=True,
    )
    return chosen.threshold, chosen.promise.false_reject_rate_at_most


def shift_of(ok_scores, fresh, rule="contract"):
    return Shift.of(ok_scores, fresh, *promised(list(ok_scores), rule))


def exact_p(low, high):
    """By all ways to choose which of the scores are the fresh ones."""
    every = np.concatenate([high, low])

    def u(chosen):
        others = np.delete(every, chosen)
        return (every[list(chosen), None] > others).sum()

    observed = u(tuple(range(len(high))))
    ways = [u(chosen) >= observed for chosen in itertools.combinations(range(len(every)), len(high))]
    return np.mean(ways)


@pytest.mark.parametrize("seed", range(4))
def test_p_value_is_the_share_of_orders_that_are_as_extreme(seed):
    rng = np.random.default_rng(seed)
    low, high = rng.normal(0.5, 0.1, 8), rng.normal(0.6, 0.1, 5)
    assert shift_of(low, high).p_value == pytest.approx(exact_p(low, high), abs=1e-12)


def most_by_chance(runs):
    """Three standard errors above 1 %: more than so many runs let expect."""
    return runs * LEVEL + 3 * np.sqrt(runs * LEVEL)


RUNS = 1000
LEVEL = 0.01
SOURCES = {
    "normal": lambda rng, n: rng.normal(0.5, 0.05, n),
    "heavy tails": lambda rng, n: 0.5 + 0.02 * rng.standard_t(2, n),
    "tied": lambda rng, n: np.round(rng.normal(0.5, 0.05, n), 1),
    "skewed": lambda rng, n: 0.3 + 0.1 * rng.exponential(size=n),
}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_parts_of_the_same_kind_are_named_less_often_than_agreed(source):
    rng = np.random.default_rng(1)
    higher = named = 0
    for _ in range(RUNS):
        ok, fresh = (SOURCES[source](rng, n) for n in (30, 15))
        if Shift.of(ok, fresh, -np.inf, 0).matters:  # whatever the threshold
            higher += 1
            named += any(shift_of(ok, fresh, rule).matters for rule in ("contract", "recommended"))
    assert higher <= most_by_chance(RUNS)
    assert named <= higher


@pytest.mark.slow
def test_honest_scores_of_a_fit_are_no_reason_to_name_fresh_parts():
    """They share most of their memory banks, so that the test's assumption holds approximately."""
    runs, higher = 300, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        parts = rng.normal(size=(45, 4, 8)).astype(np.float32) + np.array(4 * np.eye(4, 8), np.float32)
        names = [str(number) for number in range(30)]
        train = np.ascontiguousarray(parts[:30]).reshape(-1, 8)
        bank = build_bank(train, names, (2, 2), 0.2, None, contextlib.nullcontext, lambda *_: None)
        ok = bank.held_out.distances.max(axis=1)
        fresh = [bank.memory.distances(part).max() for part in parts[30:]]
        higher += Shift.of(ok, fresh, -np.inf, 0).matters
    assert higher <= most_by_chance(runs)


@pytest.mark.parametrize("rule", ["contract", "recommended"])
def test_parts_of_another_day_are_named(rule):
    rng = np.random.default_rng(2)
    found = [shift_of(rng.normal(0.41, 0.03, 30), rng.normal(0.52, 0.03, 12), rule).matters for _ in range(50)]
    assert np.mean(found) > 0.95


def test_higher_scores_that_the_threshold_holds_for_are_not_named():
    """All fresh parts lie above most of the fit, and below its largest score."""
    ok, fresh = [*np.linspace(0.40, 0.45, 29), 0.60], np.linspace(0.46, 0.50, 12)
    found = shift_of(ok, fresh)
    assert found.p_value < LEVEL
    assert (found.n_rejected, found.matters) == (0, False)


def test_two_rejected_parts_among_usual_ones_are_not_named():
    ok, fresh = np.linspace(0.40, 0.60, 60), [*np.linspace(0.35, 0.55, 6), 0.65, 0.66]
    found = shift_of(ok, fresh)
    assert found.n_rejected / found.n > found.promised
    assert not found.matters


def test_sentence_has_medians_p_and_what_to_do():
    text = Shift(0.0003, 0.41, 0.52, 4, 10, 0.149).in_words("good test parts", "training images")
    assert text == (
        "The good test parts score higher than the training images (median 0.52 against 0.41, p = 0.0003), and 4 of "
        "10 are rejected (40.0 %), but the threshold promises at most 14.9 %. Is it another day, or another lamp? "
        "Add such parts to "
        "the fit"
    )
    assert "p < 0.0001" in Shift(1e-9, 0.41, 0.52, 4, 10, 0.149).in_words("a", "b")
