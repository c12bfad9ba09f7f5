"""The states of the process, from start to end (starting, ok, failed, draining), and what is allowed in each."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any, Literal

import anyio
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from backend.api.roi_counts import RoiCounts
from backend.common.error_text import strip_paths
from backend.common.errors import NotReady
from backend.common.machine import STOP_SIGNAL, limit_arenas, return_free_memory
from backend.service.inspection import InspectionService

_RETRY_LOAD_AFTER_S = 5.0
_RETRY_AFTER_S = 5
_RETURN_MEMORY_EVERY_S = 15.0
_STARTS_WITHIN_S = 10.0
_POLL_S = 0.05

log: Any = structlog.get_logger(__name__)

Status = Literal["starting", "ok", "failed", "draining"]


class Lifecycle:
    """Loads the service in the background, tries again if that fails, and ends only after the running work.

    Args:
        open_service: loads the service; called in a thread.
        service: a service that is already loaded.
        takes_signals: whether the stop signal drains it; False if the process belongs to somebody who drains it.
    """

    def __init__(
        self,
        open_service: Callable[[], InspectionService],
        service: InspectionService | None = None,
        *,
        takes_signals: bool = True,
    ) -> None:
        self._open_service = open_service
        self._takes_signals = takes_signals
        self.service = service
        self.failure: str | None = None
        self.draining = False
        self.in_flight = 0
        self.counts = RoiCounts()
        self._receiving: set[anyio.CancelScope] = set()

    @property
    def status(self) -> Status:
        """The state of the service."""
        if self.draining:
            return "draining"
        if self.service is not None:
            return "ok"
        return "starting" if self.failure is None else "failed"

    def require_ready(self, *, tells_why: bool = True) -> None:
        """Refuse work that is not possible now.

        Args:
            tells_why: whether the message says why the service could not load.

        Raises:
            NotReady: the service is starting, could not load, or is stopping; the message says which.
        """
        if self.status == "draining":
            raise NotReady("the service is stopping and accepts no new work; retry", _RETRY_AFTER_S)
        if self.status == "starting":
            raise NotReady("the service is starting; retry", _RETRY_AFTER_S)
        if self.status == "failed":
            why = f": {self.failure}" if tells_why else ""
            raise NotReady(f"the service could not load and is trying again{why}", _RETRY_AFTER_S)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Wait for a piece of a body. The wait ends when the service stops, because an incomplete body is new work.

        Raises:
            HTTPException: 503; the piece did not arrive before the stop.
        """
        with anyio.CancelScope() as scope:
            if self.draining:
                scope.cancel()
            self._receiving.add(scope)
            try:
                yield
            finally:
                self._receiving.discard(scope)
        if scope.cancelled_caught:
            try:
                self.require_ready()
            except NotReady as exc:
                raise HTTPException(exc.status, str(exc), {"Retry-After": str(exc.retry_after_s)}) from exc

    async def wait_until_started(self) -> None:
        """Wait for a short time while the service starts, because one of several workers may be new."""
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while self.status == "starting" and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The lifespan of the server."""
        limit_arenas()
        tasks = [asyncio.create_task(work()) for work in (self._load, _return_memory)]
        with self._draining_on_stop_signal(asyncio.get_running_loop()):
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                if self.service is not None:
                    await run_in_threadpool(self.service.drift.close)
                    await run_in_threadpool(self.service.history.close)

    async def _load(self) -> None:
        while self.service is None:
            try:
                self.service = await run_in_threadpool(self._open_service)
                self.failure = None
            except Exception as exc:  # weights, runtimes and drivers raise what they like; it is told and tried again
                failure = strip_paths(str(exc))
                if failure != self.failure:
                    log.error("start.failed", reason=failure, retry_s=_RETRY_LOAD_AFTER_S)
                self.failure = failure
                await asyncio.sleep(_RETRY_LOAD_AFTER_S)
        await self.counts.fresh(self.service)  # the first count reads all files, later ones what changed

    @contextmanager
    def _draining_on_stop_signal(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Handle the stop signal before the server does. The server would refuse new work at once, without a reply."""
        before = signal.getsignal(STOP_SIGNAL)
        is_main = threading.current_thread() is threading.main_thread()
        if not self._takes_signals or not is_main or not callable(before):
            yield  # in a replica of a cluster, under a test client, or a server without a handler of its own
            return

        stopping: list[asyncio.Task[None]] = []  # the loop itself does not hold its tasks

        def drain(number: int, frame: FrameType | None) -> None:
            if self.draining:  # supervisors repeat themselves
                return
            self.draining = True
            if self.in_flight:
                loop.call_soon_threadsafe(lambda: stopping.append(loop.create_task(stop_when_drained(number))))
            else:
                before(number, frame)

        async def stop_when_drained(number: int) -> None:
            log.info("draining", in_flight=self.in_flight)
            for scope in self._receiving:
                scope.cancel()
            while self.in_flight:
                await asyncio.sleep(_POLL_S)
            before(number, None)

        signal.signal(STOP_SIGNAL, drain)
        try:
            yield
        finally:
            signal.signal(STOP_SIGNAL, before)


async def _return_memory() -> None:
    while True:
        await asyncio.sleep(_RETURN_MEMORY_EVERY_S)
        await run_in_threadpool(return_free_memory)
