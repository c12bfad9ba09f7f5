"""A mixed load for an hour against one service: memory, latency and queue over time, in a picture; all must stay flat.

``python -m soak.mixed [--minutes 60] [--clients 8] [--out docs/soak.png]``.
"""

import argparse
import hashlib
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from harness.history import Lost, Refused
from harness.load import Client, Roi, Tally, mix, prepare
from harness.measuring import p95, print_table
from harness.memory import Memory
from harness.server import Server, serving
from harness.versions import SMALL_NETWORK, Versions, known_versions

_VERSIONS = 6
_ROIS = 6
_KINDS = ("fit", "calibrate", "infer", "upload")
_SAMPLES = 120
_SHORTEST_SAMPLE_S = 2.0
_SLOWER = 1.5  # the most between the medians of the first and the last quarter
_FEWEST_SAMPLES = 40  # to be judged by: of a run of seconds the medians of a quarter are those of a sample or two
_YARDSTICKS = 5
_YARDSTICK = bytes(32 << 20)  # hashing it takes some 20 ms of one core
_UPLOADS = 0.02  # share of the requests; the images are deleted when there are many
_MOST_STORED = 50

_TEXT, _MUTED, _GRID = "#1c2430", "#5b6675", "#e3e7ec"
_COLOURS = ("#0b7285", "#c2570c")


@dataclass(frozen=True)
class Sample:
    """What was seen in one stretch of time.

    Attributes:
        minute: since the start, of its end.
        rss_mb: resident memory.
        median_ms, p95_ms: of the inferences.
        queue: requests that ran or waited.
        yardstick_ms: of a computation outside the server that is always the same: what else the machine does.
    """

    minute: float
    rss_mb: float
    median_ms: float
    p95_ms: float
    queue: float
    yardstick_ms: float


def run(server: Server, versions: Versions, tally: Tally, clients: int, seconds: float) -> tuple[list[Sample], Memory]:
    """Press for some seconds."""
    rois = [Roi({"role_id": "Mixed", "roi_id": f"{number}"}) for number in range(_ROIS)]
    with Client(server, versions, tally) as client:
        prepare(client, rois, versions)
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_press, args=(server, versions, tally, rois, end, number)) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    seen = _watch(server, tally, end)
    for thread in threads:
        thread.join()
    return seen


def _press(server: Server, versions: Versions, tally: Tally, rois: Sequence[Roi], end: float, seed: int) -> None:
    chance = random.Random(seed)
    with Client(server, versions, tally) as client, server.client() as http:
        while time.monotonic() < end:
            with suppress(Refused):
                try:
                    if chance.random() < _UPLOADS:
                        _upload(client, http, chance.choice(rois), versions)
                    else:
                        mix(client, rois, versions, chance)
                except Lost:
                    tally.breaks("a request got no reply")


def _upload(client: Client, http: httpx.Client, roi: Roi, versions: Versions) -> None:
    client.upload(roi, versions.every[0].images)
    listed = http.get("/datasets/list", params=roi.ids).raise_for_status().json()
    if listed["classes"]["ok"]["count"] >= _MOST_STORED:
        http.delete("/datasets/clear", params={**roi.ids, "label": "ok"}).raise_for_status()


def _watch(server: Server, tally: Tally, end: float) -> tuple[list[Sample], Memory]:
    start = time.monotonic()
    every_s = max(_SHORTEST_SAMPLE_S, (end - start) / _SAMPLES)
    samples, memory = [], Memory()
    with server.client() as http, tqdm(total=round(end - start), unit="s", file=sys.stderr) as bar:
        while (since := time.monotonic()) < end:
            time.sleep(min(every_s, end - since))
            now = time.monotonic()
            memory.sample(now - start, [server.process.pid])
            times = tally.milliseconds("infer", since)
            if times:
                _, held = memory.samples[server.process.pid][-1]
                minute = (now - start) / 60
                samples.append(
                    Sample(minute, held, statistics.median(times), p95(times), _queue_depth(http), _yardstick_ms())
                )
            bar.update(round(now - start) - bar.n)
    return samples, memory


def _yardstick_ms() -> float:
    times = []
    for _ in range(_YARDSTICKS):
        start = time.perf_counter()
        hashlib.sha256(_YARDSTICK).digest()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def _queue_depth(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith("queue_depth "))


def slower(samples: Sequence[Sample]) -> list[str]:
    """Whether inferences take longer in the last quarter of the time than in the first, as the yardstick measures it.

    Others use the machine too: while the yardstick takes twice as long, an inference may.
    """
    if len(samples) < _FEWEST_SAMPLES:
        return []
    quarter = len(samples) // 4
    first, last = (
        statistics.median(sample.median_ms / sample.yardstick_ms for sample in part)
        for part in (samples[:quarter], samples[-quarter:])
    )
    if last <= _SLOWER * first:
        return []
    return [f"the median inference went from {first:.2f} to {last:.2f} times the yardstick"]


def draw(samples: Sequence[Sample], conditions: str, out: Path) -> None:
    """Draw memory, latency and queue over time into a PNG file."""
    figure = Figure(figsize=(11, 10), dpi=120, layout="constrained")
    minutes = [sample.minute for sample in samples]
    panels = (
        ("Resident memory", "MB", {"server": [sample.rss_mb for sample in samples]}),
        (
            "/infer over HTTP",
            "milliseconds",
            {"median": [sample.median_ms for sample in samples], "p95": [sample.p95_ms for sample in samples]},
        ),
        (
            "An inference, measured by a computation outside the server that is always the same",
            "ratio",
            {"median": [sample.median_ms / sample.yardstick_ms for sample in samples]},
        ),
        ("Queue", "requests that run or wait", {"depth": [sample.queue for sample in samples]}),
    )
    for axes, (title, unit, lines) in zip(figure.subplots(4, 1, sharex=True), panels, strict=True):
        _draw_panel(axes, title, unit, minutes, lines)
    axes.set_xlabel("minutes", color=_TEXT)
    figure.suptitle(conditions, color=_MUTED, fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Software": None})


def _draw_panel(axes: Axes, title: str, unit: str, minutes: list[float], lines: dict[str, list[float]]) -> None:
    for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
        axes.plot(minutes, values, color=colour, linewidth=1.2, label=name)
    axes.set_title(title, color=_TEXT, loc="left", fontsize=11)
    axes.set_ylabel(unit, color=_TEXT)
    axes.set_xlim(0, minutes[-1])
    axes.set_ylim(0, 1.3 * max(max(values) for values in lines.values()) or 1)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_MUTED, length=0)
    axes.spines[:].set_visible(False)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=_TEXT, fontsize=9, loc="upper left", ncols=len(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures and draw the picture; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.mixed", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="duration in minutes (%(default)g)")
    parser.add_argument("--clients", type=int, default=8, help="number of simultaneous clients (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/soak.png"), help="file of the picture (%(default)s)")
    chosen = parser.parse_args(arguments)
    versions, tally = known_versions(_VERSIONS), Tally()
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as folder:
        environment = {**SMALL_NETWORK, "MODELS_DIR": folder, "MAX_FITS": f"{chosen.clients}"}
        with serving(**environment) as server:
            samples, memory = run(server, versions, tally, chosen.clients, 60 * chosen.minutes)
    conditions = f"{chosen.clients} clients, {chosen.minutes:g} minutes, {os.cpu_count()} cores"
    print_table(f"{conditions}, milliseconds", ("request", "answered", "median", "p95"), tally.rows(_KINDS))
    print_table("Memory of the server, MB", memory.header, memory.rows())
    draw(samples, f"{conditions}: one fit, one calibration and eight inferences of ten", chosen.out)
    print(f"\nPicture: {chosen.out}")
    for text in [*memory.grown(), *slower(samples)]:
        tally.breaks(text)
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
