"""How many ROIs need attention: counted for ``/health``, at most once a second."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import structlog

from backend.service.inspection import InspectionService

_FRESH_S = 1.0
_PATIENCE_S = 0.5  # clients that poll should not wait longer: they can do without the counts

log: Any = structlog.get_logger(__name__)


class Counts(NamedTuple):
    """How many ROIs need attention; None if this is unknown now.

    Attributes:
        stale_calibrations: see `ModelStore.count_stale`.
        drifting_rois: see `DriftLog.drifting`.
    """

    stale_calibrations: int | None = None
    drifting_rois: int | None = None


class RoiCounts:
    """One count serves all requests at the same time. It has its own thread: requests may occupy all others."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._counted_at = -_FRESH_S
        self._counting: asyncio.Task[None] | None = None
        self._failures: dict[str, str] = {}

    async def fresh(self, service: InspectionService) -> Counts:
        """The counts, at most a second old; None if counting takes longer than half a second."""
        if time.monotonic() - self._counted_at >= _FRESH_S:
            if self._counting is None or self._counting.done():
                self._counting = asyncio.create_task(self._count(service))
            done, _ = await asyncio.wait({self._counting}, timeout=_PATIENCE_S)
            if not done:
                return Counts()
        return self._counts

    async def _count(self, service: InspectionService) -> None:
        self._counts, began_at = Counts(), time.monotonic()
        self._counts = await anyio.to_thread.run_sync(
            self._counted, service, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
        )
        self._counted_at = began_at

    def _counted(self, service: InspectionService) -> Counts:
        return Counts(
            self._unless_it_fails("stale_calibrations", service.store.count_stale),
            self._unless_it_fails("drifting_rois", lambda: len(service.drift.drifting())),
        )

    def _unless_it_fails(self, what: str, count: Callable[[], int]) -> int | None:
        try:
            counted = count()
        except Exception as exc:  # whatever lies in the models folder: the next count may do better
            if self._failures.get(what) != str(exc):  # clients ask every two seconds
                log.warning(f"{what}.not_counted", reason=str(exc))
            self._failures[what] = str(exc)
            return None
        self._failures.pop(what, None)
        return counted
