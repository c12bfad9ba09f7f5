"""How well scores and maps separate good from defective, and what chance has to do with it."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Array = npt.NDArray[np.float64]
_RESAMPLES = 2000


@dataclass(frozen=True)
class Scores:
    """Image scores: good float64 [G], defective float64 [N]; the same images in the same order for every contender."""

    good: Array
    defective: Array

    @property
    def auroc(self) -> float:
        """Area under the ROC curve; 1 is perfect, 0.5 is chance."""
        return float(roc_auc_score(*self._labelled()))

    @property
    def average_precision(self) -> float:
        """Average precision of finding the defective ones."""
        return float(average_precision_score(*self._labelled()))

    @property
    def f1_max(self) -> float:
        """F1 at the threshold that is best for these very images."""
        precision, recall, _ = precision_recall_curve(*self._labelled())
        return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())

    def resampled_auroc(self) -> Array:
        """AUROC of 2000 bootstrap samples, good and defective drawn apart; always the same draws for the same counts.

        So differences between two contenders' values are those of paired samples.
        """
        draw = np.random.default_rng(0)
        good, defective = (
            draw.multinomial(count, np.full(count, 1 / count), _RESAMPLES) / count
            for count in (len(self.good), len(self.defective))
        )
        wins = (self.defective[:, None] > self.good) + 0.5 * (self.defective[:, None] == self.good)
        return np.asarray(((defective @ wins) * good).sum(axis=1))

    def _labelled(self) -> tuple[npt.NDArray[np.int64], Array]:
        labels = np.repeat([0, 1], [len(self.good), len(self.defective)])
        return labels, np.concatenate([self.good, self.defective])


def interval(resampled: Array) -> tuple[float, float]:
    """95 % percentile interval of bootstrap values [R]."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)


def pixel_metrics(
    pairs: Iterable[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]], fpr_limit: float = 0.3
) -> tuple[float, float]:
    """Pixel AUROC and AUPRO (Bergmann et al., 2021, doi:10.1007/s11263-020-01400-4).

    Both are means over defective pixels of what their share of good pixels at or above them, the false positive rate f
    at which they are found, leaves: 1 - f over all pixels, and max(0, 1 - f / limit) over the pixels of a region, then
    over the regions (8 neighbours). That is the area under either curve, without steps.

    Args:
        pairs: distance map float32 [H, W] and mask bool [H, W] of every image.
        fpr_limit: false positive rate where the integral of the per-region overlap ends.

    Returns:
        AUROC and AUPRO, each 0..1.
    """
    good, regions = [], []
    for distance_map, mask in pairs:
        good.append(distance_map[~mask])
        count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        regions += [distance_map[labels == label] for label in range(1, count)]
    ordered = np.sort(np.concatenate(good))
    sizes = np.array([len(region) for region in regions])
    pixels = np.concatenate(regions)
    below = (np.searchsorted(ordered, pixels, "left") + np.searchsorted(ordered, pixels, "right")) / 2
    false_positive_rate = 1 - below / len(ordered)
    overlap = np.maximum(0, 1 - false_positive_rate / fpr_limit)
    per_region = np.add.reduceat(overlap, np.cumsum(sizes) - sizes) / sizes
    return float(1 - false_positive_rate.mean()), float(per_region.mean())
