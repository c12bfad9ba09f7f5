"""What production scored, ROI by ROI, and what `drift` says about it: a small file each, shared by all processes.

``record`` costs an inference microseconds: scores wait in memory, and a thread adds them to the files every two
seconds, under a lock, so that those of all workers add up. A process that is killed loses the last two seconds; where
the disk takes nothing the last 20,000 scores are kept and tried again, and inferences never know.
"""

import contextlib
import hashlib
import itertools
import json
import random
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from backend.calib import Calibration
from backend.drift import N_STEPS, STEPS_PER_UNIT, Direction, DriftDetector, no_wealth, reference_of, tolerated_rate
from backend.errors import BackendError, StorageError
from backend.layout import RoiKey
from backend.locking import writing
from backend.storage import FittedRoi, ModelStore, calibrated_as
from backend.telemetry import DRIFT_DETECTED
from backend.utils import read_small, utc_now, write_atomic

_FOLDER = ".drift"  # no id becomes a hidden folder
_WHAT = "drift statistics"
_FLUSH_EVERY_S = 2.0
_MAX_WAITING = 20_000
_MAX_FILE_BYTES = 256 << 10  # more than N_STEPS occupied steps take
_N_RECENT = 200
# A change that came before so many scores were known is seen late or never: they are most of what it is compared with.
_ENOUGH = 100

log: Any = structlog.get_logger(__name__)

Verdict = Literal["ok", "drift", "collecting", "none"]
Reference = Literal["calibration", "production"]

_Count = Annotated[int, Field(ge=0, le=2**40)]
_Steps = dict[Annotated[int, Field(ge=0, lt=N_STEPS)], _Count]
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
    reference: _Steps = {}
    reference_rejected: _Count = 0
    bag: _Steps = {}
    wealth: dict[Direction, _Wealth] = Field(default_factory=no_wealth)
    alarm: Direction | None = None
    alarm_utc: str = ""
    alarm_part: _Count = 0
    n_parts: _Count = 0
    n_rejected: _Count = 0
    started_utc: str
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
        cls, key: RoiKey, conditions: str, threshold: float | None, reference: _Steps, reference_rejected: int
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
        )

    @property
    def key(self) -> RoiKey:
        """Whose it is."""
        return RoiKey(self.role_id, self.roi_id, self.recipe_id, self.model_key)

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


@dataclass(frozen=True)
class DriftStatus:
    """What is known about a ROI.

    Attributes:
        verdict: ``"none"`` where no calibration is applied, ``"collecting"`` while few scores are known to compare
            with, ``"drift"`` from an alarm to the next reset, calibration or fit.
        reason: the same for people.
        drift: the numbers behind it; None before the first part.
    """

    verdict: Verdict
    reason: str
    drift: RoiDrift | None = None


class _Part(NamedTuple):
    key: RoiKey
    stored: RoiKey
    memory_id: str
    calibration: Calibration | None
    score: float

    @property
    def conditions(self) -> str:
        return _conditions(self.memory_id, self.calibration)


class DriftLog:
    """The statistics of production below one models folder. Safe to call from many threads.

    Args:
        root: the models folder.
        store: its models.
        defective: share of defective parts that is no drift.
    """

    def __init__(self, root: Path, store: ModelStore, defective: float) -> None:
        self._folder = root / _FOLDER
        self._store = store
        self.defective = defective
        self._waiting: deque[_Part] = deque(maxlen=_MAX_WAITING)
        self._flushing = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._fails = False
        self._lots = random.Random()  # noqa: S311 - they decide between equal scores, and nothing secret
        self._alarms: dict[Path, tuple[tuple[int, int, int], RoiDrift | None]] = {}

    def record(self, key: RoiKey, fitted: FittedRoi, score: float) -> None:
        """Count one inspected part.

        Args:
            key: the ROI that was asked for.
            fitted: the model it was compared with.
            score: of the part, by the ROI's own calibration.
        """
        self._waiting.append(_Part(key, fitted.key, fitted.memory_id, fitted.calibration, score))
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Add what waits to the files; what they do not take waits on."""
        with self._flushing:
            by_roi: dict[RoiKey, list[_Part]] = {}
            for _ in range(len(self._waiting)):
                part = self._waiting.popleft()
                by_roi.setdefault(_drift_key(part.key, part.stored), []).append(part)
            if not by_roi:
                return
            failure: OSError | StorageError | None = None
            try:
                with writing(self._folder, _WHAT):
                    for key in list(by_roi):
                        try:
                            self._add(key, by_roi[key])
                            del by_roi[key]
                        except OSError as exc:  # the others may still be written
                            failure = exc
            except StorageError as exc:
                failure = exc
            self._waiting.extendleft(reversed([part for parts in by_roi.values() for part in parts]))
            if failure is not None and not self._fails:
                log.warning("drift.not_stored", reason=str(failure), hint="kept in memory and tried again")
            self._fails = failure is not None

    def close(self) -> None:
        """Add what waits, and end the thread; it starts again with the next part."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._closing.set()
            self._closing = threading.Event()
        if thread is not None:
            thread.join()
        self.flush()

    def begin(self, key: RoiKey, ok_scores: Sequence[float]) -> None:
        """Start anew with a calibration that was just stored; the log warns where that fails.

        Args:
            key: the ROI, as it was calibrated.
            ok_scores: the OK scores of the calibration; none where they are not those of fresh parts.
        """
        try:
            fitted = self._store.load(key)
            if fitted is None or fitted.calibration is None:  # calibrated before the fit
                return
            threshold = fitted.calibration.threshold
            reference = reference_of(ok_scores, threshold)
            conditions = _conditions(fitted.memory_id, fitted.calibration)
            drift_key = _drift_key(key, fitted.key)
            rejected = len(ok_scores) - sum(reference.values())
            with writing(self._folder, _WHAT):
                self._write(drift_key, RoiDrift.starting(drift_key, conditions, threshold, reference, rejected))
        except BackendError as exc:
            log.warning("drift.not_stored", reason=str(exc), hint="the first parts become the reference")

    def reset(self, key: RoiKey, fitted: FittedRoi, reference: Reference) -> None:
        """Forget what was counted, and the alarm.

        Args:
            key: the ROI.
            fitted: its model.
            reference: what to compare with from now on: the OK scores of the calibration, or the parts that come next.

        Raises:
            StorageError: it cannot be written.
        """
        self.flush()
        drift_key = _drift_key(key, fitted.key)
        conditions = _conditions(fitted.memory_id, fitted.calibration)
        with writing(self._folder, _WHAT):
            known = self._reference(drift_key, fitted.key, conditions) if reference == "calibration" else ({}, 0)
            threshold = fitted.calibration.threshold if fitted.calibration else None
            self._write(drift_key, RoiDrift.starting(drift_key, conditions, threshold, *known))

    def forget(self, key: RoiKey) -> None:
        """Drop the statistics of a ROI that was fitted anew."""
        with contextlib.suppress(OSError):  # the first part after the fit starts anew in any case
            self._path(key.owner).unlink(missing_ok=True)

    def status(self, key: RoiKey, fitted: FittedRoi | None) -> DriftStatus:
        """What is known about a ROI, but for the last two seconds.

        Args:
            key: the ROI.
            fitted: its model; None where it has none to use.
        """
        if fitted is None:
            return DriftStatus("none", "there is no model to use: see /state")
        drift = _read(self._path(_drift_key(key, fitted.key)))
        if drift is not None and drift.conditions != _conditions(fitted.memory_id, fitted.calibration):
            drift = None
        if fitted.calibration is None:
            return DriftStatus("none", "no calibration is applied, so parts are only counted: calibrate", drift)
        if drift is None:
            return DriftStatus("collecting", "no part was inspected since the calibration")
        return self.judge(drift)

    def judge(self, drift: RoiDrift) -> DriftStatus:
        """The verdict on a ROI with an applied calibration."""
        if drift.alarm is not None:
            return DriftStatus("drift", _reason(drift, self.defective), drift)
        known = sum(drift.bag.values())
        if known < _ENOUGH:
            reason = f"{known} scores are known, a change is seen reliably after {_ENOUGH}"
            return DriftStatus("collecting", reason, drift)
        return DriftStatus("ok", f"no sign of a change in {drift.n_parts} parts", drift)

    def drifting(self) -> list[RoiDrift]:
        """Every ROI with an alarm, the oldest alarm first; files that did not change are not read again."""
        known, alarms = self._alarms, {}
        for path in self._folder.glob("*.json"):
            try:
                stat = path.stat()
            except OSError:  # deleted since
                continue
            identity = stat.st_ino, stat.st_size, stat.st_mtime_ns
            read = known.get(path)
            if read is None or read[0] != identity:
                drift = _read(path)
                read = identity, drift if drift is not None and drift.alarm is not None else None
            alarms[path] = read
        self._alarms = alarms
        found = [drift for _, drift in alarms.values() if drift is not None]
        return sorted(found, key=lambda drift: drift.alarm_utc)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(self._closing,), name="drift", daemon=True)
                self._thread.start()

    def _run(self, closing: threading.Event) -> None:
        while not closing.wait(_FLUSH_EVERY_S):
            try:
                self.flush()
            except Exception:  # statistics are never worth a service
                log.exception("drift.failed")

    def _add(self, key: RoiKey, parts: Sequence[_Part]) -> None:
        drift = _read(self._path(key))
        was_alarm = drift is not None and drift.alarm is not None
        for conditions, group in itertools.groupby(parts, key=lambda part: part.conditions):
            same = list(group)
            if drift is None or drift.conditions != conditions:
                if conditions != self._present_conditions(same[0].key):
                    continue  # inspected before a fit or a calibration that came since
                calibration = same[0].calibration
                known = self._reference(key, same[0].stored, conditions)
                threshold = calibration.threshold if calibration else None
                drift, was_alarm = RoiDrift.starting(key, conditions, threshold, *known), False
            drift.add([part.score for part in same], self.defective, self._lots)
        if drift is None:
            return
        self._write(key, drift)
        if drift.alarm is not None and not was_alarm:
            DRIFT_DETECTED.labels(drift.alarm).inc()
            ids = {name: getattr(drift, name) for name in ("role_id", "roi_id", "recipe_id", "model_key")}
            log.warning("drift.detected", **ids, direction=drift.alarm, hint=_reason(drift, self.defective))

    def _present_conditions(self, key: RoiKey) -> str | None:
        try:
            fitted = self._store.load(key)
        except BackendError:  # damaged meanwhile
            return None
        return _conditions(fitted.memory_id, fitted.calibration) if fitted else None

    def _reference(self, key: RoiKey, stored: RoiKey, conditions: str) -> tuple[_Steps, int]:
        """`reference` and `reference_rejected` of a calibration; it may be the default recipe's."""
        for path in (self._path(key), self._path(stored.owner)):
            drift = _read(path)
            if drift is not None and drift.conditions == conditions and drift.reference:
                return drift.reference, drift.reference_rejected
        return {}, 0

    def _path(self, key: RoiKey) -> Path:
        digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:32]}.json"

    def _write(self, key: RoiKey, drift: RoiDrift) -> None:
        write_atomic({self._path(key): drift.model_dump_json(exclude_none=True).encode()})


def quantiles(steps: Mapping[int, int], *shares: float) -> list[float]:
    """Quantiles of the scores that are counted by steps, which are at least one; the step that reaches the share."""
    order = sorted(steps)
    reached = np.cumsum([steps[step] for step in order])
    places = np.searchsorted(reached, np.asarray(shares) * reached[-1])
    return [order[place] / STEPS_PER_UNIT for place in places]


def _read(path: Path) -> RoiDrift | None:
    try:
        return RoiDrift.model_validate_json(read_small(path, _MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        log.warning("drift.not_read", reason=f"{exc.error_count()} values cannot be used", hint="begins anew")
    except (OSError, ValueError) as exc:
        log.warning("drift.not_read", reason=str(exc), hint="begins anew")
    return None


def _reason(drift: RoiDrift, defective: float) -> str:
    if drift.alarm == "rejects":
        rejected = sum(score >= drift.threshold for score in drift.recent) if drift.threshold is not None else 0
        share = f"{drift.tolerated(defective):.0%}"
        what = f"more than {share} of the parts are rejected, {rejected} of the last {len(drift.recent)}"
    else:
        whose = "those of the calibration" if drift.reference else "before"
        what = f"parts below the threshold score {drift.alarm} than {whose}"
    check = "check lamp, lens, position and parts, then POST /drift/reset, or calibrate anew"
    if drift.reference and drift.alarm_part <= _N_RECENT:
        check += "; if it was so from the first part, calibrate on fresh parts that were not in the fit"
    return f"{what}: {check}"


def _drift_key(key: RoiKey, stored: RoiKey) -> RoiKey:
    """One key for all that mean the same calibration."""
    return calibrated_as(key, stored).owner


def _conditions(memory_id: str, calibration: Calibration | None) -> str:
    if calibration is None:
        return memory_id
    return f"{memory_id} {calibration.threshold!r} {calibration.score_percentile!r}"


def _now() -> str:
    return utc_now().isoformat(timespec="seconds")
