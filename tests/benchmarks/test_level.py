"""Levels that are subtracted from scores: by the good images, those of the fit by the others."""

import numpy as np
import pytest

from backend.scores.recommended_threshold import recommend
from benchmarks.level import WAYS, Maps, Split, Way, changed_all_over

LIMITED, FREE = Way("", 0.5, is_limited=True), Way("", 1.0, is_limited=False)


def test_a_level_counts_from_the_median_of_the_good_ones():
    known = np.array([0.1, 0.2, 0.5])
    assert FREE.corrections(known, np.array([0.2, 0.05, 0.9])) == pytest.approx([0, -0.15, 0.7])


def test_a_limited_level_stays_within_what_good_images_show():
    known = np.array([0.1, 0.2, 0.5])
    assert LIMITED.corrections(known, np.array([0.0, 0.3, 0.9])) == pytest.approx([-0.05, 0.05, 0.15])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_figures_are_those_of_scores_corrected_one_by_one(way):
    rng = np.random.default_rng(3)

    def maps(n: int, score: float) -> Maps:
        medians = rng.uniform(0.1, 0.3, n)
        return Maps(score + medians + rng.normal(0, 0.02, n), medians)

    split = Split(maps(12, 0.3), maps(9, 0.3), maps(7, 0.36), maps(9, 0.33), maps(6, 0.4))

    def corrected(score: float, median: float, others: list[float]) -> float:
        middle = sorted(others)[len(others) // 2] if len(others) % 2 else float(np.mean(sorted(others)[5:7]))
        above = median - middle
        if way.is_limited:
            above = min(max(above, min(others) - middle), max(others) - middle)
        return score - way.share * above

    known = split.honest.medians.tolist()
    honest = [
        corrected(score, median, [*known[:number], *known[number + 1 :]])
        for number, (score, median) in enumerate(zip(split.honest.scores, split.honest.medians, strict=True))
    ]
    threshold = recommend(honest).threshold

    def all_of(found: Maps) -> list[float]:
        return [corrected(score, median, known) for score, median in zip(found.scores, found.medians, strict=True)]

    good, expected = all_of(split.good), []
    for bad in (all_of(split.defective), all_of(split.planted)):
        expected.append(sum(b > g for b in bad for g in good) / (len(bad) * len(good)))
        expected.append(50 * (sum(g >= threshold for g in good) / 9 + sum(b < threshold for b in bad) / len(bad)))
    expected.append(100 * sum(score >= threshold for score in all_of(split.all_over)) / 6)
    assert split.figures(way) == pytest.approx(expected)


def test_a_split_without_parts_wrong_all_over_has_no_share_of_them():
    maps, none = Maps(np.array([0.1, 0.2, 0.3]), np.zeros(3)), Maps(np.empty(0), np.empty(0))
    figures = Split(maps, maps, maps, maps, none).figures(WAYS[0])
    assert np.isnan(figures[-1])
    assert np.isfinite(figures[:-1]).all()


def test_images_change_all_over_and_keep_their_size():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    black, inverted, blurred = changed_all_over(image)
    assert not black.any()
    assert np.array_equal(inverted.astype(int) + image, np.full(image.shape, 255))
    assert blurred.shape == image.shape
    assert blurred.std() < image.std() / 4
