"""A limit for the pixels that are decoded at the same time."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from backend.common.telemetry import stage


class PixelBudget:
    """Limits the decoded pixels, and thus the memory: first come, first served.

    Args:
        most: pixels; an image with this number or more is processed alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._held = 0
        self._waiting: deque[object] = deque()

    @contextlib.contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until the image fits beside the current ones, and reserve its pixels."""
        ticket = object()
        with stage("queue"), self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and (not self._held or self._held + pixels <= self._most)
                )
                self._held += pixels
            finally:  # a wait may be interrupted
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()
