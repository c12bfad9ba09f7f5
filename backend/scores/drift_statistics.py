"""What the production of one ROI scored, and what `drift` says about it."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator

from backend.common.roi_key import RoiKey
from backend.scores.drift_detector import N_STEPS, STEPS_PER_UNIT, Direction, DriftDetector, no_wealth, tolerated_rate
from backend.utils import utc_now

_N_RECENT = 200

_Count = Annotated[int, Field(ge=0, le=2**40)]
Steps = dict[Annotated[int, Field(ge=0, lt=N_STEPS)], _Count]
_Wealth = list[Annotated[FiniteFloat, Field(ge=0, le=1e12)]]


class RoiDrift(BaseModel):
    """The file of one ROI.

    Attributes:
        role_id, roi_id, recipe_id, model_key: whose it is.
        conditions: the memory bank and calibration that all of it belongs to.
        threshold: of the calibration; None where none is applied, and then parts are only counted.
        reference: OK scores of the calibration, see `reference_of`; empty where the first parts are what is compared
            with.
        reference_rejected: how many OK scores of the calibration its threshold rejects.
        bag, wealth, alarm: see `DriftDetector`.
        alarm_utc, alarm_part: when the alarm came, and how many parts had been inspected then.
        n_parts, n_rejected: parts since `started_utc`.
        started: of a calibration or a reset, in seconds since 1970; 0 where the first part was the start. Another
            process may still hold parts from before it.
        recent: the last scores, at most 200, oldest first.
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
    bag: Steps = {}
    wealth: dict[Direction, _Wealth] = Field(default_factory=no_wealth)
    alarm: Direction | None = None
    alarm_utc: str = ""
    alarm_part: _Count = 0
    n_parts: _Count = 0
    n_rejected: _Count = 0
    started_utc: str
    started: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    last_utc: str | None = None
    recent: Annotated[list[FiniteFloat], Field(max_length=_N_RECENT)] = []

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
        reference: Steps,
        reference_rejected: int,
        started: float = 0.0,
    ) -> "RoiDrift":
        """One that has seen no part."""
        return cls(
            role_id=key.role_id,
            roi_id=key.roi_id,
            recipe_id=key.recipe,
            model_key=key.model,
            conditions=conditions,
            threshold=threshold,
            reference=reference,
            reference_rejected=reference_rejected,
            bag=reference,
            started_utc=_now(),
            started=started,
        )

    @property
    def key(self) -> RoiKey:
        """Whose it is."""
        return RoiKey(self.role_id, self.roi_id, self.recipe_id, self.model_key)

    def is_before(self, at: float, conditions: str) -> bool:
        """Whether a part of these conditions was inspected before this began.

        Args:
            at: when it was, in seconds since 1970.
            conditions: see `RoiDrift`.
        """
        # A start that is still to come was written before the clock was set back, and tells nothing.
        return conditions == self.conditions and at < self.started <= time.time()

    def tolerated(self, defective: float) -> float:
        """See `tolerated_rate`."""
        n_ok = sum(self.reference.values()) + self.reference_rejected
        return tolerated_rate(defective, n_ok, self.reference_rejected)

    def detector(self, defective: float) -> DriftDetector:
        """The test as far as it is.

        Raises:
            ValueError: there is no threshold, so nothing is tested.
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
                self.n_rejected += score >= self.threshold
            steps = np.flatnonzero(detector.bag)
            self.bag = dict(zip(steps.tolist(), detector.bag[steps].tolist(), strict=True))
            self.wealth = detector.wealth
        self.n_parts += len(scores)
        self.recent = [*self.recent, *(round(score, 6) for score in scores)][-_N_RECENT:]
        self.last_utc = now

    def reason(self, defective: float) -> str:
        """What the alarm says, and what to do about it, for people."""
        if self.alarm == "rejects":
            rejected = sum(score >= self.threshold for score in self.recent) if self.threshold is not None else 0
            share = f"{self.tolerated(defective):.0%}"
            what = f"more than {share} of the parts are rejected, {rejected} of the last {len(self.recent)}"
        else:
            whose = "those of the calibration" if self.reference else "before"
            what = f"parts below the threshold score {self.alarm} than {whose}"
        check = "check lamp, lens, position and parts, then POST /drift/reset, or calibrate anew"
        if self.reference and self.alarm_part <= _N_RECENT:
            check += "; if it was so from the first part, calibrate on fresh parts that were not in the fit"
        return f"{what}: {check}"


def quantiles(steps: Mapping[int, int], *shares: float) -> list[float]:
    """Quantiles of the scores that are counted by steps, which are at least one; the step that reaches the share."""
    order = sorted(steps)
    reached = np.cumsum([steps[step] for step in order])
    indices = np.searchsorted(reached, np.asarray(shares) * reached[-1])
    return [order[index] / STEPS_PER_UNIT for index in indices]


def _now() -> str:
    return utc_now().isoformat(timespec="seconds")
