"""Has production left the calibrated distribution? A sequential test with a proven false alarm rate. No files, no HTTP.

Two hypotheses are tested, part after part: (1) the scores below the threshold and the OK scores of the calibration come
from one distribution, and (2) no more parts are rejected than is tolerated. Rejected parts do not enter (1), so an
occasional defect is no evidence.

(1) turns every score into a smoothed conformal p-value: its rank among the reference and all scores before it. Under
the hypothesis, these are independent and uniform for any size of the reference (Vovk, Gammerman, Shafer: Algorithmic
Learning in a Random World, 2nd ed., ch. 8). Bets on high and on low ranks, and bets on more rejects than tolerated, are
summed over all parts at which a change may have begun (Shiryaev-Roberts e-detectors; Shin, Ramdas, Rinaldo:
E-detectors, 2024). The sum M_t has M_t - t as a supermartingale, so an alarm at M_t >= A is false after A parts on
average at the earliest, and within the first m parts with a probability of at most m / A (Doob).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from backend.scores.promise import upper_bound

ALARM_AT = 1_000_000.0
"""A: inspected parts from the start to a false alarm, on average at least."""

STEPS_PER_UNIT = 2048
_MAX_SCORE = 2.0  # distances on the unit sphere
N_STEPS = int(_MAX_SCORE * STEPS_PER_UNIT) + 1

# Strong bets find large changes within a few parts, weak ones small changes in the end.
_POWERS = (0.3, 0.55, 0.8)
_ODDS = (2.0, 4.0, 8.0)
_CONFIDENCE = 0.99  # of the bound on what the calibration itself rejects
_MOST_TOLERATED = 0.9  # so that a line that rejects everything is noticed whatever the threshold
_LEAST_RANK = 1e-6  # bounds what a bet pays; it can only lose by that

Direction = Literal["higher", "lower", "rejects"]
DIRECTIONS: tuple[Direction, ...] = ("higher", "lower", "rejects")
_SHARES: dict[Direction, float] = {"higher": 0.25, "lower": 0.25, "rejects": 0.5}


def reference_of(ok_scores: Sequence[float], threshold: float) -> dict[int, int]:
    """How many OK scores below the threshold are on each step of 1/2048.

    Equal scores are later ranked at random, so the rounding does not weaken the guarantee.
    """
    return dict(Counter(_step(score) for score in ok_scores if score < threshold))


def tolerated_rate(defective: float, n_ok: int, n_rejected: int) -> float:
    """Share of rejected parts without an alarm: defective parts, and as many of the others as the calibration rejects.

    Args:
        defective: share of defective parts without an alarm.
        n_ok: OK scores of the calibration.
        n_rejected: how many of them its threshold rejects; the upper 99 % confidence bound (Clopper and Pearson) of
            their share is used, or 0 if no score is known.
    """
    false_rejects = upper_bound(n_rejected, n_ok, _CONFIDENCE) if n_ok else 0.0
    return min(defective + (1 - defective) * false_rejects, _MOST_TOLERATED)


def rejecting_stretch(rejected: Sequence[bool], tolerated: float) -> tuple[int, int]:
    """The most likely start of a stretch in which more parts were rejected than tolerated.

    Its likelihood ratio to the tolerated rate is above 1, so the share of its rejects is above that rate.

    Args:
        rejected: for each part up to the alarm, whether it was rejected.
        tolerated: share of rejected parts without an alarm.

    Returns:
        The number of parts in the stretch up to the last part, and how many were rejected; (0, 0) if there is none.
    """
    paid = [[_odds_ratio(part, odds, tolerated) for part in reversed(rejected)] for odds in _ODDS]
    by_length = np.cumsum(np.log(np.asarray(paid)), axis=1).max(axis=0, initial=-math.inf)
    if not len(rejected) or by_length.max() <= 0:
        return 0, 0
    length = int(by_length.argmax()) + 1
    return length, sum(rejected[-length:])


def no_wealth() -> dict[Direction, list[float]]:
    """The wealth of the bets before the first part."""
    bets = {"higher": len(_POWERS), "lower": len(_POWERS), "rejects": len(_ODDS)}
    return {direction: [0.0] * bets[direction] for direction in DIRECTIONS}


@dataclass
class DriftDetector:
    """The test for one ROI under one calibration; its size is some kilobytes for any number of parts.

    Attributes:
        threshold: of the calibration; scores at or above it are rejected.
        tolerated: share of rejected parts without an alarm, in (0, 1).
        bag: int64 [N_STEPS], how many reference and accepted scores are on each step.
        wealth: by direction, the wealth of each of its bets, summed over the parts at which a change may have begun.
        alarm: the direction of the alarm; the test ends with it.
    """

    threshold: float
    tolerated: float
    bag: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_STEPS, np.int64))
    wealth: dict[Direction, list[float]] = field(default_factory=no_wealth)
    alarm: Direction | None = None

    @classmethod
    def starting(cls, reference: Mapping[int, int], threshold: float, tolerated: float) -> "DriftDetector":
        """A new test, with `reference_of` the calibration; without a reference, the first scores become it."""
        detector = cls(threshold, tolerated)
        for step, count in reference.items():
            detector.bag[step] = count
        return detector

    @property
    def evidence(self) -> float:
        """M_t; an alarm is raised at `ALARM_AT`."""
        return math.fsum(self._evidence_for(direction) for direction in DIRECTIONS)

    def add(self, score: float, lot: float) -> None:
        """Take the next part into account.

        Args:
            score: of the part.
            lot: random number from [0, 1), decides between equal scores.
        """
        if self.alarm is not None:
            return
        rejected = score >= self.threshold
        self._bet("rejects", [_odds_ratio(rejected, odds, self.tolerated) for odds in _ODDS])
        if not rejected:
            rank = self._rank(_step(score), lot)
            self._bet("higher", [_power_bet(1 - rank, power) for power in _POWERS])
            self._bet("lower", [_power_bet(rank, power) for power in _POWERS])
        if self.evidence >= ALARM_AT:
            strongest = max(DIRECTIONS, key=self._evidence_for)
            self.alarm = strongest

    def _rank(self, step: int, lot: float) -> float:
        """The smoothed conformal p-value of a score, which joins the bag."""
        below, equal, total = int(self.bag[:step].sum()), int(self.bag[step]), int(self.bag.sum())
        self.bag[step] += 1
        return (below + lot * (equal + 1)) / (total + 1)

    def _bet(self, direction: Direction, paid: list[float]) -> None:
        self.wealth[direction] = [
            (wealth + 1) * factor for wealth, factor in zip(self.wealth[direction], paid, strict=True)
        ]

    def _evidence_for(self, direction: Direction) -> float:
        return _SHARES[direction] * math.fsum(self.wealth[direction]) / len(self.wealth[direction])


def _step(score: float) -> int:
    return round(min(max(score, 0.0), _MAX_SCORE) * STEPS_PER_UNIT)


def _power_bet(p: float, power: float) -> float:
    """What a bet on small p pays: a density on [0, 1], except for its peak."""
    paid: float = power * max(p, _LEAST_RANK) ** (power - 1)
    return paid


def _odds_ratio(rejected: bool, odds: float, tolerated: float) -> float:
    """Likelihood ratio of a part: a reject rate with `odds` times the tolerated odds, against the tolerated rate."""
    more = odds * tolerated / (1 - tolerated + odds * tolerated)
    return more / tolerated if rejected else (1 - more) / (1 - tolerated)
