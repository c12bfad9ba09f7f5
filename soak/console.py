"""Live in the console for an hour: a folder plays a camera before the real service, and the browser stays small.

``python -m soak.console [--minutes 60] [--per-s 20]``, with Chromium (apt-get install chromium). Each verdict must
equal that of a client in Python, and the page must not show an error. The number of NOT JUDGED parts of a slow machine
is printed.

The browser is driven for some seconds at the start and every 25 minutes, and nobody is connected to it in between: a
driven browser keeps what was sent and received, so that its processes grow with every part.

The processes of a browser fill what the machine lets them have for some twenty minutes, and go up and down from then
on. So their growth is what the last two thirds of the time show.
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from playwright.sync_api import sync_playwright
from tqdm import tqdm

from harness.browser import CHROMIUM, installed
from harness.images import png
from harness.measuring import print_table
from harness.memory import anonymous_mb
from harness.server import serving
from harness.two_cells import RECIPE, ROIS, Picture, ids, pictures, prepare
from harness.versions import SMALL_NETWORK

_N_PICTURES = 40
_SAMPLE_S = 5.0
_LOOK_S = 1500.0  # whoever drives the page leaves a megabyte of scripts in it, each time
_START_S, _STOP_S = 60.0, 20.0
_WARM_PARTS = 600  # by then the last fifty are full, and so is the memory for decoded pictures
_FEWEST_SAMPLES = 20
_GROWTH = 1.10
# What the collector leaves at times. Of a few megabytes of heap, or of few nodes, it is more than a tenth. A node that
# each part left behind would be thousands in an hour.
_SPARE = {"heap_mb": 2.0, "detached_nodes": 500.0}
_N_COURSE = 6
_LONGEST_WAIT_MS = 120_000
# Counts the parts by name and verdict while nobody looks.
_COUNT = """() => {
  globalThis.judged = {};
  new MutationObserver((changes) => {
    for (const node of changes.flatMap(({ addedNodes }) => [...addedNodes])) {
      const part = node.querySelector(".part");
      const { name, word } = part.dataset;
      const key = JSON.stringify([name, word, word === "none" ? part.title : ""]);
      globalThis.judged[key] = (globalThis.judged[key] ?? 0) + 1;
    }
  }).observe(document.querySelector(".parts"), { childList: true });
}"""
# How many nodes the page shows depends on its last fifty parts, because a part that is not judged says why. So shown
# nodes are not counted.
_SHOWN_NODES = """() => {
  const walker = document.createTreeWalker(document);
  let count = 1;
  while (walker.nextNode()) count += 1;
  return count;
}"""
_OF_PAGE = {"heap_mb": "heap of JavaScript, MB", "detached_nodes": "detached nodes"}
_OF_PROCESSES = {"pages_mb": "processes of pages, MB", "others_mb": "other processes of the browser, MB"}
_MEASURES = _OF_PAGE | _OF_PROCESSES


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at_s: since the start.
        parts: judged so far; between looks, as of the look before.
        heap_mb: of JavaScript, after its collector ran.
        detached_nodes: nodes in memory that the page does not show.
        pages_mb, others_mb: what the processes that run pages, and all others, hold that is in no file.
    """

    at_s: float
    parts: int
    heap_mb: float
    detached_nodes: float
    pages_mb: float
    others_mb: float


class Look(NamedTuple):
    """What only a look into the page tells; see `Sample`."""

    parts: int
    heap_mb: float
    detached_nodes: float


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

    @property
    def settled(self) -> list[Sample]:
        """Of the warm samples, those of the last two thirds of the time."""
        return [sample for sample in self.warm if sample.at_s >= self.samples[-1].at_s / 3]


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


class Chromium:
    """A browser that nobody drives but for a moment.

    Attributes:
        process: its main process.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str, playwright: Any) -> None:
        self.process = process
        self._address = address
        self._playwright = playwright

    @contextlib.contextmanager
    def driven(self) -> Iterator[Any]:
        """Its page, as playwright has it; the browser goes on without it afterwards."""
        browser = self._playwright.chromium.connect_over_cdp(self._address)
        try:
            yield browser.contexts[0].pages[0]
        finally:
            browser.close()  # of a browser that was there before, this ends the connection alone

    def memory_mb(self) -> tuple[float, float]:
        """What the processes that run pages, and all others, hold that is in no file."""
        pages = others = 0.0
        main = psutil.Process(self.process.pid)
        for process in [main, *main.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                is_of_pages = "--type=renderer" in process.cmdline()
                held = anonymous_mb(process.pid)
                pages, others = (pages + held, others) if is_of_pages else (pages, others + held)
        return pages, others


@contextlib.contextmanager
def chromium(program: str, playwright: Any) -> Iterator[Chromium]:
    """Start a browser with an empty page.

    Raises:
        RuntimeError: it does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        told = Path(profile) / "DevToolsActivePort"
        command = [program, "--headless=new", "--no-sandbox", "--no-first-run", "--window-size=1440,1000"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + _START_S
            while not (told.exists() and told.read_text().count("\n")):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("Chromium does not start")
                time.sleep(0.1)
            yield Chromium(process, f"http://127.0.0.1:{told.read_text().split()[0]}", playwright)
        finally:
            process.terminate()
            process.wait(_STOP_S)


def begin(page: Any, address: str, files: Sequence[Path], per_s: float) -> None:
    """Open the screen and play the folder, over and over.

    Args:
        page: playwright's.
        address: of the service.
        files: the pictures that are played.
        per_s: pictures a second.
    """
    page.set_default_timeout(_LONGEST_WAIT_MS)
    page.goto(f"{address}/#/live?recipe={RECIPE.replace(' ', '+')}")
    page.locator(".tile").first.wait_for()
    page.get_by_role("button", name="Folder that plays a camera").click()
    page.get_by_label("Pictures a second").fill(str(per_s))
    page.evaluate(_COUNT)
    page.locator("input[type=file][accept]").set_input_files(files)
    page.locator(".part").first.wait_for()


def run(browser: Chromium, words: dict[str, str], s: float) -> Seen:
    """Watch a browser that judges.

    Args:
        browser: see `begin`.
        words: by name, the verdict of each picture.
        s: seconds that it takes.
    """
    seen, start, next_look = Seen(), time.monotonic(), 0.0
    found = Look(0, math.nan, math.nan)
    with tqdm(total=round(s), unit="s", file=sys.stderr) as bar:
        while (now := time.monotonic() - start) < s:
            if now >= next_look:
                found = look(browser, seen, words)
                next_look = now + _LOOK_S
            time.sleep(min(_SAMPLE_S, s - now))
            at_s = time.monotonic() - start
            seen.samples.append(Sample(at_s, *found, *browser.memory_mb()))
            bar.update(round(at_s) - bar.n)
    found = look(browser, seen, words)
    seen.samples.append(Sample(time.monotonic() - start, *found, *browser.memory_mb()))
    return seen


def look(browser: Chromium, seen: Seen, words: dict[str, str]) -> Look:
    """Read the page, and note what is wrong."""
    with browser.driven() as page:
        developer = page.context.new_cdp_session(page)
        developer.on("Log.entryAdded", lambda told: _heard(seen, told["entry"]))
        developer.send("Log.enable")  # tells what was logged since the page was opened
        developer.send("Performance.enable")
        developer.send("HeapProfiler.collectGarbage")
        metrics = {metric["name"]: metric["value"] for metric in developer.send("Performance.getMetrics")["metrics"]}
        n_parts = _compare(seen, page, words)
        for text in page.locator(".message.error").all_inner_texts():
            seen.broken.append(f"the page says: {text}")
        detached = metrics["Nodes"] - page.evaluate(_SHOWN_NODES)
        return Look(n_parts, metrics["JSHeapUsedSize"] / 1e6, detached)


def _heard(seen: Seen, entry: dict[str, Any]) -> None:
    if entry["level"] == "error":
        seen.broken.append(f"the page complains: {entry['text']}")


def _compare(seen: Seen, page: Any, words: dict[str, str]) -> int:
    """Count the parts, and note those that have no verdict, or a different one than a client in Python gets."""
    judged: dict[str, int] = page.evaluate("globalThis.judged")
    for name, word, title in map(json.loads, judged):
        if word == "none":
            seen.unjudged.add(title)
        elif word != words[name]:
            seen.broken.append(f"{name} was judged {word} instead of {words[name]}")
    return sum(judged.values())


def grown(seen: Seen) -> list[str]:
    """What is larger at the end than once it was warm, and of processes once they had settled.

    Medians of the first and the last fifth of that time are compared.
    """
    found = []
    for samples, measures in ((seen.warm, _OF_PAGE), (seen.settled, _OF_PROCESSES)):
        if len(samples) < _FEWEST_SAMPLES:
            continue
        fifth = len(samples) // 5
        for name, what in measures.items():
            first, last = (
                statistics.median(getattr(sample, name) for sample in some)
                for some in (samples[:fifth], samples[-fifth:])
            )
            if last > _GROWTH * first + _SPARE.get(name, 0.0):
                found.append(f"{what} grew from {first:.1f} to {last:.1f}")
    return found


def slope_per_hour(seen: Seen, name: str) -> float:
    """Least squares through the warm samples."""
    if len(seen.warm) < _FEWEST_SAMPLES:
        return math.nan
    times = [sample.at_s / 3600 for sample in seen.warm]
    return statistics.linear_regression(times, [getattr(sample, name) for sample in seen.warm]).slope


def course(seen: Seen) -> dict[str, list[float]]:
    """Medians of the warm samples, one for each sixth of them: whether what grew comes back to where it was.

    Returns:
        By measure, up to six values in the order of time.
    """
    n = len(seen.warm)
    parts = [part for k in range(_N_COURSE) if (part := seen.warm[n * k // _N_COURSE : n * (k + 1) // _N_COURSE])]
    return {name: [statistics.median(getattr(sample, name) for sample in part) for part in parts] for name in _MEASURES}


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
        with sync_playwright() as running, chromium(program, running) as browser:
            with browser.driven() as page:
                begin(page, server.address, files, chosen.per_s)
            seen = run(browser, words, 60 * chosen.minutes)
    title = (
        f"{chosen.minutes:g} minutes, {seen.samples[-1].parts} parts judged, {chosen.per_s:g} pictures a second played"
    )
    print_table(title, ("", "first", "warm", "at the end", "highest", "slope an hour"), _table(seen))
    medians = course(seen)
    if n_medians := len(medians["pages_mb"]):
        rows = [[what, *(f"{value:.1f}" for value in medians[name])] for name, what in _MEASURES.items()]
        print_table("Medians over time, once it was warm", ("", *map(str, range(1, n_medians + 1))), rows)
    for text in sorted(seen.unjudged):
        print(f"not judged: {text}")
    broken = [*dict.fromkeys(seen.broken), *grown(seen)]
    for text in broken:
        print(f"BROKEN: {text}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
