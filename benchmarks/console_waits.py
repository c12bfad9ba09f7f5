"""How long people wait for the console, in a real Chromium before the real service: part of ``benchmarks.console``."""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page, expect, sync_playwright

from harness.browser import peak_mb
from harness.crowd import crowd
from harness.images import png, solar_cells
from harness.measuring import at_least, at_most, print_table
from harness.server import Server, serving

Image = npt.NDArray[np.uint8]

_ROI = {"recipe_id": "default", "role_id": "Inspection", "roi_id": "inspection-1", "model_key": "inspection-1"}
_MOST_PAINT_MS, _MOST_DROP_MS, _LEAST_RATIO, _MOST_OPEN_S = 500, 300, 0.9, 2
_PAINTS, _DROPS, _RUNS, _FRAMES = 7, 9, 5, 12
_CAMERA, _LARGE = (2448, 2048), (9248, 6944)
_SIDE = 512
_MANY_OK, _MANY_NG, _MANY_ROIS = 9_000, 1_000, 200
_PATIENCE_MS = 120_000

# When files were chosen, and when each part got its verdict, in milliseconds of the page.
_RECORD = """
const record = (window.record = { chosen: 0, verdicts: [] });
addEventListener("change", (event) => { if (event.target.type === "file") record.chosen = performance.now(); }, true);
performance.setResourceTimingBufferSize(10_000);
new MutationObserver((changes) => {
  for (const { target } of changes)
    if (target.matches(".part") && ["ok", "ng"].includes(target.dataset.word)) record.verdicts.push(performance.now());
}).observe(document, { subtree: true, attributeFilter: ["data-word"] });
"""
_INFER_MS = """performance.getEntriesByType("resource").filter(({ name }) => name.endsWith("/infer"))
  .map(({ duration }) => duration)"""


def measure(program: str) -> None:
    """Print the waits of a person before this Chromium."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="console-")))
        server = stack.enter_context(serving(folder=folder))
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=program, args=["--no-sandbox"])
        stack.callback(browser.close)
        frames = [_frame(number) for number in range(_FRAMES)]
        _prepare(server, frames)
        rows = [*_paints(browser, server), *_drops(browser, server, folder), *_loop(browser, server, folder)]
        print_table(f"{Path(program).name}: medians of {_RUNS} rounds or more", ("what", "measured"), rows)
        print_table(
            f"A picture of {_LARGE[0]}×{_LARGE[1]} pixels, a ROI of {_SIDE}×{_SIDE}",
            ("file", "MB", "drop to crop, s", "drop to verdict, s", "memory of the browser, MB"),
            [_large(browser, server, folder, suffix) for suffix in (".jpg", ".png")],
        )
        crowd(server.models, _ROI, _MANY_OK, _MANY_NG)
        _draw_many(server)
        rows = [_opened(browser, server, *screen) for screen in _screens()]
        title = f"{_MANY_OK + _MANY_NG} stored images, {_MANY_ROIS} ROIs: to the first picture on the screen"
        print_table(title, ("screen", "s", "requests for data"), rows)


def _frame(number: int) -> Image:
    """A camera's picture with the detail of real parts, each another one, uint8 [2048, 2448, 3]."""
    cells = [cv2.resize(cell, (612, 512), interpolation=cv2.INTER_CUBIC) for cell in solar_cells(16 + number)[number:]]
    rows = [np.hstack(cells[4 * row : 4 * row + 4]) for row in range(4)]
    return np.asarray(np.vstack(rows), np.uint8)


def _crop(frame: Image) -> Image:
    """The ROI that lies in the middle."""
    height, width = frame.shape[:2]
    top, left = (height - _SIDE) // 2, (width - _SIDE) // 2
    return np.ascontiguousarray(frame[top : top + _SIDE, left : left + _SIDE])


def _roi() -> dict[str, Any]:
    """In the middle of a camera's picture, in every picture."""
    centre = {"cx": _CAMERA[0] // 2, "cy": _CAMERA[1] // 2}
    return {"kind": "rect", **centre, "w": _SIDE, "h": _SIDE, "r": _SIDE // 2, "r_inner": _SIDE // 4, "angle_deg": 0}


def _put_layout(client: httpx.Client, rois: Sequence[dict[str, Any]]) -> None:
    layout = {"format": "roi-anomaly-console", "version": 1, "rois": rois}
    query = {"recipe_id": _ROI["recipe_id"]}
    known = client.get("/layout", params=query)
    headers = {"If-Match": known.headers["etag"]} if known.is_success else {"If-None-Match": "*"}
    client.put("/layout", params=query, json=layout, headers=headers).raise_for_status()


def _drawn(size: tuple[int, int], roi_id: str = _ROI["roi_id"]) -> dict[str, Any]:
    """A ROI of a layout."""
    ids = {"role_id": _ROI["role_id"], "roi_id": roi_id, "model_key": roi_id}
    picture = {"width": size[0], "height": size[1]}
    return {**ids, "name": roi_id, "mm_per_px": 1, "roi": _roi(), "picture": picture}


def _prepare(server: Server, frames: Sequence[Image]) -> None:
    """Draw, store, fit and choose a threshold, as the console does."""
    cut = json.dumps([_roi()[name] for name in ("kind", "cx", "cy", "w", "h", "angle_deg")], separators=(",", ":"))
    with server.client() as client:
        _put_layout(client, [_drawn(_CAMERA)])
        negatives = [255 - frame for frame in frames[:3]]
        for label, images in (("ok", frames), ("ng", negatives)):
            metas = [{"filename": f"{n}.png", "mm_per_px": 1, "console_cut": cut} for n in range(len(images))]
            files = [("images", (f"{n}.png", png(_crop(image)))) for n, image in enumerate(images)]
            form = _ROI | {"metas": json.dumps(metas)}
            client.post(f"/datasets/{label}/upload", data=form, files=files).raise_for_status()
        fit = _ROI | {"mm_per_px": "1", "use_dataset": "true", "profile": "recommended"}
        client.post("/fit_ok", files={name: (None, value) for name, value in fit.items()}).raise_for_status()
        body = _ROI | {"require_ng": False, "default_mm_per_px": 1, "rule": "recommended"}
        client.post("/calibrate_dataset", json=body).raise_for_status()


def _paints(browser: Any, server: Server) -> Iterator[tuple[str, str]]:
    """First paint with an empty cache and with a full one, in turn."""
    first = 'performance.getEntriesByName("first-contentful-paint").map(({ startTime }) => startTime)'
    found: dict[str, list[float]] = {"an empty": [], "a full": []}
    for _ in range(_PAINTS):
        with contextlib.closing(browser.new_context()) as context:
            for times in found.values():
                page = context.new_page()
                page.goto(server.address)
                expect(page.locator("h1")).to_be_visible()
                page.wait_for_timeout(200)
                times.extend(page.evaluate(first))
                page.close()
    for cache, times in found.items():
        yield f"first paint with {cache} cache, ms", at_most(_MOST_PAINT_MS, statistics.median(times))


@contextlib.contextmanager
def _inspecting(browser: Any, server: Server) -> Iterator[Page]:
    """The screen Inspect of the ROI, ready."""
    with contextlib.closing(browser.new_context(viewport={"width": 1440, "height": 1000})) as context:
        page = context.new_page()
        page.add_init_script(_RECORD)
        page.goto(_address(server, "inspect"))
        expect(page.get_by_text("Drop pictures or choose them below.")).to_be_visible(timeout=_PATIENCE_MS)
        page.wait_for_load_state("networkidle", timeout=_PATIENCE_MS)
        yield page


def _address(server: Server, screen: str) -> str:
    query = httpx.QueryParams(recipe=_ROI["recipe_id"], role=_ROI["role_id"], roi=_ROI["roi_id"])
    return f"{server.address}/#/{screen}?{query}"


def _choose(page: Page, files: Sequence[Path]) -> dict[str, Any]:
    """Choose files on Inspect and wait for their verdicts."""
    page.evaluate("Object.assign(window.record, { chosen: 0, verdicts: [] }), performance.clearResourceTimings()")
    page.locator("input[type=file][accept]").first.set_input_files(files)
    judged = page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(files), timeout=_PATIENCE_MS)
    record: dict[str, Any] = page.evaluate(f"({{ ...window.record, infer: {_INFER_MS} }})")
    page.get_by_role("button", name="Remove these pictures").click()
    expect(page.locator(".part")).to_have_count(0)
    return record


def _written(folder: Path, suffix: str, n: int) -> list[Path]:
    paths = [folder / f"{number}{suffix}" for number in range(n)]
    for number, path in enumerate(paths):
        if not path.exists():
            cv2.imwrite(str(path), _frame(number))
    return paths


def _drops(browser: Any, server: Server, folder: Path) -> Iterator[tuple[str, str]]:
    """One picture at a time, from the drop to its verdict, without the service's part."""
    with _inspecting(browser, server) as page:
        found: dict[str, list[float]] = {".jpg": [], ".png": []}
        for number in range(_DROPS):
            for suffix, times in found.items():
                record = _choose(page, [_written(folder, suffix, _FRAMES)[number]])
                (infer,) = record["infer"]
                if number:  # the first one warms up
                    times.append(record["verdicts"][-1] - record["chosen"] - infer)
    for suffix, times in found.items():
        what = f"a {suffix[1:].upper()} of {_CAMERA[0]}×{_CAMERA[1]}, drop to verdict without /infer, ms"
        yield what, at_most(_MOST_DROP_MS, statistics.median(times))


def _loop(browser: Any, server: Server, folder: Path) -> Iterator[tuple[str, str]]:
    """Many pictures one after the other, in the browser and by a client in Python, in turn."""
    files = _written(folder, ".jpg", _FRAMES)
    by_browser, by_client, ratios = [], [], []
    with _inspecting(browser, server) as page, server.client() as client:
        for number in range(_RUNS + 1):
            record = _choose(page, files)
            rates = (
                1000 * len(files) / (record["verdicts"][-1] - record["chosen"]),
                len(files) / _client_s(client, files),
            )
            if number:
                by_browser.append(rates[0])
                by_client.append(rates[1])
                ratios.append(rates[0] / rates[1])
    yield f"{_FRAMES} JPEGs in a row, frames a second, Python client", f"{statistics.median(by_client):.2f}"
    yield f"{_FRAMES} JPEGs in a row, frames a second, browser", f"{statistics.median(by_browser):.2f}"
    yield "browser over Python client", at_least(_LEAST_RATIO, statistics.median(ratios))


def _client_s(client: httpx.Client, files: Sequence[Path]) -> float:
    """Seconds in which a client in Python reads, cuts and has judged these files, one after the other."""
    begun = time.perf_counter()
    form = _ROI | {"mm_per_px": "1", "heatmap": "threshold", "why": "true", "trial": "true"}
    for path in files:
        frame = np.asarray(cv2.imread(str(path)), np.uint8)
        client.post("/infer", data=form, files={"image": (path.name, png(_crop(frame)))}).raise_for_status()
    return time.perf_counter() - begun


def _large(browser: Any, server: Server, folder: Path, suffix: str) -> tuple[str, ...]:
    """A picture at the limit: into the ROI's strip, and judged."""
    path = folder / f"large{suffix}"
    frame = _frame(0)
    repeated = np.tile(frame, (4, 4, 1))[: _LARGE[1], : _LARGE[0]]
    cv2.imwrite(str(path), repeated)
    with server.client() as client:
        _put_layout(client, [_drawn(_CAMERA), _drawn(_LARGE, "large")])
    with peak_mb() as peak, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.add_init_script(_RECORD)
        page.goto(f"{server.address}/#/roi?recipe=default&role=Inspection&roi=large")
        chooser = page.locator("input[type=file][accept]").first
        expect(page.get_by_text("Drop a folder of camera pictures here")).to_be_visible()
        begun = time.perf_counter()
        chooser.set_input_files(path)
        expect(page.locator(".strip-cell canvas")).to_be_visible(timeout=_PATIENCE_MS)
        to_crop = time.perf_counter() - begun
        with server.client() as client:
            _put_layout(client, [_drawn(_LARGE)])
        page.goto(_address(server, "inspect"))
        expect(page.get_by_text("Drop pictures or choose them below.")).to_be_visible(timeout=_PATIENCE_MS)
        to_verdict = _wait_for_verdict(page, path)
    with server.client() as client:
        _put_layout(client, [_drawn(_CAMERA)])
    return (
        suffix[1:].upper(),
        f"{path.stat().st_size / 1e6:.0f}",
        f"{to_crop:.1f}",
        f"{to_verdict:.1f}",
        f"{peak():.0f}",
    )


def _wait_for_verdict(page: Page, path: Path) -> float:
    """Seconds from the choice of a file to its verdict."""
    begun = time.perf_counter()
    page.locator("input[type=file][accept]").first.set_input_files(path)
    expect(page.locator(".part[data-word=ok], .part[data-word=ng]")).to_have_count(1, timeout=_PATIENCE_MS)
    return time.perf_counter() - begun


def _draw_many(server: Server) -> None:
    """ROIs enough for a long line."""
    with server.client() as client:
        others = [_drawn(_CAMERA, f"inspection-{number}") for number in range(2, _MANY_ROIS + 1)]
        _put_layout(client, [_drawn(_CAMERA), *others])


def _screens() -> tuple[tuple[str, str], ...]:
    """Screens, and what is there once a person can go on."""
    return ("samples", ".sample img"), ("threshold", ".near img"), ("line", ".card")


def _opened(browser: Any, server: Server, screen: str, ready: str) -> tuple[str, str, str]:
    """How long a screen takes until a person can go on, and what it asks the service for."""
    times, counts = [], []
    for _ in range(_RUNS):
        with contextlib.closing(browser.new_context(viewport={"width": 1440, "height": 1000})) as context:
            page = context.new_page()
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            begun = time.perf_counter()
            page.goto(_address(server, screen))
            expect(page.locator(ready).first).to_be_visible(timeout=_PATIENCE_MS)
            times.append(time.perf_counter() - begun)
            page.wait_for_load_state("networkidle", timeout=_PATIENCE_MS)
            counts.append(sum("/console/" not in url and not url.startswith("blob:") for url in asked))
    return screen, at_most(_MOST_OPEN_S, statistics.median(times)), f"{statistics.median(counts):.0f}"
