"""Clients that ask the same without a pause, and what each request got: for soaks that break something meanwhile."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from harness.forms import Form

_LONGEST_S = 60.0
_MOST_WAIT_S = 180.0
_SAME_SCORE = 1e-6


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        start, end: on the clock of `time.monotonic`.
        status: of the reply; 0 if there was none.
        code: of an error in the contract's shape; else what came instead.
        score: of a judgement; None if there was none.
    """

    start: float
    end: float
    status: int
    code: str = ""
    score: float | None = None


class SteadyLoad:
    """Some clients, each of which sends its next inference when it has the reply to the last one.

    Args:
        address: of the service.
        form: the inference.
        score: that every reply must have.
        clients: number of clients.

    Attributes:
        asked: all requests that ended so far.
    """

    def __init__(self, address: str, form: Form, score: float, clients: int = 2) -> None:
        self._address, self._form, self._score = address, form, score
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]
        self.asked: list[Asked] = []
        self._error: Exception | None = None

    def __enter__(self) -> "SteadyLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_LONGEST_S)
        if self._error:
            raise self._error
        if n_waiting := sum(thread.is_alive() for thread in self._threads):
            raise RuntimeError(f"{n_waiting} clients still wait for a reply after {_LONGEST_S:.0f} s")

    def since(self, moment: float) -> Sequence[Asked]:
        """The requests that ended after a moment on the clock of `time.monotonic`."""
        return [asked for asked in list(self.asked) if asked.end > moment]

    def failed(self) -> Sequence[Asked]:
        """The requests that got something else than a judgement."""
        return [asked for asked in list(self.asked) if asked.score is None]

    def wrong(self) -> Sequence[Asked]:
        """The requests that got another score."""
        return [
            asked
            for asked in list(self.asked)
            if asked.score is not None and abs(asked.score - self._score) > _SAME_SCORE
        ]

    def wait_for_judgements(self, count: int, within_s: float = _MOST_WAIT_S) -> float:
        """Seconds until so many further requests got a judgement.

        Raises:
            RuntimeError: they did not, in time.
        """
        start = time.monotonic()
        while time.monotonic() < start + within_s:
            if sum(asked.score is not None and asked.start > start for asked in self.since(start)) >= count:
                return time.monotonic() - start
            time.sleep(0.02)
        raise RuntimeError(f"no {count} judgements in {within_s:.0f} s; the last request: {self.asked[-1:]}")

    def _ask_on(self) -> None:
        try:
            with httpx.Client(base_url=self._address, timeout=_LONGEST_S, trust_env=False) as client:
                while not self._stop.is_set():
                    self.asked.append(ask(client, self._form))
        except Exception as exc:  # raised again where the load ends
            self._error = exc


def ask(client: httpx.Client, form: Form) -> Asked:
    """Send an inference once.

    Args:
        client: of the service.
        form: the request.
    """
    start = time.monotonic()
    try:
        reply = form.post(client, "/infer")
    except httpx.TransportError as exc:
        return Asked(start, time.monotonic(), 0, type(exc).__name__)
    end, status = time.monotonic(), reply.status_code
    try:
        body = reply.json()
        if status == httpx.codes.OK:
            return Asked(start, end, status, score=float(body["score"]))
        return Asked(start, end, status, str(body["code"]))
    except (ValueError, KeyError, TypeError):
        return Asked(start, end, status, f"not in the contract's shape: {reply.text[:80]}")
