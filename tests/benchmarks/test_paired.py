import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.paired import Scores, interval


@pytest.fixture
def chance():
    return np.random.default_rng(7)


def test_f1_max_is_that_of_the_best_threshold(chance):
    scores = Scores(chance.normal(size=25), chance.normal(1, size=40))
    values = np.concatenate([scores.good, scores.defective])
    labels = np.repeat([0, 1], [25, 40])
    assert scores.f1_max == pytest.approx(max(f1_score(labels, values >= threshold) for threshold in values))


def test_resampled_auroc_is_that_of_images_drawn_again(chance):
    scores = Scores(chance.integers(0, 9, 12).astype(float), chance.integers(3, 12, 15).astype(float))
    draw = np.random.default_rng(0)
    good, defective = (draw.multinomial(n, np.full(n, 1 / n), 2000) for n in (12, 15))
    expected = [
        roc_auc_score(np.repeat([0, 1], [12, 15]), np.r_[np.repeat(scores.good, g), np.repeat(scores.defective, d)])
        for g, d in zip(good[:20], defective[:20], strict=True)
    ]
    assert scores.resampled_auroc()[:20] == pytest.approx(expected)


@pytest.mark.slow
def test_the_interval_covers_the_true_auroc_as_often_as_it_says(chance):
    true = 0.76025  # of unit normals one apart: Φ(1/√2)
    covered = 0
    for _ in range(300):
        low, high = interval(Scores(chance.normal(size=60), chance.normal(1, size=80)).resampled_auroc())
        covered += low <= true <= high
    assert 0.90 <= covered / 300 <= 0.99


def test_contenders_that_order_images_alike_do_not_differ_by_chance(chance):
    scores = Scores(chance.normal(size=20), chance.normal(1, size=30))
    stretched = Scores(np.exp(scores.good), np.exp(scores.defective))
    assert np.array_equal(scores.resampled_auroc(), stretched.resampled_auroc())
