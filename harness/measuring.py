"""Common parts of measuring scripts: interleaved timing, percentiles, tables."""

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Time every contender once per round, in turn, after one warm-up each; median seconds by name.

    `before` runs before each of them and is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(rounds + 1):
        for name, contender in contenders.items():
            before()
            start = time.perf_counter()
            contender()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(process: psutil.Process) -> float:
    """The most memory that the process ever had; NaN where the system does not tell."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return float(getattr(process.memory_info(), "peak_wset", "nan"))
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
    assert peak is not None, "every running process of Linux has it"
    return int(peak[1]) * 1024


def p95(values: Sequence[float]) -> float:
    """95th percentile, interpolated."""
    return float(np.percentile(values, 95))


def at_most(claim: float, value: float) -> str:
    """A figure beside the largest value that is claimed of it."""
    return f"{value:.3g} (≤ {claim:g}: {'holds' if value <= claim else '**fails**'})"


def at_least(claim: float, value: float) -> str:
    """A figure beside the smallest value that is claimed of it."""
    return f"{value:.3g} (≥ {claim:g}: {'holds' if value >= claim else '**fails**'})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table, as the documents show it."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
