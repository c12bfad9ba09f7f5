"""Delayed writing: items wait in memory, and a thread adds them to files, so that no inference waits for a disk."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey

_FLUSH_EVERY_S = 2.0

log: Any = structlog.get_logger(__name__)

Item = TypeVar("Item")


class WriteBehind(Generic[Item]):
    """Items of ROIs that wait to be written, at most two seconds. Safe to call from many threads.

    Items that cannot be written keep waiting. A killed process loses its waiting items.

    Args:
        name: of the thread, and of its events in the log: ``NAME.not_stored`` and ``NAME.failed``.
        write: adds items of one ROI to its file, in their order. After a StorageError, they keep waiting; after any
            other error, they are dropped.
        most: maximum number of waiting items; beyond that, the oldest are lost.
        on_lost: called with the number of lost items.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[RoiKey, list[Item]], None],
        most: int,
        on_lost: Callable[[int], None] | None = None,
    ) -> None:
        self._name = name
        self._write = write
        self._most = most
        self._on_lost = on_lost
        self._waiting: deque[tuple[RoiKey, Item]] = deque()
        self._queueing = threading.Lock()
        self._flushing = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._fails = False

    def add(self, key: RoiKey, item: Item) -> None:
        """Let an item wait.

        Args:
            key: the ROI whose file it belongs to.
            item: what is written.
        """
        with self._queueing:
            self._waiting.append((key, item))
            self._let_go()
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Write the waiting items; those that cannot be written keep waiting."""
        with self._flushing:
            with self._queueing:
                waiting = list(self._waiting)
                self._waiting.clear()
            if not waiting:
                return
            by_roi: dict[RoiKey, list[Item]] = {}
            for key, item in waiting:
                by_roi.setdefault(key, []).append(item)
            failure: StorageError | None = None
            waits_on = set()
            for key, items in by_roi.items():
                try:
                    self._write(key, items)
                except StorageError as exc:  # the others may still be written
                    failure = exc
                    waits_on.add(key)
                except Exception:  # it would fail again, and what was found is never worth a service
                    log.exception(f"{self._name}.failed", role_id=key.role_id, roi_id=key.roi_id)
            self._requeue([(key, item) for key, item in waiting if key in waits_on])
            if failure is not None and not self._fails:
                log.warning(f"{self._name}.not_stored", reason=str(failure), hint="kept in memory and tried again")
            self._fails = failure is not None

    def close(self) -> None:
        """Write the waiting items, and end the thread; it starts again with the next item."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._closing.set()
            self._closing = threading.Event()
        if thread is not None:
            thread.join()
        self.flush()

    def _requeue(self, waiting: Sequence[tuple[RoiKey, Item]]) -> None:
        """Put items back, before those that were added meanwhile."""
        with self._queueing:
            self._waiting.extendleft(reversed(waiting))
            self._let_go()

    def _let_go(self) -> None:
        lost = len(self._waiting) - self._most
        for _ in range(lost):
            self._waiting.popleft()
        if lost > 0 and self._on_lost is not None:
            self._on_lost(lost)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, args=(self._closing,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no thread left: the next item tries again
                return
            self._thread = thread

    def _run(self, closing: threading.Event) -> None:
        while not closing.wait(_FLUSH_EVERY_S):
            try:
                self.flush()
            except Exception:  # such as no memory left: the next flush tries again
                log.exception(f"{self._name}.failed")
