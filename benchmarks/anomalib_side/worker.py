"""Live processes that answer one order at a time, as JSON lines; for both environments, so standard library only."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_MIB_OF_KIB = 1 / 1024


class WorkerError(RuntimeError):
    """A worker ended before it answered; the message holds the end of its log."""


class Worker:
    """A process that runs ``python -m module``, which calls `serve`.

    Args:
        python: interpreter of its environment.
        module: dotted name of the module.
        log: file for whatever it prints.
    """

    def __init__(self, python: str | Path, module: str, log: Path) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Send an order and wait for its reply.

        Returns:
            What the order's method returned, and ``seconds``, ``peak_mib`` (of the process so far) and ``grown_mib``
            (that peak above the memory held when the order came).

        Raises:
            WorkerError: the process ended instead.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([order, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise WorkerError(f"{order} ended the worker with status {status}:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def serve(orders: object) -> None:
    """Answer every line on stdin by the method of `orders` that it names, until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout
    for line in sys.stdin:
        name, arguments = json.loads(line)
        held = _memory_mib("VmRSS")
        start = time.perf_counter()
        reply = getattr(orders, name)(**arguments) or {}
        seconds = time.perf_counter() - start
        peak = _memory_mib("VmHWM")
        reply |= {"seconds": seconds, "peak_mib": peak, "grown_mib": peak - held}
        print(json.dumps(reply), file=replies, flush=True)


def _memory_mib(field: str) -> float:
    # Not getrusage: its peak starts at that of the process that spawned this one.
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * _MIB_OF_KIB
