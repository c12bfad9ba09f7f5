"""The queue for the network: bounded, inferences before fits, one forward pass at a time."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from backend.common.arrays import Embeddings, Pixels
from backend.common.errors import Busy
from backend.common.telemetry import QUEUE_DEPTH, QUEUE_REJECTED, observe_stage, stage

# A fit that waits gets one turn after this many inferences, so that a busy line cannot starve it.
_INFERENCES_PER_FIT_TURN = 8
_RETRY_INFERENCE_AFTER_S = 2
_RETRY_FIT_AFTER_S = 15
_LOOK_UP_EVERY_S = 0.5


Forward = Callable[[Pixels], Embeddings]


@dataclass(eq=False)
class _Inference:
    """One image that waits for its forward pass.

    Attributes:
        pixels: float32 [3, S, S].
        forward: runs the network; inferences of one network share a pass.
        tokens: float32 [T, D] once the pass is done.
        failure: what the pass raised instead.
        started_at: time when the pass began, on the clock of `time.perf_counter`.
    """

    pixels: Pixels
    forward: Forward
    tokens: Embeddings | None = None
    failure: BaseException | None = None
    started_at: float = 0.0

    @property
    def done(self) -> bool:
        return self.tokens is not None or self.failure is not None


class NetworkQueue:
    """Shares the network between requests.

    A forward pass already uses every core, so two at once would only slow each other down. Passes take turns in order
    of arrival, inferences before those of a fit. If one pass over several images is cheaper than one each (CUDA),
    inferences that arrive together share a pass. Fits run one after the other.

    Args:
        forward: runs the network if an inference names no other, float32 [B, 3, S, S] → [B, T, D]; called by one
            thread at a time.
        max_inferences: inferences that may run or wait; the next one is refused.
        max_fits: fits that may run or wait; the next one is refused.
        batch: most inferences in one pass.
        window_s: how long a pass waits for others to share it; has no effect if `batch` is 1.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        max_inferences: int,
        max_fits: int,
        batch: int = 1,
        window_s: float = 0.0,
    ) -> None:
        self._forward = forward
        self._max_inferences, self._max_fits = max_inferences, max_fits
        self._batch, self._window_s = min(batch, max_inferences), window_s
        self._changed = threading.Condition()
        self._admitted = 0
        self._fits: deque[object] = deque()  # the first one runs
        self._running = False
        self._inferences: deque[_Inference] = deque()
        self._fit_turns: deque[object] = deque()
        self._inferences_ahead = 0  # of the fit turn that waits first

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Hold one of the places for inferences.

        Raises:
            Busy: every place is taken.
        """
        with self._changed:
            if self._admitted >= self._max_inferences:
                QUEUE_REJECTED.inc()
                raise Busy(f"{self._max_inferences} inferences", _RETRY_INFERENCE_AFTER_S)
            self._admitted += 1
        QUEUE_DEPTH.inc()
        try:
            yield
        finally:
            QUEUE_DEPTH.dec()
            with self._changed:
                self._admitted -= 1

    @contextlib.contextmanager
    def fit(self) -> Iterator[Callable[..., None]]:
        """Hold one of the places for fits; yields a function that waits until the earlier fits are done.

        That function takes another one, which it calls twice a second while it waits: an exception of it ends the wait.

        Raises:
            Busy: every place is taken.
        """
        ticket = object()
        with self._changed:
            if len(self._fits) >= self._max_fits:
                QUEUE_REJECTED.inc()
                raise Busy(f"{self._max_fits} fits", _RETRY_FIT_AFTER_S)
            self._fits.append(ticket)

        def comes_next() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: self._fits[0] is ticket, _LOOK_UP_EVERY_S)

        def wait_for_those_before(meanwhile: Callable[[], None] = lambda: None) -> None:
            with stage("queue"):
                while not comes_next():
                    meanwhile()

        QUEUE_DEPTH.inc()
        try:
            yield wait_for_those_before
        finally:
            QUEUE_DEPTH.dec()
            with self._changed:
                self._fits.remove(ticket)
                self._changed.notify_all()

    @contextlib.contextmanager
    def fit_turn(self) -> Iterator[None]:
        """Hold the network, and thus every core, for one piece of a fit; waiting inferences go first."""
        ticket = object()
        with stage("queue"), self._changed:
            self._fit_turns.append(ticket)
            try:
                self._changed.wait_for(lambda: not self._running and self._next() is ticket)
                self._running = True
            finally:  # a wait may be interrupted
                self._fit_turns.remove(ticket)
                self._changed.notify_all()
            self._inferences_ahead = 0
        try:
            yield
        finally:
            self._release()

    def infer(self, pixels: Pixels, forward: Forward | None = None) -> Embeddings:
        """Run the network on one image, when it is its turn.

        Args:
            pixels: float32 [3, S, S].
            forward: runs the network; None is that of the queue.

        Returns:
            float32 [T, D].

        Raises:
            RuntimeError: the pass failed and another image ran it. The image that ran it gets the original exception.
        """
        own = _Inference(pixels, forward or self._forward)
        waiting_since = time.perf_counter()
        with self._changed:
            self._inferences.append(own)
            if self._batch > 1:
                self._changed.notify_all()  # a pass may be waiting for others to share it
            try:
                self._changed.wait_for(lambda: own.done or (not self._running and self._next() is own))
                shared = [] if own.done else self._gather()
            except BaseException:  # the wait was interrupted
                if own in self._inferences:
                    self._inferences.remove(own)
                self._changed.notify_all()
                raise
        if shared:
            self._run(shared)
        observe_stage("queue", own.started_at - waiting_since)
        observe_stage("extract", time.perf_counter() - own.started_at)
        if own.failure is not None:
            if shared:
                raise own.failure
            # An exception of its own: its traceback is this request's.
            raise RuntimeError("the forward pass that this image shared with others failed") from own.failure
        assert own.tokens is not None, "a pass that did not fail gave tokens"
        return own.tokens

    def _next(self) -> object:
        fit_is_due = self._fit_turns and self._inferences_ahead >= _INFERENCES_PER_FIT_TURN
        if self._inferences and not fit_is_due:
            return self._inferences[0]
        return self._fit_turns[0] if self._fit_turns else None

    def _gather(self) -> list[_Inference]:
        """Take the network, and the inferences that share the next pass; the lock is held."""
        self._running = True
        try:
            if self._batch > 1:
                self._changed.wait_for(lambda: len(self._inferences) >= self._batch, self._window_s)
        except BaseException:
            self._running = False
            raise
        shared = [self._inferences.popleft()]
        while len(shared) < self._batch and self._inferences and self._inferences[0].forward == shared[0].forward:
            shared.append(self._inferences.popleft())
        self._inferences_ahead = self._inferences_ahead + len(shared) if self._fit_turns else 0
        return shared

    def _run(self, shared: list[_Inference]) -> None:
        started_at = time.perf_counter()
        for inference in shared:
            inference.started_at = started_at
        try:
            tokens = shared[0].forward(np.stack([inference.pixels for inference in shared]))
            for inference, own_tokens in zip(shared, tokens, strict=True):
                inference.tokens = own_tokens
        except BaseException as exc:
            for inference in shared:
                inference.failure = exc
        finally:
            self._release()

    def _release(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()
