"""The scores of the production of one ROI, and the verdict of `drift`."""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator

from backend.common.roi_key import RoiKey
from backend.scores.drift_detector import (
    N_STEPS,
    STEPS_PER_UNIT,
    Direction,
    DriftDetector,
    no_wealth,
    reference_of,
    rejecting_stretch,
    tolerated_rate,
)
from backend.utils import utc_now

_N_RECENT = 200
_N_MARKS = 500
_SUMMARY = (5.0, 50.0, 95.0)

_Count = Annotated[int, Field(ge=0, le=2**40)]
Steps = dict[Annotated[int, Field(ge=0, lt=N_STEPS)], _Count]
_Wealth = list[Annotated[FiniteFloat, Field(ge=0, le=1e12)]]
_Percentiles = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


@dataclass(frozen=True)
class CalibrationScores:
    """What is kept of the OK scores of a calibration.

    Attributes:
        steps: those below the threshold, see `reference_of`; empty if the first parts are the reference.
        rejected: how many are not below it.
        percentiles: 5, 50 and 95 of those below it; None if there are none, or if an earlier version kept only steps.
    """

    steps: Steps
    rejected: int
    percentiles: _Percentiles | None = None

    @classmethod
    def of(cls, ok_scores: Sequence[float], threshold: float) -> "CalibrationScores":
        """What is kept of OK scores; `NOT_KNOWN` if there are none."""
        below = [score for score in ok_scores if score < threshold]
        p5, p50, p95 = np.percentile(below, _SUMMARY).tolist() if below else (0.0, 0.0, 0.0)
        return cls(reference_of(ok_scores, threshold), len(ok_scores) - len(below), (p5, p50, p95) if below else None)


NOT_KNOWN = CalibrationScores({}, 0)


class RoiDrift(BaseModel):
    """The file of one ROI.

    Attributes:
        role_id, roi_id, recipe_id, model_key: whose it is.
        conditions: the memory bank and the calibration that the statistics belong to.
        threshold: of the calibration; None if none is applied, so that parts are only counted.
        reference, reference_rejected, reference_percentiles: see `CalibrationScores`.
        bag, wealth, alarm: see `DriftDetector`.
        alarm_utc, alarm_part: when the alarm came, and how many parts had been inspected then.
        stretch_parts, stretch_rejected: see `rejecting_stretch`, of the last 200 parts before an alarm of rejects; 0 in
            files of earlier versions.
        n_parts, n_rejected: parts since `started_utc`.
        started: time of the calibration or the reset, in seconds since 1970; 0 if the first part was the start. Another
            process may still have earlier parts.
        recent: the last scores, at most 200, oldest first.
        marks: of the last parts that clients gave ids, at most 500, oldest first; see `is_repeat`.
    """

    model_config = ConfigDict(protected_namespaces=())

    version: Literal[1] = 1
    role_id: str
    roi_id: str
    recipe_id: str
    model_key: str
    conditions: str
    threshold: FiniteFloat | None = None
    reference: Steps = {}
    reference_rejected: _Count = 0
    reference_percentiles: _Percentiles | None = None
    bag: Steps = {}
    wealth: dict[Direction, _Wealth] = Field(default_factory=no_wealth)
    alarm: Direction | None = None
    alarm_utc: str = ""
    alarm_part: _Count = 0
    stretch_parts: _Count = 0
    stretch_rejected: _Count = 0
    n_parts: _Count = 0
    n_rejected: _Count = 0
    started_utc: str
    started: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    last_utc: str | None = None
    recent: Annotated[list[FiniteFloat], Field(max_length=_N_RECENT)] = []
    marks: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=_N_MARKS)] = []

    @field_validator("wealth")
    @classmethod
    def _is_of_every_bet(cls, wealth: dict[Direction, _Wealth]) -> dict[Direction, _Wealth]:
        if {direction: len(bets) for direction, bets in wealth.items()} != {
            direction: len(bets) for direction, bets in no_wealth().items()
        }:
            raise ValueError("other bets")
        return wealth

    @classmethod
    def starting(
        cls,
        key: RoiKey,
        conditions: str,
        threshold: float | None,
        known: CalibrationScores,
        started: float = 0.0,
    ) -> "RoiDrift":
        """Statistics without parts."""
        return cls(
            role_id=key.role_id,
            roi_id=key.roi_id,
            recipe_id=key.recipe,
            model_key=key.model,
            conditions=conditions,
            threshold=threshold,
            reference=known.steps,
            reference_rejected=known.rejected,
            reference_percentiles=known.percentiles,
            bag=known.steps,
            started_utc=_now(),
            started=started,
        )

    @property
    def key(self) -> RoiKey:
        """The ROI of the statistics."""
        return RoiKey(self.role_id, self.roi_id, self.recipe_id, self.model_key)

    @property
    def calibration_scores(self) -> CalibrationScores:
        """What is known of the OK scores of the calibration."""
        return CalibrationScores(self.reference, self.reference_rejected, self.reference_percentiles)

    @property
    def reference_summary(self) -> _Percentiles | None:
        """Percentiles 5, 50 and 95 of the reference, or None; in files of earlier versions within 1/4096."""
        if not self.reference:
            return None
        return self.reference_percentiles or percentiles_of(self.reference, _SUMMARY)

    def is_before(self, at: float, conditions: str) -> bool:
        """Whether a part with these conditions was inspected before the start.

        Args:
            at: when it was, in seconds since 1970.
            conditions: see `RoiDrift`.
        """
        # A start that is still to come was written before the clock was set back, and tells nothing.
        return conditions == self.conditions and at < self.started <= time.time()

    def is_repeat(self, mark: str | None) -> bool:
        """Whether a part was counted before: a client that got no reply asks again about the same part.

        Args:
            mark: of the part; it is kept, so that the next time is a repeat. None where the client gave it no id.
        """
        if mark is None:
            return False
        if mark in self.marks:
            return True
        self.marks = [*self.marks, mark][-_N_MARKS:]
        return False

    def tolerated(self, defective: float) -> float:
        """See `tolerated_rate`."""
        n_ok = sum(self.reference.values()) + self.reference_rejected
        return tolerated_rate(defective, n_ok, self.reference_rejected)

    def detector(self, defective: float) -> DriftDetector:
        """The test in its current state.

        Raises:
            ValueError: there is no threshold, so there is no test.
        """
        if self.threshold is None:
            raise ValueError("nothing is tested without a threshold")
        bag = np.zeros(N_STEPS, np.int64)
        for step, count in self.bag.items():
            bag[step] = count
        return DriftDetector(self.threshold, self.tolerated(defective), bag, dict(self.wealth), self.alarm)

    def add(self, scores: Sequence[float], defective: float, lots: random.Random) -> None:
        """Count parts, in the order of their inspection."""
        now = _now()
        if self.threshold is not None:
            detector = self.detector(defective)
            for number, score in enumerate(scores, self.n_parts + 1):
                detector.add(score, lots.random())
                if detector.alarm is not None and self.alarm is None:
                    self.alarm, self.alarm_utc, self.alarm_part = detector.alarm, now, number
                    last = [*self.recent, *scores[: number - self.n_parts]][-_N_RECENT:]
                    if detector.alarm == "rejects":
                        self.stretch_parts, self.stretch_rejected = rejecting_stretch(
                            [part >= self.threshold for part in last], detector.tolerated
                        )
                self.n_rejected += score >= self.threshold
            steps = np.flatnonzero(detector.bag)
            self.bag = dict(zip(steps.tolist(), detector.bag[steps].tolist(), strict=True))
            self.wealth = detector.wealth
        self.n_parts += len(scores)
        self.recent = [*self.recent, *(self._rounded(score) for score in scores)][-_N_RECENT:]
        self.last_utc = now

    def reason(self, defective: float) -> str:
        """The reason for the alarm, and what to do about it, for people."""
        if self.alarm == "rejects":
            what = f"more than {math.floor(100 * self.tolerated(defective))} % of the parts are rejected"
            if self.stretch_parts:
                what += f" ({self.stretch_rejected} of the {self.stretch_parts} up to the alarm)"
        else:
            whose = "those of the calibration" if self.reference else "before"
            what = f"parts below the threshold score {self.alarm} than {whose}"
        check = "check lamp, lens, position and parts, then POST /drift/reset, or calibrate again"
        if self.reference and self.alarm_part <= _N_RECENT:
            check += "; if this began with the first part, calibrate on new parts that were not in the fit"
        return f"{what}: {check}"

    def _rounded(self, score: float) -> float:
        """A score with six digits, unless the rounding moves it to the other side of the threshold."""
        rounded = round(score, 6)
        return rounded if self.threshold is None or (rounded >= self.threshold) == (score >= self.threshold) else score


def percentiles_of(steps: Mapping[int, int], percents: _Percentiles) -> _Percentiles:
    """Percentiles of at least one score, counted by steps, as `numpy.percentile` defines them."""
    order = sorted(steps)
    reached = np.cumsum([steps[step] for step in order])
    ranks = np.asarray(percents) / 100 * (reached[-1] - 1)  # from 0, between two scores
    below, above = (
        np.asarray(order)[np.searchsorted(reached, rank, side="right")] / STEPS_PER_UNIT
        for rank in (np.floor(ranks), np.ceil(ranks))
    )
    p5, p50, p95 = (below + (ranks - np.floor(ranks)) * (above - below)).tolist()
    return p5, p50, p95


def _now() -> str:
    return utc_now().isoformat(timespec="seconds")
