"""Live in the console for an hour: a folder plays a camera before the real service, and the browser stays small.

``python -m soak.console [--minutes 60] [--per-s 20]``, with Chromium (apt-get install chromium). Each verdict must
equal that of a client in Python, and the page must not show an error. The number of NOT JUDGED parts of a slow machine
is printed.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.sync_api import sync_playwright
from tqdm import tqdm

from harness.browser import CHROMIUM, installed
from harness.images import png
from harness.measuring import print_table
from harness.memory import resident_mb
from harness.server import serving
from harness.two_cells import RECIPE, ROIS, Picture, ids, pictures, prepare
from harness.versions import SMALL_NETWORK

_N_PICTURES = 40
_SAMPLE_S = 5.0
_WARM_PARTS = 600  # by then the last fifty are full, and so is the memory for decoded pictures
_FEWEST_SAMPLES = 20
_GROWTH = 1.10
_SPARE_MB = 2.0  # of a heap of some megabytes a tenth is less than the collector leaves
_LONGEST_WAIT_MS = 60_000
_MEASURES = {"heap_mb": "heap of JavaScript, MB", "resident_mb": "processes of pages, MB", "nodes": "nodes of the page"}


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at_s: since the start.
        parts: judged so far.
        heap_mb: of JavaScript, after its collector ran.
        resident_mb: of the processes that run pages.
        nodes: of the page, those included that are kept without being shown.
    """

    at_s: float
    parts: int
    heap_mb: float
    resident_mb: float
    nodes: float


@dataclass
class Seen:
    """What was seen of the page.

    Attributes:
        samples: in the order of time.
        unjudged: why parts got no verdict.
        broken: promises that were broken, as sentences.
    """

    samples: list[Sample] = field(default_factory=list)
    unjudged: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    @property
    def warm(self) -> list[Sample]:
        """Samples after the start."""
        return [sample for sample in self.samples if sample.parts >= _WARM_PARTS]


def expected(client: httpx.Client, made: Sequence[Picture]) -> dict[str, str]:
    """Set the threshold of each ROI so that a third of the crops is rejected; by name, the verdict of each picture."""
    bad: set[str] = set()
    for roi in ROIS:
        scores = {}
        for picture in made:
            form = ids(roi) | {"mm_per_px": "1", "trial": "true"}
            reply = client.post("/infer", data=form, files={"image": ("crop.png", png(picture.crops[roi]))})
            scores[picture.name] = float(reply.raise_for_status().json()["score"])
        ranked = sorted(scores.values())
        threshold = statistics.mean(ranked[-len(made) // 3 - 1 : -len(made) // 3 + 1])
        body = ids(roi) | {"require_ng": False, "default_mm_per_px": 1, "threshold": threshold}
        client.post("/calibrate_dataset", json=body).raise_for_status()
        bad |= {name for name, score in scores.items() if score >= threshold}
    return {picture.name: "ng" if picture.name in bad else "ok" for picture in made}


def run(
    page: Any, pids: Sequence[int], files: Sequence[Path], words: dict[str, str], *, s: float, per_s: float
) -> Seen:
    """Open the screen, play the folder, and look at it for some seconds.

    Args:
        page: playwright's, on the console.
        pids: of the processes that run pages.
        files: the pictures that are played, over and over.
        words: by name, the verdict of each.
        s: seconds that it takes.
        per_s: pictures a second that are played.
    """
    seen = Seen()
    page.on("pageerror", lambda error: seen.broken.append(f"the page fails: {error}"))
    page.on("console", lambda said: said.type == "error" and seen.broken.append(f"the page complains: {said.text}"))
    page.get_by_role("button", name="Folder that plays a camera").click()
    page.get_by_label("Pictures a second").fill(str(per_s))
    page.locator("input[type=file][accept]").set_input_files(files)
    page.locator(".part").first.wait_for(timeout=_LONGEST_WAIT_MS)
    developer = page.context.new_cdp_session(page)
    developer.send("Performance.enable")
    start = time.monotonic()
    with tqdm(total=round(s), unit="s", file=sys.stderr) as bar:
        while (now := time.monotonic() - start) < s:
            page.wait_for_timeout(1000 * min(_SAMPLE_S, s - now))
            seen.samples.append(_sample(developer, page, pids, time.monotonic() - start))
            _compare(seen, page, words)
            bar.update(round(time.monotonic() - start) - bar.n)
    return seen


def _sample(developer: Any, page: Any, pids: Sequence[int], at_s: float) -> Sample:
    developer.send("HeapProfiler.collectGarbage")
    metrics = {metric["name"]: metric["value"] for metric in developer.send("Performance.getMetrics")["metrics"]}
    numbers = [int(word) for word in page.locator(".live-facts").inner_text().split() if word.isdigit()]
    resident = sum(resident_mb(pid) or 0.0 for pid in pids)
    return Sample(at_s, sum(numbers[:3]), metrics["JSHeapUsedSize"] / 1e6, resident, metrics["Nodes"])


def _compare(seen: Seen, page: Any, words: dict[str, str]) -> None:
    """Note the parts among the last fifty that have no verdict, or another one than a client in Python gets."""
    told = "(all) => all.map((part) => [part.dataset.name, part.dataset.word, part.title])"
    for name, word, title in page.locator(".part").evaluate_all(told):
        if word == "none":
            seen.unjudged.add(title)
        elif word != words[name]:
            seen.broken.append(f"{name} was judged {word} instead of {words[name]}")


def grown(seen: Seen) -> list[str]:
    """What is larger at the end than once it was warm, by medians of the first and last fifth of the warm samples."""
    if len(seen.warm) < _FEWEST_SAMPLES:
        return []
    fifth = len(seen.warm) // 5
    found = []
    for name, what in _MEASURES.items():
        first, last = (
            statistics.median(getattr(sample, name) for sample in some)
            for some in (seen.warm[:fifth], seen.warm[-fifth:])
        )
        if last > _GROWTH * first + _SPARE_MB * (name == "heap_mb"):
            found.append(f"{what} grew from {first:.1f} to {last:.1f}")
    return found


def slope_per_hour(seen: Seen, name: str) -> float:
    """Least squares through the warm samples."""
    if len(seen.warm) < _FEWEST_SAMPLES:
        return math.nan
    times = [sample.at_s / 3600 for sample in seen.warm]
    return statistics.linear_regression(times, [getattr(sample, name) for sample in seen.warm]).slope


def _page_pids() -> list[int]:
    """Of the processes that run pages.

    Not the browser's main process: while a browser is driven, its log of requests holds every crop that was sent, which
    no page does any more (chrome://blob-internals lists two a part, but heatmaps of the last fifty only).
    """
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "--type=renderer" in child.cmdline()]


def _table(seen: Seen) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, what in _MEASURES.items():
        values = [getattr(sample, name) for sample in seen.samples]
        warm = [getattr(sample, name) for sample in seen.warm] or values
        row = [values[0], warm[0], warm[-1], max(values), slope_per_hour(seen, name)]
        rows.append([what, *(f"{value:.1f}" for value in row)])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.console", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="duration in minutes (%(default)g)")
    parser.add_argument("--per-s", type=float, default=20, help="pictures per second from the folder (%(default)g)")
    chosen = parser.parse_args(arguments)
    program = installed(CHROMIUM)
    if program is None:
        parser.error(f"none of {', '.join(CHROMIUM)} is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as folder, serving(**SMALL_NETWORK) as server:
        with server.client() as client:
            prepare(client)
            made = pictures(_N_PICTURES)
            words = expected(client, made)
        files = [picture.write(Path(folder)) for picture in made]
        with sync_playwright() as running:
            browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.goto(f"{server.address}/#/live?recipe={RECIPE.replace(' ', '+')}")
            page.locator(".tile").first.wait_for(timeout=_LONGEST_WAIT_MS)
            seen = run(page, _page_pids(), files, words, s=60 * chosen.minutes, per_s=chosen.per_s)
            browser.close()
    title = (
        f"{chosen.minutes:g} minutes, {seen.samples[-1].parts} parts judged, {chosen.per_s:g} pictures a second played"
    )
    print_table(title, ("", "first", "warm", "at the end", "highest", "slope an hour"), _table(seen))
    for text in sorted(seen.unjudged):
        print(f"not judged: {text}")
    broken = [*dict.fromkeys(seen.broken), *grown(seen)]
    for text in broken:
        print(f"BROKEN: {text}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
