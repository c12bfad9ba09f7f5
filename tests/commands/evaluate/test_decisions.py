"""Decisions of both rules on scores, beside those counted one by one."""

import numpy as np
import pytest

from backend.calib import choose_threshold
from backend.commands.evaluate.decisions import best_threshold, decide, drawn_ng, found_by, mean_rates
from backend.scores.recommended_threshold import recommend

TYPES = ["scratch", "bent", "scratch", "hole"] * 5


@pytest.fixture
def scores():
    rng = np.random.default_rng(4)
    return rng.normal(0.5, 0.03, 30).tolist(), rng.normal(0.5, 0.04, 12).tolist(), rng.normal(0.6, 0.06, 20).tolist()


@pytest.mark.parametrize("n_ng", [0, 3, 10])
def test_each_rule_is_given_the_drawn_ng_and_judged_on_the_others(scores, n_ng):
    ok, good, defective = scores
    found = decide(ok, good, defective, TYPES)
    drawn = drawn_ng(20, n_ng)
    assert len(set(drawn)) == n_ng
    given = [defective[place] for place in drawn]
    left = [place for place in range(20) if place not in drawn]
    expected = {"contract": choose_threshold(ok, given), "recommended": recommend(ok, given).threshold}
    for rule, threshold in expected.items():
        decision = found_by(found, rule, n_ng)
        assert decision.threshold == threshold
        rejected, passed = (
            [score for score in good if score >= threshold],
            [p for p in left if defective[p] < threshold],
        )
        assert (decision.false_rejects.count, decision.false_rejects.total) == (len(rejected), 12)
        assert (decision.escapes.count, decision.escapes.total) == (len(passed), 20 - n_ng)
        assert decision.error == pytest.approx((len(rejected) / 12 + len(passed) / (20 - n_ng)) / 2)
        for kind in {TYPES[place] for place in left}:
            of_type = decision.of_type(kind)
            assert of_type.escapes.count == sum(TYPES[place] == kind for place in passed)
            assert of_type.escapes.total == sum(TYPES[place] == kind for place in left)


def test_a_score_at_the_threshold_is_rejected():
    found = decide([0.5] * 5, [0.5, 0.4], [0.5, 0.4, 0.6], ["bent"] * 3)[0]
    assert (found.chosen_by, found.threshold) == ("contract", 0.5)
    assert (found.false_rejects.count, found.escapes.count) == (1, 1)


def test_ten_drawn_images_hold_the_three():
    assert set(drawn_ng(20, 3)) < set(drawn_ng(20, 10))


def test_no_threshold_makes_fewer_errors_than_the_best_in_hindsight(scores):
    _, good, defective = scores

    def error(threshold):
        return np.mean(np.array(good) >= threshold) + np.mean(np.array(defective) < threshold)

    candidates = [*good, *defective, np.inf, -np.inf]
    assert error(best_threshold(good, defective)) == pytest.approx(min(map(error, candidates)))


def test_best_threshold_of_scores_that_separate_lies_in_the_middle():
    assert best_threshold([0.1, 0.2], [0.6, 0.9]) == pytest.approx(0.4)


@pytest.mark.parametrize(("good", "defective"), [([0.5, 0.5], [0.5]), ([0.0], [0.0, 0.0]), ([0.7], [0.2])])
def test_best_threshold_of_scores_that_do_not_separate_rejects_all_or_none(good, defective):
    threshold = best_threshold(good, defective)
    rejected = {score >= threshold for score in (*good, *defective)}
    assert len(rejected) == 1
    assert np.isfinite(threshold)


def test_a_rule_without_enough_ng_images_decides_without_them(scores):
    ok, good, defective = scores
    found = decide(ok, good, defective[:10], TYPES[:10])
    assert {decision.n_ng for decision in found} == {0, 3}


def test_a_type_whose_images_are_all_drawn_is_left_out():
    places = drawn_ng(4, 3)
    types = ["rare" if place in places else "common" for place in range(4)]
    found = found_by(decide([0.1, 0.2, 0.3], [0.1], [0.5, 0.6, 0.7, 0.8], types), "contract", 3)
    assert found.of_type("rare") is None
    assert found.of_type("common").escapes.total == 1


def test_without_scores_of_training_images_nothing_is_decided():
    assert decide([], [0.1], [0.5], ["a"]) == []


def test_mean_rates_count_each_decision_alike(scores):
    ok, good, defective = scores
    found = [decide(ok, good[:n], defective, TYPES)[0] for n in (3, 12)]
    expected = np.mean([decision.false_rejects.value for decision in found])
    assert mean_rates(found)[0] == pytest.approx(expected)
