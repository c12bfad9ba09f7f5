"""Scores of a distance map that may find a small defect among thousands of tokens; see `benchmarks.detail`.

The percentiles are those of the map on the pixels of a scene, as the service scores it. The others are of the token
grid. A local mean is of 15×15 tokens; beyond the border, the tokens at the border count.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from backend.infer import image_scores

DistanceMap = npt.NDArray[np.float32]
_AROUND = 15
_HIGHEST = 4


def highest(distances: DistanceMap) -> float:
    """The mean of the four highest values."""
    return float(np.partition(distances, distances.size - _HIGHEST, axis=None)[-_HIGHEST:].mean())


def pooled(distances: DistanceMap) -> DistanceMap:
    """The mean of each token with its right, lower and lower right neighbour: float32 [rows - 1, columns - 1]."""
    rows = distances[:-1] + distances[1:]
    return np.asarray((rows[:, :-1] + rows[:, 1:]) / 4, np.float32)


def around(distances: DistanceMap) -> DistanceMap:
    """The local mean of each token."""
    return np.asarray(cv2.blur(distances, (_AROUND, _AROUND), borderType=cv2.BORDER_REPLICATE), np.float32)


def _pooled_above(distances: DistanceMap) -> float:
    return float((pooled(distances) - around(distances)[:-1, :-1]).max())


OF_TOKENS: dict[str, Callable[[DistanceMap], float]] = {
    "mean of the 4 highest": highest,
    "mean of 2×2": lambda distances: float(pooled(distances).max()),
    "less the local mean": lambda distances: float((distances - around(distances)).max()),
    "less the local mean, mean of the 4 highest": lambda distances: highest(distances - around(distances)),
    "mean of 2×2 less the local mean": _pooled_above,
}
"""Other scores, by name."""


def score_name(percentile: float) -> str:
    """The name of a percentile as a score.

    >>> score_name(99.5), score_name(100.0)
    ('p99.5', 'p100')
    """
    return f"p{percentile:g}"


def all_scores(
    distances: DistanceMap, image_hw: tuple[int, int], blur_sigma: float, percentiles: Sequence[float], *, others: bool
) -> dict[str, float]:
    """Scores of a map, by name.

    Args:
        distances: float32 [rows, columns] of the token grid.
        image_hw: image size (rows, columns).
        blur_sigma: Gaussian sigma in image pixels; 0 is none.
        percentiles: each gives a score.
        others: also those of `OF_TOKENS`.
    """
    found = image_scores(distances, image_hw, None, blur_sigma, percentiles)
    scores = {score_name(percentile): score for percentile, score in zip(percentiles, found, strict=True)}
    return scores | ({name: score(distances) for name, score in OF_TOKENS.items()} if others else {})
