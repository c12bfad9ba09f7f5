"""The recommended threshold, from few scores of good parts, of which one or two may be unusual."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.scores.outliers import outliers

# Of good parts, if their scores are normal. Chosen with `MISSED_PER_NG` by `benchmarks.decisions`: what rejects 1 %
# lets more defective parts escape than it saves good ones.
REJECTED_RATE = 0.025
# What a defective score below the threshold counts for, as a share of the good parts that a lower one would reject.
MISSED_PER_NG = 0.1
# From fewer scores Student's factor is larger than what they tell: of two it is 18.
_LEAST_DEGREES = 4
# Scores that hardly differ are taken to scatter by this share of their mean.
_LEAST_SCATTER = 0.02
FEW_SCORES = 10
_MOST_NAMED = 5

Scores = npt.NDArray[np.float64]


def position_name(position: int) -> str:
    """The name of a score that has no other name."""
    return f"position {position}"


@dataclass(frozen=True)
class Recommendation:
    """A threshold, and its basis.

    Attributes:
        threshold: scores at or above it are rejected.
        unusual: positions of OK scores that do not count, because they stand out.
        threshold_with_unusual: the threshold if they counted.
        lowered_by: positions of NG scores that would escape at `threshold_of_ok`, but not at `threshold`.
        threshold_of_ok: the threshold from the OK scores alone.
        why: the same in words.
    """

    threshold: float
    unusual: tuple[int, ...]
    threshold_with_unusual: float
    lowered_by: tuple[int, ...]
    threshold_of_ok: float
    why: str


@dataclass(frozen=True)
class Scatter:
    """The spread of the scores of good parts, assumed to be normal.

    Attributes:
        mean: of them.
        deviation: standard deviation of the next score about `mean`: of one score, times ``√(1 + 1/n)``.
        degrees: of freedom of Student's distribution.
    """

    mean: float
    deviation: float
    degrees: int

    @classmethod
    def of(cls, scores: Scores) -> "Scatter":
        """The spread of some scores, at least one."""
        mean, n = float(scores.mean()), len(scores)
        deviation = float(scores.std(ddof=1)) if n > 1 else 0.0
        deviation = max(deviation, _LEAST_SCATTER * abs(mean))
        return cls(mean, deviation * math.sqrt(1 + 1 / n), max(n - 1, _LEAST_DEGREES))

    def limit(self, rate: float) -> float:
        """The limit that the next good score exceeds with probability `rate`.

        Hahn, *Finding an interval for the next observation from a normal distribution*, J. Quality Technology 1 (1969).
        """
        from scipy.special import stdtrit  # a start need not wait for it

        limit = self.mean + self.deviation * float(stdtrit(self.degrees, 1 - rate))
        return max(limit, math.nextafter(self.mean, math.inf))  # scores of 0 alone do not scatter at all

    def rates_above(self, thresholds: Scores) -> Scores:
        """Expected shares of good parts at or above some thresholds."""
        from scipy.special import stdtr

        if self.deviation == 0:
            return np.asarray(thresholds <= self.mean, np.float64)
        return np.asarray(stdtr(self.degrees, (self.mean - thresholds) / self.deviation), np.float64)


def recommend(
    ok_scores: Sequence[float],
    ng_scores: Sequence[float] = (),
    keep: Collection[int] = (),
    ok_name: Callable[[int], str] = position_name,
    ng_name: Callable[[int], str] = position_name,
    rate: float = REJECTED_RATE,
) -> Recommendation:
    """The limit that the next good score exceeds with probability `rate`, lowered if NG scores are below it.

    OK scores that stand out (`outliers`) do not count. NG scores below the limit lower it, as long as this costs fewer
    good parts than it finds defective ones, where each defective one counts as 10 % of the good parts. They never raise
    it, and a further NG score that is rejected anyway changes nothing.

    Args:
        ok_scores: image scores of good parts, at least one, by memory banks without them.
        ng_scores: image scores of defective parts.
        keep: positions of OK scores that count although they stand out.
        ok_name, ng_name: names of scores, by their position.
        rate: share of good parts.

    Raises:
        ValueError: no OK score.
    """
    if not ok_scores:
        raise ValueError("at least one OK score is needed")
    ok, ng = np.asarray(ok_scores, np.float64), np.asarray(ng_scores, np.float64)
    unusual = tuple(position for position in outliers(ok_scores) if position not in keep)
    counted = np.delete(ok, unusual)
    scatter = Scatter.of(counted)
    threshold_of_ok = scatter.limit(rate)
    threshold = _lowered(threshold_of_ok, ok, counted, ng, scatter)
    lowered_by = tuple(int(position) for position in np.flatnonzero((ng < threshold_of_ok) & (ng >= threshold)))
    with_unusual = threshold
    if unusual:
        every = Scatter.of(ok)
        with_unusual = _lowered(every.limit(rate), ok, ok, ng, every)
    why = _in_words((ok, ok_name), unusual, with_unusual, (ng, ng_name), lowered_by, threshold, threshold_of_ok, rate)
    return Recommendation(threshold, unusual, with_unusual, lowered_by, threshold_of_ok, why)


def cheapest(ok_scores: Sequence[float], ng_scores: Sequence[float], escape_cost: float, defect_rate: float) -> float:
    """The threshold with the lowest cost per part: of rejected good parts and escaped defective parts.

    Args:
        ok_scores: image scores of good parts, at least one.
        ng_scores: image scores of defective parts, at least one.
        escape_cost: what an escaped defective part costs, in rejected good parts.
        defect_rate: share of defective parts in production, 0..1 exclusive.

    Returns:
        Half way from a defective score to the next lower one, or just above all scores.
    """
    ok, ng = np.asarray(ok_scores, np.float64), np.asarray(ng_scores, np.float64)
    scatter = Scatter.of(np.delete(ok, outliers(ok_scores)))
    above_all = math.nextafter(float(max(ok.max(), ng.max())), math.inf)

    thresholds = np.unique(np.append(ng, above_all))
    escapes = defect_rate * escape_cost * (_numbers_below(thresholds, ng) / len(ng))
    best = _least(thresholds, escapes + (1 - defect_rate) * _rejected(thresholds, ok, scatter))
    return best if best == above_all else _below(best, ok, ng)


def _rejected(thresholds: Scores, ok: Scores, scatter: Scatter) -> Scores:
    """Shares of good parts at or above thresholds: those of the scores, but at least those that the spread predicts."""
    return np.maximum((len(ok) - _numbers_below(thresholds, ok)) / len(ok), scatter.rates_above(thresholds))


def _numbers_below(thresholds: Scores, scores: Scores) -> Scores:
    """How many scores are below each threshold, by a binary search, because there may be a million of both."""
    return np.asarray(np.searchsorted(np.sort(scores), thresholds, side="left"), np.float64)


def _least(thresholds: Scores, costs: Scores) -> float:
    """The threshold with the lowest cost; the highest of several.

    Args:
        thresholds: rising.
        costs: of each.
    """
    return float(thresholds[np.flatnonzero(costs == costs.min())[-1]])


def _lowered(limit: float, ok: Scores, counted: Scores, ng: Scores, scatter: Scatter) -> float:
    thresholds = np.unique(np.append(ng[ng < limit], limit))
    missed = MISSED_PER_NG * _numbers_below(thresholds, ng)
    best = _least(thresholds, missed + _rejected(thresholds, counted, scatter))
    return limit if best == limit else _below(best, ok, ng)


def _below(score: float, ok: Scores, ng: Scores) -> float:
    """The midpoint between a score and the next lower one; the score itself if there is none."""
    every = np.concatenate([ok, ng])
    lower = every[every < score]
    if not len(lower):
        return score
    middle = float(score + lower.max()) / 2
    return middle if middle > lower.max() else score


def _in_words(
    named_ok: tuple[Scores, Callable[[int], str]],
    unusual: tuple[int, ...],
    with_unusual: float,
    named_ng: tuple[Scores, Callable[[int], str]],
    lowered_by: tuple[int, ...],
    threshold: float,
    threshold_of_ok: float,
    rate: float,
) -> str:
    ok, ng = named_ok[0], named_ng[0]
    n_counted = len(ok) - len(unusual)
    basis = f"{n_counted} of {len(ok)} OK scores" if unusual else f"{n_counted} OK scores"
    sentences = [f"about {100 * rate:g} % of good parts score above {threshold_of_ok:.4g}, estimated from {basis}"]
    if n_counted == 1:
        sentences = [f"1 OK score does not show how much good parts vary, so {threshold_of_ok:.4g} is a guess"]
    elif n_counted < FEW_SCORES:
        sentences.append(f"{n_counted} are few: {FEW_SCORES} or more show how much good parts vary")
    if len(unusual) == 1:
        sentences.append(
            f"1 score stands out and does not count: {_named(unusual, *named_ok)}; if the part is good, name it in "
            f"keep, and the threshold becomes {with_unusual:.4g}"
        )
    elif unusual:
        sentences.append(
            f"{len(unusual)} scores stand out and do not count: {_named(unusual, *named_ok)}; if the parts are good, "
            f"name them in keep, and the threshold becomes {with_unusual:.4g}"
        )
    if lowered_by:
        sentences.append(
            f"NG scores below that lower the threshold to {threshold:.4g}: {_named(lowered_by, *named_ng)}"
        )
    if missed := int(np.count_nonzero(ng < threshold)):
        sentences.append(
            f"{missed} of {len(ng)} NG scores {'is' if missed == 1 else 'are'} still below the threshold: a lower one "
            "would reject too many good parts"
        )
    return "; ".join(sentences)


def _named(positions: tuple[int, ...], scores: Scores, name: Callable[[int], str]) -> str:
    named = ", ".join(f"{scores[position]:.4g} ({name(position)})" for position in positions[:_MOST_NAMED])
    more = len(positions) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
