import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks.metrics import Scores, interval, pixel_metrics


@pytest.fixture
def chance():
    return np.random.default_rng(7)


def maps_and_masks(chance):
    """Three maps; the second has two regions that touch at a corner and one apart, the third one of another size."""
    masks = [np.zeros((30, 40), bool) for _ in range(3)]
    masks[1][3:9, 5:7] = masks[1][9:12, 7:9] = masks[1][20:23, 30:39] = True
    masks[2][0:20, 0:20] = True
    return [(chance.normal(size=mask.shape).astype(np.float32) + mask, mask) for mask in masks]


def aupro_by_integration(regions, good, limit):
    """Trapezoids under the curve of mean overlap per region against false positive rate, threshold by threshold."""
    thresholds = np.sort(np.concatenate([good, *regions]))[::-1]
    rates = np.array([0, *((good >= threshold).mean() for threshold in thresholds)])
    overlaps = [0, *(np.mean([(region >= threshold).mean() for region in regions]) for threshold in thresholds)]
    inside = rates <= limit
    rates, overlaps = rates[inside], np.array(overlaps)[inside]
    return (np.trapezoid(overlaps, rates) + overlaps[-1] * (limit - rates[-1])) / limit


def test_pixel_metrics_are_the_areas_under_their_curves(chance):
    pairs = maps_and_masks(chance)
    auroc, aupro = pixel_metrics(pairs)
    values, labels = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    assert auroc == pytest.approx(roc_auc_score(labels, values), abs=1e-9)
    (_, _), (second, corner), (third, square) = pairs
    lower = corner & (np.arange(30) >= 20)[:, None]
    regions = [second[corner & ~lower], second[lower], third[square]]
    assert aupro == pytest.approx(aupro_by_integration(regions, values[~labels], 0.3), abs=1e-9)


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
