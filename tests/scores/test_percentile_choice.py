"""Which percentile is chosen, and when none is for want of proof."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from backend.common.errors import InvalidRequest
from backend.scores.percentile_choice import CANDIDATES, choose_percentile


def scores(rng, n, shifts):
    """Correlated scores of `n` images at every candidate."""
    common = rng.normal(size=n)
    return {
        percent: list(0.8 * common + 0.6 * rng.normal(size=n) + shift)
        for percent, shift in zip(CANDIDATES, shifts, strict=True)
    }


def paired_error_by_loops(ok, ng, other_ok, other_ng):
    """DeLong's standard error of a difference of AUROCs, from all pairs."""

    def kernel(good, defective):
        return np.array([[(d > g) + 0.5 * (d == g) for g in good] for d in defective])

    difference = kernel(ok, ng) - kernel(other_ok, other_ng)
    return np.sqrt(difference.mean(axis=1).var(ddof=1) / len(ng) + difference.mean(axis=0).var(ddof=1) / len(ok))


def test_the_table_says_how_well_every_candidate_separates():
    rng = np.random.default_rng(1)
    ok, ng = scores(rng, 40, [0] * 6), scores(rng, 25, [0.5, 0.6, 1, 1.2, 1.1, 0.9])
    ok[95][:3] = ng[95][:3]  # ties
    choice = choose_percentile(ok, ng)
    assert [item.score_percentile for item in choice.candidates] == list(CANDIDATES)
    of_99 = roc_auc_score([0] * 40 + [1] * 25, ok[99] + ng[99])
    for item in choice.candidates:
        percent = item.score_percentile
        assert item.auroc == pytest.approx(roc_auc_score([0] * 40 + [1] * 25, ok[percent] + ng[percent]))
        assert item.gap == min(ng[percent]) - max(ok[percent])
        if percent != 99:
            error = paired_error_by_loops(ok[percent], ng[percent], ok[99], ng[99])
            assert item.gain_in_errors == pytest.approx((item.auroc - of_99) / error)
    assert choice.candidates[2].gain_in_errors is None


def test_another_percentile_is_chosen_if_it_separates_better_than_chance():
    """99.9 separates good from defective scores better than 99 by more than chance, so it is chosen."""
    rng = np.random.default_rng(2)
    choice = choose_percentile(scores(rng, 80, [0] * 6), scores(rng, 80, [0.5, 0.5, 0.5, 0.5, 3, 0.5]))
    assert choice.chosen == 99.9
    assert "99.9 separates significantly better than 99" in choice.reason


@pytest.mark.parametrize(("n_ok", "n_ng"), [(30, 20), (100, 2), (100, 3), (100, 5), (5, 100), (6, 6)])
def test_among_candidates_that_are_alike_another_than_99_is_rare(n_ok, n_ng):
    rng = np.random.default_rng(3)
    others = 0
    for _ in range(600):
        others += choose_percentile(scores(rng, n_ok, [0] * 6), scores(rng, n_ng, [1] * 6)).chosen != 99
    assert others <= stats.binom.ppf(0.9999, 600, 0.05), "5 %, and the chance of 600 trials"


@pytest.mark.parametrize(("n_ok", "n_ng"), [(1, 1), (1, 9), (9, 1), (4, 50), (50, 4)])
def test_from_few_images_no_choice_is_made(n_ok, n_ng):
    rng = np.random.default_rng(4)
    choice = choose_percentile(scores(rng, n_ok, [9, 9, 9, 0, 0, 0]), scores(rng, n_ng, [0, 0, 0, 9, 9, 9]))
    assert choice.chosen == 99
    assert f"{n_ok} OK and {n_ng} NG images are too few to compare percentiles" in choice.reason


def test_a_gain_without_an_error_is_said_to_be_beyond_judgement():
    tied, apart = [0.5] * 8, [0.9] * 8
    ok = dict.fromkeys(CANDIDATES, tied)
    choice = choose_percentile(ok, {percent: tied if percent == 99 else apart for percent in CANDIDATES})
    assert (choice.chosen, choice.candidates[0].auroc, choice.candidates[2].auroc) == (99, 1, 0.5)
    assert choice.reason == (
        "99 is kept (AUROC 0.5000): 95, 98, 99.5, 99.9, 100 may separate better, but the scores of all images are "
        "ranked alike, so this cannot be tested: add images"
    )
    alike = choose_percentile(ok, dict.fromkeys(CANDIDATES, apart))
    assert "no other percentile separates significantly better" in alike.reason, "nor worse"


def test_without_ng_images_there_is_nothing_to_choose_by():
    with pytest.raises(InvalidRequest, match="needs NG images"):
        choose_percentile({percent: [0.1] for percent in CANDIDATES}, {percent: [] for percent in CANDIDATES})
