"""Which replies of a ROI are allowed, by the times of its fits and calibrations: none is lost or mixed.

Every write happens between its request and its reply. A read may show any write that had begun before the read ended,
unless a later write was confirmed before the read began.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from harness.versions import Version

_KEPT_S = 60.0  # longer than any request takes


class Refused(Exception):
    """The service did not do it, and said so."""


class Lost(Exception):
    """No reply came: it may have been done, or not."""


class StoreFailed(Lost):
    """The object store behind the service failed: it may have been done, or not."""


@dataclass(eq=False)
class _Write:
    start: float
    end: float = math.inf
    acknowledged: bool = False


AnyWrite = TypeVar("AnyWrite", bound=_Write)


@dataclass(eq=False)
class _Fit(_Write):
    version: Version = field(kw_only=True)


@dataclass(eq=False)
class _Calibration(_Write):
    """A threshold and the versions it may have been stored for."""

    threshold: float = field(kw_only=True)
    versions: set[Version] = field(default_factory=set, kw_only=True)


@dataclass(frozen=True)
class Answer:
    """What an inference said about the model: its version by the score, and the calibration."""

    version: Version | None
    state: str
    threshold: float | None


class History:
    """Fits and calibrations of one ROI, of all clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fits: list[_Fit] = []
        self._calibrations: list[_Calibration] = []

    @contextlib.contextmanager
    def fitting(self, version: Version) -> Iterator[None]:
        """The time of a fit; `Refused` and `Lost` are taken as what they mean, and passed on."""
        fit = _Fit(time.monotonic(), version=version)
        with self._writing(self._fits, fit):
            yield

    @contextlib.contextmanager
    def calibrating(self, threshold: float) -> Iterator[None]:
        """The time of a calibration; see `fitting`."""
        calibration = _Calibration(time.monotonic(), threshold=threshold)
        try:
            with self._writing(self._calibrations, calibration):
                yield
        finally:
            with self._lock:
                calibration.versions = self._versions_for(calibration)

    def seed(self, version: Version, threshold: float | None, calibrated: Version | None) -> None:
        """Forget everything: this is what there is."""
        now = time.monotonic()
        with self._lock:
            self._fits = [_Fit(now, now, True, version=version)]
            self._calibrations = []
            if threshold is not None:
                versions = set() if calibrated is None else {calibrated}
                self._calibrations = [_Calibration(now, now, True, threshold=threshold, versions=versions)]

    def contradiction(self, answer: Answer, start: float, end: float) -> str | None:
        """Why no order of the writes explains an answer to a request that was under way from `start` to `end`."""
        with self._lock:
            versions = {fit.version for fit in _possible(self._fits, start, end)}
            calibrations = _possible(self._calibrations, start, end)
            calibrated_before = any(item.acknowledged and item.end < start for item in self._calibrations)
            bound = {id(item): self._versions_for(item) for item in calibrations}
        if answer.version not in versions:
            told = answer.version.name if answer.version else "no version"
            return f"the score is that of {told}, possible {sorted(version.name for version in versions)}"
        if (answer.state == "applied") != (answer.threshold is not None):
            return f"calibration {answer.state!r} with threshold {answer.threshold}"
        if answer.state == "none":
            return "an acknowledged calibration is not there" if calibrated_before else None
        if answer.state == "stale":
            explained = any(bound[id(item)] != {answer.version} for item in calibrations)
            return None if explained else f"the calibration of {answer.version.name} is called stale"
        thresholds = {item.threshold for item in calibrations if answer.version in bound[id(item)]}
        if answer.threshold in thresholds:
            return None
        return f"threshold {answer.threshold} of {answer.version.name}, possible {sorted(thresholds)}"

    @contextlib.contextmanager
    def _writing(self, writes: list[AnyWrite], write: AnyWrite) -> Iterator[None]:
        with self._lock:
            writes.append(write)
        try:
            yield
            write.acknowledged = True
        except Refused:
            with self._lock:
                writes.remove(write)
            raise
        finally:
            write.end = time.monotonic()
            with self._lock:
                writes[:] = _possible(writes, write.end - _KEPT_S, math.inf)

    def _versions_for(self, calibration: _Calibration) -> set[Version]:
        if calibration.versions:
            return calibration.versions
        return {fit.version for fit in _possible(self._fits, calibration.start, calibration.end)}


def _possible(writes: Sequence[AnyWrite], start: float, end: float) -> list[AnyWrite]:
    """The writes that a read from `start` to `end` may tell of."""
    began = [write for write in writes if write.start < end]
    newest = max((write.start for write in began if write.acknowledged and write.end < start), default=-math.inf)
    return [write for write in began if write.end >= newest]
