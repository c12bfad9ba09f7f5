"""Scores that stand out: their parts may be of another kind than the others."""

from collections.abc import Sequence

import numpy as np

_LEAST_SPREAD = 0.02


def outliers(scores: Sequence[float], least: int = 5, limit: float = 3.5) -> list[int]:
    """Positions of scores that are too high to be of the same kind as the others.

    By the modified z-score of Iglewicz and Hoaglin (1993), ``0.6745 (x - median) / MAD > limit``. Outliers do not
    hide one another, even if a third of the scores are outliers. The MAD is taken as 2 % of the median at least.

    Args:
        scores: one per image.
        least: with fewer scores nothing is an outlier.
        limit: scores whose modified z-score is above it are outliers.

    Returns:
        Positions, ascending.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < least:
        return []
    median = np.median(values)
    deviation = max(np.median(np.abs(values - median)), _LEAST_SPREAD * median)
    return [int(index) for index in np.flatnonzero(0.6745 * (values - median) > limit * deviation)]
