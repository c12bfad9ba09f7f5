"""Whether new good parts score higher than the images of a fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Higher scores of fresh good parts are named where chance gives such a difference less often than this.
SHIFT_LEVEL = 0.01


@dataclass(frozen=True)
class Shift:
    """Scores of new good parts, compared with those of the images of a fit.

    Attributes:
        p_value: probability that new scores of the same kind are so much higher by chance; 0..1.
        median_of_fit, median: of the images of the fit, and of the new parts.
        n_rejected, n: new parts at or above the threshold, and all of them.
        promised: share of good parts that the threshold promises to reject at most, 0..1.
    """

    p_value: float
    median_of_fit: float
    median: float
    n_rejected: int
    n: int
    promised: float

    @classmethod
    def of(cls, scores_of_fit: Sequence[float], scores: Sequence[float], threshold: float, promised: float) -> "Shift":
        """Compare scores by the one-sided test of Mann and Whitney (1947), which assumes no distribution.

        Args:
            scores_of_fit: of the images of the fit, each by a memory bank of the others; at least one.
            scores: of new good parts, at least one.
            threshold: scores at or above it are rejected.
            promised: see `Promise.false_reject_rate_at_most`.
        """
        from scipy.stats import mannwhitneyu  # half a second to import, for nobody else

        p_value = float(mannwhitneyu(scores, scores_of_fit, alternative="greater").pvalue)
        n_rejected = int(np.count_nonzero(np.asarray(scores) >= threshold))
        medians = float(np.median(scores_of_fit)), float(np.median(scores))
        return cls(p_value, *medians, n_rejected, len(scores), promised)

    @property
    def matters(self) -> bool:
        """Whether the new parts score significantly higher, and the threshold does not keep its promise for them.

        Higher scores alone do no harm, because the promise leaves room for them. A share above the promise alone may be
        chance, because the promise is about parts like those of the fit. Both together show that the parts differ.
        """
        return self.p_value < SHIFT_LEVEL and self.n_rejected > self.promised * self.n

    def in_words(self, parts: str, images: str) -> str:
        """A sentence for people.

        Args:
            parts: name of the new parts, such as ``"good test parts"``.
            images: name of the images of the fit.
        """
        p = f"p = {self.p_value:.1g}" if self.p_value >= 1e-4 else "p < 0.0001"
        return (
            f"The {parts} score higher than the {images} (median {self.median:.4g} against {self.median_of_fit:.4g}, "
            f"{p}), and {self.n_rejected} of {self.n} are rejected ({100 * self.n_rejected / self.n:.1f} %), but the "
            f"threshold promises at most {100 * self.promised:.1f} %. Is it another day, or another lamp? Add such "
            "parts to the fit"
        )
