"""How well scores separate defective from good: measures of images and of pixels, with confidence intervals.

Measures work on counts by falling score, with any leading axes, so that many resamples cost one call.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backend.common.arrays import DistanceMap

Counts = npt.NDArray[np.float64]

IMAGE_MEASURES = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_MEASURES = ("pixel_auroc", "pixel_aupro")

MAX_FPR = 0.3
RESAMPLES = 1000
SEED = 0
CONFIDENCE = 0.95
# Distances are 0..2. A bin is 3e-5 wide: less than what separates the float32 runtimes.
_BINS = 1 << 16
# Of the histograms that each image keeps for resampling, 24 KiB together.
_COARSE_BINS = 1 << 11
_RESAMPLED_AT_ONCE = 50
# From fewer images of a kind, resamples of them are too much alike to show how sure a measure is.
_LEAST_TO_RESAMPLE = 5


@dataclass(frozen=True)
class Measure:
    """A measure with the limits of its 95 % interval.

    Attributes:
        value: 0..1; None if there is nothing to measure.
        low, high: of image AUROC by `auroc_interval`; of all others the 2.5th and 97.5th percentile of the bootstrap,
            None if a kind has fewer than 5 images. None as `value`.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rate:
    """The rate of an error.

    Attributes:
        count, total: how often, of how many; `total` is at least 1.
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0..1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % confidence interval (Clopper & Pearson, 1934)."""
        from scipy.stats import binomtest  # half a second to import, for nobody else

        interval = binomtest(self.count, self.total).proportion_ci(CONFIDENCE, "exact")
        return float(interval.low), float(interval.high)


def auroc(positives: Counts, negatives: Counts) -> Counts:
    """Area under the ROC curve; NaN where a class is empty.

    Args:
        positives, negatives: float64 [..., K], how many have the k-th highest score.

    Returns:
        float64 [...].
    """
    true, false = _rates(positives), _rates(negatives)
    return np.asarray(np.trapezoid(true, false, axis=-1))


def average_precision(positives: Counts, negatives: Counts) -> Counts:
    """Area under the precision-recall curve as a sum of steps, as scikit-learn's; NaN where a class is empty.

    Args:
        positives, negatives: see `auroc`.
    """
    recall, precision = _recall_and_precision(positives, negatives)
    return np.asarray((np.diff(recall, axis=-1, prepend=0) * precision).sum(axis=-1))


def f1_max(positives: Counts, negatives: Counts) -> Counts:
    """Largest F1 that any threshold gives; NaN where a class is empty.

    Args:
        positives, negatives: see `auroc`.
    """
    recall, precision = _recall_and_precision(positives, negatives)
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    return np.asarray(np.where(np.isnan(recall[..., -1]), np.nan, np.fmax.reduce(f1, axis=-1)))


def aupro(overlaps: Counts, negatives: Counts, max_fpr: float = MAX_FPR) -> Counts:
    """Area under the per-region overlap up to a false positive rate, divided by that rate; NaN where a class is empty.

    Bergmann et al., *The MVTec Anomaly Detection Dataset*, IJCV 2021, doi:10.1007/s11263-020-01400-4.

    Args:
        overlaps: float64 [..., K], the sum over ground-truth components of the share of its pixels that have the k-th
            highest score.
        negatives: float64 [..., K], good pixels that have it.
        max_fpr: 0 < `max_fpr` <= 1.
    """
    overlap, false = _rates(overlaps), _rates(negatives)
    inside = np.minimum(false, max_fpr)
    rise, run = np.diff(overlap, axis=-1), np.diff(false, axis=-1)
    # Where the limit cuts a segment, the overlap at the cut is interpolated; a segment beyond it has no width.
    share = np.divide(np.diff(inside, axis=-1), run, out=np.ones_like(run), where=run > 0)
    area = np.diff(inside, axis=-1) * (overlap[..., :-1] + rise * share / 2)
    return np.asarray(area.sum(axis=-1) / max_fpr)


def _rates(counts: Counts) -> Counts:
    """Cumulated shares from 0 to 1, float64 [..., K + 1]; NaN where all counts are 0."""
    total = counts.sum(axis=-1, keepdims=True)
    cumulated = np.cumsum(counts, axis=-1)
    shares = np.divide(cumulated, total, out=np.full_like(cumulated, np.nan), where=total > 0)
    return np.concatenate([np.zeros_like(total), shares], axis=-1)


def _recall_and_precision(positives: Counts, negatives: Counts) -> tuple[Counts, Counts]:
    recall = _rates(positives)[..., 1:]
    found = np.cumsum(positives, axis=-1)
    taken = found + np.cumsum(negatives, axis=-1)
    precision = np.divide(found, taken, out=np.zeros_like(taken), where=taken > 0)
    one_class = (positives.sum(axis=-1, keepdims=True) == 0) | (negatives.sum(axis=-1, keepdims=True) == 0)
    return np.where(one_class, np.nan, recall), precision


def auroc_interval(value: float, n_defective: int, n_good: int) -> tuple[float, float]:
    """95 % confidence interval of an AUROC that was measured on images, even on few.

    All AUROCs from which the measured one is at most 1.96 standard errors away, each by its own standard error: method
    5 of Newcombe, *Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2*,
    Statistics in Medicine 25 (2006) 559-573. The interval of the bootstrap is too short for few images, and a single
    point if they separate.

    Args:
        value: 0..1.
        n_defective, n_good: at least one of each.
    """
    return _lowest_auroc(value, n_defective, n_good), 1 - _lowest_auroc(1 - value, n_defective, n_good)


def _lowest_auroc(value: float, n_defective: int, n_good: int) -> float:
    from scipy.optimize import brentq  # half a second to import, for nobody else
    from scipy.special import ndtri

    if value <= 0:
        return 0.0
    quantile, more = ndtri((1 + CONFIDENCE) / 2), (n_defective + n_good) / 2 - 1

    def beyond(true: float) -> float:
        of_pairs = 1 + more * ((1 - true) / (2 - true) + true / (1 + true))
        return value - true - float(quantile * math.sqrt(true * (1 - true) * of_pairs / (n_defective * n_good)))

    return float(brentq(beyond, 0, value * (1 - 1e-12)))  # at 1 itself the error is 0 too


def resamples(strata: Sequence[str]) -> Iterator[Counts]:
    """How often each item is drawn in each resample of a stratified bootstrap (Efron & Tibshirani, 1993).

    Args:
        strata: of each item; every stratum keeps its size.

    Yields:
        float64 [R, len(strata)], whole numbers; `RESAMPLES` rows in all.
    """
    random = np.random.default_rng(SEED)
    of_stratum = [np.flatnonzero(np.array(strata) == stratum) for stratum in sorted(set(strata))]
    for start in range(0, RESAMPLES, _RESAMPLED_AT_ONCE):
        weights = np.zeros((min(_RESAMPLED_AT_ONCE, RESAMPLES - start), len(strata)))
        for members in of_stratum:
            even = np.full(len(members), 1 / len(members))
            weights[:, members] = random.multinomial(len(members), even, len(weights))
        yield weights


def image_measures(
    scores: Sequence[float], defective: Sequence[bool], strata: Sequence[str] | None
) -> dict[str, Measure]:
    """How well image scores separate defective images from good ones: `IMAGE_MEASURES`.

    Args:
        scores: of each image.
        defective: whether each is defective; both kinds occur.
        strata: of each image, see `resamples`; None for values without intervals.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    values, labels = np.array(scores, np.float64), np.array(defective)
    order = np.argsort(-values, kind="stable")
    # Equal scores count together, whatever their order.
    firsts = np.flatnonzero(np.diff(values[order], prepend=np.inf))

    def counts(of: Counts, label: bool) -> Counts:
        chosen = of[..., order] * (labels[order] == label)
        return np.asarray(np.add.reduceat(chosen, firsts, axis=-1))

    once = np.ones(len(values))
    area, precision = float(roc_auc_score(labels, values)), float(average_precision_score(labels, values))
    f1 = float(f1_max(counts(once, True), counts(once, False)))
    if strata is None:
        return dict(zip(IMAGE_MEASURES, map(Measure, (area, precision, f1)), strict=True))
    n_defective = int(labels.sum())
    drawn: list[tuple[Counts, Counts]] = []
    if _can_resample(strata):
        for weights in resamples(strata):
            of_classes = counts(weights, True), counts(weights, False)
            drawn.append((average_precision(*of_classes), f1_max(*of_classes)))
    bootstrapped = _bootstrapped((precision, f1), drawn)
    area_measure = Measure(area, *auroc_interval(area, n_defective, len(labels) - n_defective))
    return dict(zip(IMAGE_MEASURES, (area_measure, *bootstrapped), strict=True))


def roc_curve(scores: Sequence[float], defective: Sequence[bool]) -> tuple[list[float], list[float]]:
    """False and true positive rates from (0, 0) to (1, 1)."""
    from sklearn.metrics import roc_curve as curve

    false, true, _ = curve(defective, scores)
    return false.tolist(), true.tolist()


class PixelHistograms:
    """Distance maps of any number of images, as histograms: a megabyte and a half a group, and 24 KiB an image.

    Every image belongs to a group: the good ones, or a type of defect.
    """

    def __init__(self) -> None:
        self._groups: list[str] = []
        self._sums: dict[str, Counts] = {}
        self._images: list[npt.NDArray[np.float32]] = []

    def add(self, group: str, distance_map: DistanceMap, mask: npt.NDArray[np.bool_] | None) -> None:
        """Count the pixels of an image.

        Args:
            group: what the image belongs to.
            distance_map: float32 [H, W], 0..2.
            mask: bool [H, W], True for defective pixels; None if there is none.
        """
        bins = np.clip(distance_map * np.float32(_BINS / 2), 0, _BINS - 1).astype(np.int32)
        counts = np.zeros((3, _BINS))  # defective pixels, good pixels, shares of components
        if mask is None:
            counts[1] = np.bincount(bins.reshape(-1), minlength=_BINS)
        else:
            inside = bins[mask]
            counts[0] = np.bincount(inside, minlength=_BINS)
            counts[1] = np.bincount(bins[~mask], minlength=_BINS)
            _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            component = labels[mask]
            counts[2] = np.bincount(inside, 1 / np.bincount(component)[component], minlength=_BINS)
        counts = counts[:, ::-1]  # by falling distance
        self._groups.append(group)
        self._sums[group] = self._sums.get(group, 0) + counts
        self._images.append(counts.reshape(3, _COARSE_BINS, -1).sum(axis=-1).astype(np.float32))

    def values(self, groups: Sequence[str]) -> dict[str, float | None]:
        """`PIXEL_MEASURES` over all images of the groups; None if they have no defective pixel, or no good one."""
        known: Any = [self._sums[group] for group in groups if group in self._sums]
        positives, negatives, overlaps = np.sum(known, axis=0) if known else np.zeros((3, 1))
        values = (_number(auroc(positives, negatives)), _number(aupro(overlaps, negatives)))
        return dict(zip(PIXEL_MEASURES, values, strict=True))

    def measures(self, groups: Sequence[str]) -> dict[str, Measure]:
        """`values`, with intervals: images are resampled, within each group; none if one has fewer than 5."""
        values = self.values(groups)
        chosen = [index for index, group in enumerate(self._groups) if group in groups]
        strata = [self._groups[index] for index in chosen]
        if None in values.values() or not _can_resample(strata):
            return {name: Measure(value) for name, value in values.items()}
        images = np.stack([self._images[index] for index in chosen], axis=1).astype(np.float64)
        images = images[..., images.any(axis=(0, 1))]  # most distances do not occur
        drawn: list[tuple[Counts, Counts]] = []
        for weights in resamples(strata):
            positives, negatives, overlaps = weights @ images
            drawn.append((auroc(positives, negatives), aupro(overlaps, negatives)))
        return dict(zip(values, _bootstrapped(tuple(values.values()), drawn), strict=True))


def _can_resample(strata: Sequence[str]) -> bool:
    return min(Counter(strata).values()) >= _LEAST_TO_RESAMPLE


def _bootstrapped(values: Sequence[float | None], drawn: Sequence[Sequence[Counts]]) -> list[Measure]:
    """Values with intervals from the drawn samples, block by block; without intervals if nothing was drawn."""
    if not drawn:
        return [Measure(value) for value in values]
    tail = 100 * (1 - CONFIDENCE) / 2
    measures = []
    for value, parts in zip(values, zip(*drawn, strict=True), strict=True):
        low, high = np.percentile(np.concatenate(parts), (tail, 100 - tail))
        measures.append(Measure(value, float(low), float(high)))
    return measures


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
