"""Monitoring of every run: statuses, the slowest reply, the memory of the server, broken promises."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import psutil

from harness.measuring import peak_bytes, print_table
from harness.server import Server

# A run needs the network to answer, and not to see anything: one patch per image.
ENVIRONMENT = {"INPUT_SIZE": "14", "DEVICE": "cpu", "CORS_ORIGINS": "", "TRACE": "true"}
CONTRACT = frozenset({"error", "trace", "code"})


@dataclass
class Watch:
    """Collects what the replies of a server were like, from any thread.

    Attributes:
        server: who replies.
        allowed: statuses that may come.
        slowest_allowed_s: seconds a reply may take.
    """

    server: Server
    allowed: frozenset[int]
    slowest_allowed_s: float
    statuses: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, what: str, where: str, send: Callable[[], httpx.Response]) -> httpx.Response | None:
        """Send a request and judge its reply; None where there was none.

        Args:
            what: the request, for the report.
            where: its endpoint, for the table.
            send: sends it.
        """
        start = time.perf_counter()
        try:
            response = send()
        except httpx.HTTPError as exc:
            self.judge(what, where, f"no reply ({type(exc).__name__})", time.perf_counter() - start, None)
            return None
        self.judge(what, where, str(response.status_code), time.perf_counter() - start, response.content)
        return response

    def judge(self, what: str, where: str, status: str, seconds: float, content: bytes | None) -> None:
        """Count one reply, and note what is wrong with it."""
        problem = ""
        if not status.isdecimal() or int(status) not in self.allowed:
            problem = f"{status}: {(content or b'')[:300]!r}"
        elif int(status) >= 400 and not is_an_error_of_the_contract(content or b""):
            problem = f"{status} in another shape: {(content or b'')[:300]!r}"
        elif seconds > self.slowest_allowed_s:
            problem = f"{status} after {seconds:.1f} s"
        with self._lock:
            self.statuses[f"{where} {status}"] += 1
            self.slowest = max(self.slowest, (seconds, f"{where}, {what}"))
            if problem:
                self.broken.append(f"{where}, {what}: {problem}")

    def expect(self, holds: bool, promise: str) -> None:
        """Note a promise that does not hold."""
        if not holds:
            self.broken.append(promise)

    def memory_mb(self) -> float:
        """Memory of the server now, in MB (10⁶ bytes)."""
        return psutil.Process(self.server.process.pid).memory_info().rss / 1e6

    def peak_mb(self) -> float:
        """The most memory that the server ever had."""
        return peak_bytes(psutil.Process(self.server.process.pid)) / 1e6

    def finish(self, title: str, most_mb: float, figures: Sequence[tuple[str, object]] = ()) -> int:
        """Print the table and what is broken.

        Args:
            title: of the table.
            most_mb: bound of the memory.
            figures: further rows.

        Returns:
            The exit status.
        """
        alive = self.server.process.poll() is None
        self.expect(alive, "the server died; the end of its log:\n" + self.server.log_text()[-3000:])
        rows: list[tuple[str, object]] = sorted(self.statuses.items())
        rows += [("all", sum(self.statuses.values())), *figures]
        rows.append(("slowest reply", f"{self.slowest[0]:.2f} s ({self.slowest[1]})"))
        if alive:
            peak = self.peak_mb()
            rows += [("memory at the end", f"{self.memory_mb():.0f} MB"), ("peak memory", f"{peak:.0f} MB")]
            self.expect(peak <= most_mb, f"the server took {peak:.0f} MB, at most {most_mb:.0f} are promised")
        print_table(title, ("", "figure"), rows)
        print(f"\n{len(self.broken)} broken promises")
        for line in self.broken[:50]:
            print(f"- {line}")
        return 1 if self.broken else 0


def is_an_error_of_the_contract(content: bytes) -> bool:
    """Whether this is ``{"error": …, "trace": …, "code": …}`` and no more."""
    try:
        body = json.loads(content)
    except ValueError:
        return False
    return isinstance(body, dict) and body.keys() == CONTRACT and all(isinstance(text, str) for text in body.values())
