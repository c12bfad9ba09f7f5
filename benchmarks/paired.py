"""Contenders on the same images: how well each separates good from defective, and what chance has to do with it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.commands.evaluate import metrics

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
        return float(metrics.auroc(*self._counts()))

    @property
    def average_precision(self) -> float:
        """Average precision of finding the defective ones."""
        return float(metrics.average_precision(*self._counts()))

    @property
    def f1_max(self) -> float:
        """F1 at the threshold that is best for these very images."""
        return float(metrics.f1_max(*self._counts()))

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

    def _counts(self) -> tuple[Array, Array]:
        """How many defective and good images have the k-th highest score, float64 [K] each."""
        values, places = np.unique(np.concatenate([self.defective, self.good]), return_inverse=True)
        n_defective = len(self.defective)
        defective, good = (
            np.bincount(own, minlength=len(values))[::-1].astype(np.float64)
            for own in (places[:n_defective], places[n_defective:])
        )
        return defective, good


def interval(resampled: Array) -> tuple[float, float]:
    """95 % percentile interval of bootstrap values [R]."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return float(low), float(high)
