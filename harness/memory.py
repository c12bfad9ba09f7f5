"""Resident memory of processes over time, and whether it stays flat after a warm-up."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import psutil

_WARM_S = 30.0  # of a process: caches, thread pools and the allocator's arenas have grown by then
_FEWEST_SAMPLES = 40
_GROWTH = 1.10


def resident_mb(pid: int) -> float | None:
    """What a process holds in memory now, in MB; None where it has ended."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return None


def anonymous_mb(pid: int) -> float:
    """What a process holds that is in no file, in MB; what processes share counts in parts (Linux).

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise psutil.NoSuchProcess(pid) from exc
    named = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return sum(int(named[name]) for name in ("Pss_Anon:", "Pss_Shmem:")) / 1e3


class Memory:
    """Samples of several processes, by process id."""

    header = ("process", "seconds watched", "first", "warm", "at the end", "highest")

    def __init__(self) -> None:
        self.samples: dict[int, list[tuple[float, float]]] = {}
        self._alive: set[int] = set()

    def sample(self, at_s: float, pids: Sequence[int]) -> None:
        """Look at the processes there are now."""
        self._alive = set(pids)
        for pid in pids:
            held = resident_mb(pid)
            if held is not None:
                self.samples.setdefault(pid, []).append((at_s, held))

    def rows(self) -> list[list[object]]:
        """A line for each process that lived to the end."""
        rows: list[list[object]] = []
        for pid in sorted(self._alive & self.samples.keys()):
            series = self.samples[pid]
            held = [value for _, value in series]
            first, last = _warm_and_last(series)
            shown = [f"{value:.0f}" for value in (held[0], first, last, max(held))]
            rows.append([pid, f"{series[-1][0] - series[0][0]:.0f}", *shown])
        return rows

    def grown(self) -> list[str]:
        """The processes, watched for long enough, that hold a tenth more at the end than when they were warm."""
        found = []
        for pid, series in self.samples.items():
            warm = [sample for sample in series if sample[0] - series[0][0] >= _WARM_S]
            first, last = _warm_and_last(series)
            if len(warm) >= _FEWEST_SAMPLES and last > _GROWTH * first:
                found.append(f"memory of process {pid} grew from {first:.0f} to {last:.0f} MB")
        return found


def _warm_and_last(series: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Medians of the first and the last fifth of the samples after the warm-up; of a short life, of all of it."""
    warm = [held for at, held in series if at - series[0][0] >= _WARM_S] or [held for _, held in series]
    fifth = max(1, len(warm) // 5)
    return statistics.median(warm[:fifth]), statistics.median(warm[-fifth:])
