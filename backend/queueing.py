"""Who may use the network when: a bounded queue, inferences before fit batches, one forward pass at a time."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from backend.errors import Busy
from backend.telemetry import QUEUE_DEPTH, QUEUE_REJECTED, stage

# A fit that waits gets one batch in after this many inferences, so that a busy line cannot starve it.
_INFERENCES_PER_FIT_BATCH = 8
_RETRY_AFTER_S = 2


class NetworkQueue:
    """Shares the network between requests.

    A forward pass already uses every core, so two at once only slow each other down: they take turns, in order of
    arrival, inferences before the batches of a fit.

    Args:
        limit: requests that may run or wait; the next one is refused.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = 0
        self._changed = threading.Condition()
        self._running = False
        self._inferences: deque[object] = deque()
        self._fit_batches: deque[object] = deque()
        self._inferences_ahead = 0  # of the fit batch that waits first

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold one of the places in the queue.

        Raises:
            Busy: every place is taken.
        """
        with self._changed:
            if self._admitted >= self._limit:
                QUEUE_REJECTED.inc()
                raise Busy(self._limit, _RETRY_AFTER_S)
            self._admitted += 1
        QUEUE_DEPTH.inc()
        try:
            yield
        finally:
            QUEUE_DEPTH.dec()
            with self._changed:
                self._admitted -= 1

    @contextlib.contextmanager
    def turn(self, *, fit_batch: bool = False) -> Iterator[None]:
        """Wait for the network and hold it."""
        ticket = object()
        waiting = self._fit_batches if fit_batch else self._inferences
        with stage("queue"), self._changed:
            waiting.append(ticket)
            self._changed.wait_for(lambda: not self._running and self._next() is ticket)
            waiting.popleft()
            self._running = True
            self._inferences_ahead = self._inferences_ahead + 1 if self._fit_batches and not fit_batch else 0
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _next(self) -> object:
        fit_is_due = self._fit_batches and self._inferences_ahead >= _INFERENCES_PER_FIT_BATCH
        if self._inferences and not fit_is_due:
            return self._inferences[0]
        return self._fit_batches[0]
