"""Statistics of the inspected parts: one small file for each ROI, see `drift_files`.

``record`` costs an inference microseconds, because scores are written later, see `write_behind`. They are written under
a lock, so that those of all workers add up. A power failure loses what the disk had not written yet. If the disk
accepts nothing, the last 20,000 scores are kept and tried again, without an effect on inferences.
"""

import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import structlog

from backend.calib import Calibration
from backend.common.errors import BackendError, Conflict, StorageError
from backend.common.roi_key import RoiKey
from backend.common.telemetry import DRIFT_DETECTED
from backend.disk.fitted import FittedRoi, JudgedBy
from backend.scores.drift_statistics import NOT_KNOWN, CalibrationScores, RoiDrift
from backend.service.repeats import mark_of
from backend.service.stores import DriftStatistics, Models
from backend.service.write_behind import WriteBehind

_MAX_WAITING = 20_000
# A change that came before so many scores were known is seen late or never: they are most of what it is compared with.
_ENOUGH = 100

log: Any = structlog.get_logger(__name__)

Verdict = Literal["ok", "drift", "collecting", "none"]
Reference = Literal["calibration", "production"]


@dataclass(frozen=True)
class DriftStatus:
    """What is known about a ROI.

    Attributes:
        verdict: ``"none"`` if no calibration is applied, ``"collecting"`` while there are too few scores for a
            comparison, ``"drift"`` from an alarm to the next reset, calibration or fit of another bank.
        reason: the same for people.
        drift: the numbers behind it; None before the first part.
    """

    verdict: Verdict
    reason: str
    drift: RoiDrift | None = None


class _Part(NamedTuple):
    """One inspected part.

    Attributes:
        key: the requested ROI.
        memory_id, calibration: the model and the calibration of the judgement.
        score: of the part.
        at: when it was inspected, in seconds since 1970.
        mark: see `mark_of`.
    """

    key: RoiKey
    memory_id: str
    calibration: Calibration | None
    score: float
    at: float
    mark: str | None

    @property
    def conditions(self) -> str:
        return _conditions(self.memory_id, self.calibration)


class DriftLog:
    """The statistics of production below one models folder. Safe to call from many threads.

    Args:
        files: where they are.
        store: the models.
        defective: share of defective parts that does not count as drift.
    """

    def __init__(self, files: DriftStatistics, store: Models, defective: float) -> None:
        self._files = files
        self._store = store
        self.defective = defective
        self._behind = WriteBehind("drift", self._write, _MAX_WAITING)
        self._lots = random.Random()  # noqa: S311 - they decide between equal scores, and nothing secret
        self._alarms: dict[Path, tuple[tuple[int, int, int], RoiDrift | None]] = {}

    def record(self, key: RoiKey, fitted: FittedRoi, score: float, part_id: str | None = None) -> None:
        """Count one inspected part; of the last 500 that have ids, each once.

        Args:
            key: the requested ROI.
            fitted: the model it was compared with.
            score: of the part, by the ROI's own calibration.
            part_id: that its client gave it.
        """
        threshold = fitted.calibration.threshold if fitted.calibration else None
        mark = mark_of(part_id, key, fitted.memory_id, threshold, score)
        part = _Part(key, fitted.memory_id, fitted.calibration, score, time.time(), mark)
        self._behind.add(fitted.calibrated.owner, part)

    def flush(self) -> None:
        """Add the waiting parts to the files; those that cannot be written keep waiting."""
        self._behind.flush()

    def close(self) -> None:
        """Add the waiting parts, and end the thread; it starts again with the next part."""
        self._behind.close()

    def begin(self, key: RoiKey, calibration: Calibration, ok_scores: Sequence[float]) -> None:
        """Restart with a calibration that was just stored; the log warns if this fails.

        Args:
            key: the ROI, as it was calibrated.
            calibration: the stored calibration. Nothing is done if it is not applied to the ROI, because a fit or
                another calibration came later.
            ok_scores: the OK scores of the calibration; empty if they do not come from new parts.
        """
        known = CalibrationScores.of(ok_scores, calibration.threshold)
        try:
            fitted = self._store.load(key)
            if fitted is None:
                return
            drift_key = fitted.calibrated.owner
            conditions = _conditions(fitted.memory_id, calibration)

            def started(_: RoiDrift | None) -> RoiDrift | Literal["keep"]:
                if self._present_conditions(key) != conditions:
                    return "keep"
                return RoiDrift.starting(drift_key, conditions, calibration.threshold, known, time.time())

            self._files.update(self._files.path(drift_key), started)
            self._files.prune()
        except BackendError as exc:
            log.warning("drift.not_stored", reason=str(exc), hint="the first parts become the reference")

    def reset(self, key: RoiKey, fitted: FittedRoi, reference: Reference) -> None:
        """Delete the counts and the alarm.

        Args:
            key: the ROI.
            fitted: its model.
            reference: reference from now on: the OK scores of the calibration, or the next parts.

        Raises:
            Conflict: the OK scores of the calibration are unknown; nothing was changed.
            StorageError: it cannot be written.
        """
        drift_key = fitted.calibrated.owner
        conditions = _conditions(fitted.memory_id, fitted.calibration)
        threshold = fitted.calibration.threshold if fitted.calibration else None

        def started(drift: RoiDrift | None) -> RoiDrift:
            known = NOT_KNOWN
            if reference == "calibration" and fitted.calibration is not None:
                if drift is not None and drift.conditions == conditions:
                    known = drift.calibration_scores
                if known == NOT_KNOWN:
                    raise Conflict(
                        "the OK scores are unknown, or come from images of the fit: calibrate with good parts that "
                        "were not in the fit, or send reference=production"
                    )
            return RoiDrift.starting(drift_key, conditions, threshold, known, time.time())

        self._files.update(self._files.path(drift_key), started)
        self._files.prune()

    def forget(self, key: RoiKey) -> None:
        """Delete the statistics of a ROI unless they belong to its current model and calibration."""

        def kept(drift: RoiDrift | None) -> Literal["keep"] | None:
            return "keep" if drift is not None and drift.conditions == self._present_conditions(key) else None

        # Where it cannot be deleted, the first part after the fit starts anew in any case.
        self._files.forget(self._files.path(key.owner), kept)

    def status(self, key: RoiKey, fitted: FittedRoi | JudgedBy | None) -> DriftStatus:
        """What is known about a ROI, without the last two seconds.

        Args:
            key: the ROI.
            fitted: its model; None if it has no usable one.
        """
        if fitted is None:
            return DriftStatus("none", "there is no model to use: see /state")
        drift = self._files.read(self._files.path(fitted.calibrated.owner))
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
            return DriftStatus("drift", drift.reason(self.defective), drift)
        known = sum(drift.bag.values())
        if known < _ENOUGH:
            reason = f"collecting: {known} of {_ENOUGH} scores"
            return DriftStatus("collecting", reason, drift)
        return DriftStatus("ok", f"no sign of a change in {drift.n_parts} parts", drift)

    def drifting(self) -> list[RoiDrift]:
        """Every ROI with an alarm, the oldest alarm first; files that did not change are not read again.

        An alarm of a model or a calibration that is no longer in use is deleted.
        """
        known, alarms = self._alarms, {}
        for path in self._files.paths():
            try:
                stat = path.stat()
            except OSError:  # deleted since
                continue
            identity = stat.st_ino, stat.st_size, stat.st_mtime_ns
            read = known.get(path)
            if read is None or read[0] != identity:
                drift = self._files.read(path)
                read = identity, drift if drift is not None and drift.alarm is not None else None
            alarms[path] = read
        self._alarms = alarms
        found = []
        for path, (_, drift) in alarms.items():
            if drift is None:
                continue
            is_present = self._is_present(path, drift)
            if is_present:
                found.append(drift)
            elif is_present is False:
                self._delete_unless_present(path)
        return sorted(found, key=lambda drift: drift.alarm_utc)

    def _is_present(self, path: Path, drift: RoiDrift) -> bool | None:
        """Whether a file belongs to the current model and calibration of its ROI; None if the model cannot be read."""
        try:
            # A client may have meant either by its ids.
            judged = [self._store.judged_by(key) for key in {drift.key.owner, drift.key}]
        except BackendError:
            return None
        return any(
            found is not None
            and self._files.path(found.calibrated.owner) == path
            and _conditions(found.memory_id, found.calibration) == drift.conditions
            for found in judged
        )

    def _delete_unless_present(self, path: Path) -> None:
        def kept(drift: RoiDrift | None) -> Literal["keep"] | None:
            # Asked again when nobody else changes it: a calibration may have begun anew.
            return None if drift is not None and self._is_present(path, drift) is False else "keep"

        with contextlib.suppress(StorageError):
            self._files.update(path, kept, is_patient=False)

    def _write(self, key: RoiKey, parts: Sequence[_Part]) -> None:
        alarms: list[RoiDrift] = []

        def counted(drift: RoiDrift | None) -> RoiDrift | Literal["keep"]:
            alarms.clear()
            added, is_alarm = self._added(drift, key, parts)
            if added is not None and is_alarm:
                alarms.append(added)
            return "keep" if added is None else added

        # One ROI at a time, so that a calibration waits for one file and not for all.
        self._files.update(self._files.path(key), counted, is_patient=False, is_durable=False)
        for drift in alarms:
            DRIFT_DETECTED.labels(drift.alarm).inc()
            ids = {name: getattr(drift, name) for name in ("role_id", "roi_id", "recipe_id", "model_key")}
            log.warning("drift.detected", **ids, direction=drift.alarm, hint=drift.reason(self.defective))
        self._files.prune()

    def _added(self, drift: RoiDrift | None, key: RoiKey, parts: Sequence[_Part]) -> tuple[RoiDrift | None, bool]:
        """The statistics with some more parts (None if none of them counts), and whether these raise an alarm."""
        was_alarm = drift is not None and drift.alarm is not None
        counted = [part for part in parts if drift is None or not drift.is_before(part.at, part.conditions)]
        for conditions, group in itertools.groupby(counted, key=lambda part: part.conditions):
            same = list(group)
            if drift is None or drift.conditions != conditions:
                if conditions != self._present_conditions(same[0].key):
                    continue  # inspected before a fit or a calibration that came since
                calibration = same[0].calibration
                threshold = calibration.threshold if calibration else None
                drift, was_alarm = RoiDrift.starting(key, conditions, threshold, NOT_KNOWN), False
            scores = [part.score for part in same if not drift.is_repeat(part.mark)]
            if scores:
                drift.add(scores, self.defective, self._lots)
        if drift is None or not counted:
            return None, False
        return drift, drift.alarm is not None and not was_alarm

    def _present_conditions(self, key: RoiKey) -> str | None:
        try:
            fitted = self._store.load(key)
        except BackendError:  # damaged meanwhile
            return None
        return _conditions(fitted.memory_id, fitted.calibration) if fitted else None


def _conditions(memory_id: str, calibration: Calibration | None) -> str:
    if calibration is None:
        return memory_id
    return f"{memory_id} {calibration.threshold!r} {calibration.score_percentile!r}"
