"""Thresholds for parts that are judged by two scores, and rejected if either score reaches its threshold."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class TwoThresholds(NamedTuple):
    """A threshold for each of two scores.

    Attributes:
        first, second: scores at or above it are rejected.
        n_cut: how many good parts were cut off to find them, see `promise.make_joint_promise`.
    """

    first: float
    second: float
    n_cut: int


def conformal_thresholds(pairs: Sequence[tuple[float, float]], rate: float) -> TwoThresholds:
    """The thresholds of two scores that together reject the next good part with at most probability `rate`.

    As for one score, ``⌊(n + 1) · rate⌋`` of n parts may be cut off (see `calib.conformal_threshold`): half of them by
    the first score, and of those below the others by the second. Each threshold lies just above the last part of its
    cut. One part is cut by each score at least, and the next one is rejected with probability 2 / (n + 1) then.
    `promise.make_joint_promise` says why the probability is that of a single cut.

    Args:
        pairs: the two scores of each good part, at least one.
        rate: false reject rate, 0..1 exclusive.
    """
    n = len(pairs)
    may_cut = min(n, max(2, math.floor((n + 1) * Fraction(str(rate)))))
    n_first = (may_cut + 1) // 2
    order = sorted(range(n), key=lambda number: pairs[number][0], reverse=True)
    first = pairs[order[n_first - 1]][0]
    below = sorted((pairs[number][1] for number in order[n_first:]), reverse=True)
    n_second = may_cut - n_first
    second = below[n_second - 1] if n_second else max(pair[1] for pair in pairs)  # of one part alone
    return TwoThresholds(math.nextafter(first, math.inf), math.nextafter(second, math.inf), max(2, may_cut))
