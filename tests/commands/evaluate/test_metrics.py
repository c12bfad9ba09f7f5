"""Measures beside scikit-learn's, and beside the definitions written out."""

import tracemalloc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from backend.commands.evaluate import metrics
from backend.commands.evaluate.metrics import (
    PixelHistograms,
    Rate,
    aupro,
    auroc,
    auroc_interval,
    image_measures,
    resamples,
)


def scored(n, seed, ties=False):
    """Scores of which the defective ones tend to be higher."""
    random = np.random.default_rng(seed)
    defective = random.random(n) < 0.4
    scores = random.normal(0.6, 0.1, n) + 0.1 * defective
    return np.round(scores, 2 if ties else 9), defective


def best_f1(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return max(2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r)


def smooth_maps(n, hw, seed):
    """Distance maps with bumps, and masks of several components that touch the bumps without matching them."""
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(n):
        noise = ndimage.gaussian_filter(random.normal(size=hw), 6)
        bumps = ndimage.gaussian_filter(random.normal(size=hw), 12)
        mask = bumps > np.quantile(bumps, 0.97)
        blurred = ndimage.gaussian_filter(mask.astype(float), 8)
        maps.append((0.5 + 0.1 * noise / noise.std() + 0.3 * blurred).clip(0, 2).astype(np.float32))
        masks.append(mask)
    return maps, masks


def aupro_by_definition(maps, masks, max_fpr=0.3):
    """Threshold by threshold: the mean share of each component that is found, over the share of good pixels taken."""
    components = []
    for index, mask in enumerate(masks):
        labels, n = ndimage.label(mask, structure=np.ones((3, 3)))
        components += [(index, labels == number) for number in range(1, n + 1)]
    n_good = sum((~mask).sum() for mask in masks)
    fprs, pros = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        found = [m >= threshold for m in maps]
        fprs.append(sum((f & ~mask).sum() for f, mask in zip(found, masks, strict=True)) / n_good)
        pros.append(np.mean([found[index][component].mean() for index, component in components]))
    inside = [fpr for fpr in fprs if fpr < max_fpr]
    curve = [*zip(inside, pros, strict=False), (max_fpr, np.interp(max_fpr, fprs, pros))]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))
    return area / max_fpr


class TestImageMeasures:
    @pytest.mark.parametrize("ties", [False, True])
    def test_they_are_those_of_scikit_learn(self, ties):
        scores, defective = scored(60, seed=1, ties=ties)
        found = image_measures(scores, defective, None)
        assert found["image_auroc"].value == pytest.approx(roc_auc_score(defective, scores), abs=1e-12)
        assert found["image_ap"].value == pytest.approx(average_precision_score(defective, scores), abs=1e-12)
        assert found["image_f1_max"].value == pytest.approx(best_f1(defective, scores), abs=1e-12)

    @pytest.mark.parametrize("ties", [False, True])
    def test_intervals_are_those_of_every_resample_measured_by_scikit_learn(self, monkeypatch, ties):
        monkeypatch.setattr(metrics, "RESAMPLES", 100)
        scores, defective = scored(30, seed=2, ties=ties)
        strata = ["ng" if label else "good" for label in defective]
        weights = np.concatenate(list(resamples(strata)))
        found = image_measures(scores, defective, strata)
        expected = {"image_ap": average_precision_score, "image_f1_max": best_f1}
        for name, measure in expected.items():
            drawn = [measure(np.repeat(defective, times), np.repeat(scores, times)) for times in weights.astype(int)]
            assert [found[name].low, found[name].high] == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=1e-12)

    @pytest.mark.parametrize("n_few", [1, 4, 5])
    def test_fewer_than_five_images_of_a_kind_give_no_bootstrap_interval(self, n_few):
        strata = ["good"] * 8 + ["crack"] * 7 + ["hole"] * n_few
        defective = [stratum != "good" for stratum in strata]
        found = image_measures(np.random.default_rng(0).random(len(strata)), defective, strata)
        for name in ("image_ap", "image_f1_max"):
            assert (found[name].low is None) == (found[name].high is None) == (n_few < 5)
        assert found["image_auroc"].low < found["image_auroc"].value < found["image_auroc"].high

    @pytest.mark.slow
    def test_many_images_take_little_memory(self):
        scores, defective = scored(6000, seed=8)
        strata = ["crack" if label else "good" for label in defective]
        image_measures(scores[:100], defective[:100], strata[:100])
        tracemalloc.start()
        try:
            image_measures(scores, defective, strata)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 64 << 20


class TestAurocInterval:
    @pytest.mark.parametrize("true", [0.7, 0.9, 0.98, 0.995])
    @pytest.mark.parametrize(("n_good", "n_defective"), [(1, 17), (6, 17), (20, 3), (30, 50)])
    def test_it_holds_the_true_value_as_often_as_stated(self, n_good, n_defective, true):
        random, repetitions = np.random.default_rng([n_good, n_defective, int(1000 * true)]), 2000
        good = random.normal(size=(repetitions, n_good, 1))
        defective = random.normal(2**0.5 * stats.norm.ppf(true), size=(repetitions, 1, n_defective))
        interval = cache(lambda n_pairs: auroc_interval(n_pairs / (n_good * n_defective), n_defective, n_good))
        held = [low <= true <= high for low, high in map(interval, (defective > good).sum(axis=(1, 2)).tolist())]
        assert np.mean(held) >= stats.binom.ppf(0.0001, repetitions, 0.94) / repetitions

    @pytest.mark.parametrize(("n_good", "n_defective"), [(1, 1), (6, 17), (300, 40)])
    def test_its_ends_are_the_values_that_lie_as_many_errors_away(self, n_good, n_defective):
        for value in np.linspace(0, 1, 11):
            low, high = auroc_interval(value, n_defective, n_good)
            assert 0 <= low <= value <= high <= 1
            assert (low, high) == pytest.approx(
                [1 - end for end in auroc_interval(1 - value, n_defective, n_good)][::-1]
            )
            for end in (low, high):
                k = (n_good + n_defective) / 2 - 1
                variance = end * (1 - end) * (1 + k * (1 - end) / (2 - end) + k * end / (1 + end))
                error = (variance / (n_good * n_defective)) ** 0.5
                assert abs(value - end) == pytest.approx(stats.norm.ppf(0.975) * error, abs=1e-6)

    def test_of_few_images_that_separate_it_is_wide(self):
        found = image_measures([0.1] * 6 + [0.9] * 17, [False] * 6 + [True] * 17, ["good"] * 6 + ["crack"] * 17)
        assert found["image_auroc"].low == pytest.approx(0.78, abs=0.005)
        assert found["image_auroc"].high == 1


class TestResamples:
    def test_every_stratum_keeps_its_size(self):
        strata = ["good"] * 7 + ["crack"] * 2 + ["hole"]
        weights = np.concatenate(list(resamples(strata)))
        assert weights.shape == (metrics.RESAMPLES, 10)
        for members, size in ((slice(0, 7), 7), (slice(7, 9), 2), (slice(9, 10), 1)):
            assert (weights[:, members].sum(axis=1) == size).all()
        assert weights[:, 0].mean() == pytest.approx(1, abs=0.15), "each item is drawn once on average"

    def test_they_are_the_same_every_time(self):
        first, again = (np.concatenate(list(resamples(["a", "b", "a"]))) for _ in range(2))
        assert (first == again).all()


class TestPixelMeasures:
    def test_on_maps_of_real_size_the_auroc_is_that_of_every_pixel(self):
        maps, masks = smooth_maps(4, (448, 512), seed=3)
        histograms = PixelHistograms()
        histograms.add("good", maps[0], None)
        for distance_map, mask in zip(maps[1:], masks[1:], strict=True):
            histograms.add("crack", distance_map, mask)
        masks[0] = np.zeros_like(masks[0])
        exact = roc_auc_score(np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps]))
        assert 0.8 < exact < 0.999
        assert histograms.values(["good", "crack"])["pixel_auroc"] == pytest.approx(exact, abs=1e-5)

    @pytest.mark.parametrize("hw", [(96, 128), (192, 160)])
    def test_the_aupro_is_that_of_its_definition(self, hw):
        maps, masks = smooth_maps(3, hw, seed=4)
        masks[0] = np.zeros_like(masks[0])
        maps = [np.round(m, 2).astype(np.float32) for m in maps]  # few thresholds, and many ties
        histograms = PixelHistograms()
        for distance_map, mask in zip(maps, masks, strict=True):
            histograms.add("crack" if mask.any() else "good", distance_map, mask if mask.any() else None)
        exact = aupro_by_definition(maps, masks)
        assert 0.1 < exact < 0.99
        assert histograms.values(["good", "crack"])["pixel_aupro"] == pytest.approx(exact, abs=1e-6)

    def test_components_that_touch_at_a_corner_are_one(self):
        mask = np.zeros((8, 8), bool)
        mask[1, 1] = mask[2, 2] = mask[2, 3] = True
        found = np.full((8, 8), 0.1, np.float32)
        found[1, 1] = 1.0  # a third of the one component, of two it would be a half
        histograms = PixelHistograms()
        histograms.add("crack", found, mask)
        assert histograms.values(["crack"])["pixel_aupro"] == pytest.approx(1 / 3 + 0.15 * 2 / 3, abs=1e-9)

    def test_small_defects_count_as_much_as_large_ones(self):
        mask = np.zeros((40, 40), bool)
        mask[2:22, 2:22] = mask[30, 30] = True
        found = np.random.default_rng(0).uniform(0, 0.5, (40, 40)).astype(np.float32)
        found[2:22, 2:22] = 1.0
        histograms = PixelHistograms()
        histograms.add("crack", found, mask)
        values = histograms.values(["crack"])
        assert values["pixel_auroc"] > 0.99, "400 of 401 defective pixels"
        assert values["pixel_aupro"] < 0.95, "one of two defects"

    def test_type_is_measured_against_good_images_and_not_the_other_types(self):
        maps, masks = smooth_maps(3, (64, 64), seed=5)
        everything, alone = PixelHistograms(), PixelHistograms()
        for group, distance_map, mask in zip(("good", "crack", "hole"), maps, (None, *masks[1:]), strict=True):
            everything.add(group, distance_map, mask)
            if group != "hole":
                alone.add(group, distance_map, mask)
        assert everything.measures(["good", "crack"]) == alone.measures(["good", "crack"])
        assert everything.values(["good", "hole"]) != alone.values(["good", "crack"])

    def test_intervals_are_those_of_measuring_every_resample_of_the_images(self, monkeypatch):
        monkeypatch.setattr(metrics, "RESAMPLES", 25)
        monkeypatch.setattr(metrics, "_LEAST_TO_RESAMPLE", 1)
        maps, masks = smooth_maps(6, (40, 40), seed=6)
        groups = ["good", "good", "good", "crack", "crack", "hole"]
        histograms = PixelHistograms()
        masks = [mask if group != "good" else np.zeros_like(mask) for group, mask in zip(groups, masks, strict=True)]
        for group, distance_map, mask in zip(groups, maps, masks, strict=True):
            histograms.add(group, distance_map, mask if group != "good" else None)
        drawn = {"pixel_auroc": [], "pixel_aupro": []}
        for times in np.concatenate(list(resamples(groups))).astype(int):
            chosen = np.repeat(np.arange(6), times)
            labels = np.concatenate([masks[index].ravel() for index in chosen])
            values = np.concatenate([maps[index].ravel() for index in chosen])
            drawn["pixel_auroc"].append(roc_auc_score(labels, values))
            drawn["pixel_aupro"].append(
                aupro_by_definition([maps[i].round(2) for i in chosen], [masks[i] for i in chosen])
            )
        found = histograms.measures(["good", "crack", "hole"])
        for name, tolerance in (("pixel_auroc", 1e-3), ("pixel_aupro", 1e-2)):
            low, high = np.percentile(drawn[name], (2.5, 97.5))
            assert high - low > 3 * tolerance, "so that the interval is seen"
            assert [found[name].low, found[name].high] == pytest.approx([low, high], abs=tolerance)

    def test_of_fewer_than_five_images_of_a_group_they_have_no_interval(self):
        maps, masks = smooth_maps(10, (24, 24), seed=9)
        histograms = PixelHistograms()
        for index, (distance_map, mask) in enumerate(zip(maps, masks, strict=True)):
            histograms.add("good" if index < 5 else "crack", distance_map, None if index < 5 else mask)
        assert None not in {m.low for m in histograms.measures(["good", "crack"]).values()}
        histograms.add("hole", maps[0], masks[0])
        assert {m.low for m in histograms.measures(["good", "crack", "hole"]).values()} == {None}

    def test_without_masks_there_is_nothing_to_measure(self):
        histograms = PixelHistograms()
        histograms.add("good", np.ones((4, 4), np.float32), None)
        assert set(histograms.values(["good", "crack"]).values()) == {None}
        assert {m.value for m in histograms.measures(["crack"]).values()} == {None}

    def test_distances_at_the_ends_of_the_range_are_counted(self):
        mask = np.array([[True, False]])
        histograms = PixelHistograms()
        histograms.add("crack", np.array([[2.0, 0.0]], np.float32), mask)
        assert histograms.values(["crack"]) == {"pixel_auroc": 1.0, "pixel_aupro": 1.0}


def test_leading_axes_are_measured_one_by_one():
    counts = np.random.default_rng(7).integers(0, 5, (2, 3, 20)).astype(float)
    for measure in (auroc, aupro, metrics.average_precision, metrics.f1_max):
        assert measure(counts[0], counts[1]) == pytest.approx(
            [float(measure(counts[0, row], counts[1, row])) for row in range(3)], abs=1e-12
        )


@pytest.mark.parametrize("count", [0, 6])
def test_the_interval_of_a_rate_is_exact_where_all_or_nothing_went_wrong(count):
    low, high = Rate(count, 6).interval
    bound = 0.025 ** (1 / 6)  # the chance of six alike is 2.5 % there
    assert (low, high) == pytest.approx((0, 1 - bound) if count == 0 else (bound, 1))
