"""A ROI with ten thousand stored images: Samples and Threshold stay usable, and ask for what is looked at alone."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from harness.browser import processor_s
from harness.crowd import crowd
from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Serve, Watched, done

N_OK, N_NG = 9_000, 1_000
PER_PAGE = 200
_NEAREST = 12
_LOAD_MS = 60_000
_MOST_PROCESSOR_S = 15
"""Of service and browser until the first picture is seen: five times what a quiet machine needs."""


class Crowded:
    """A service with many images.

    Attributes:
        server: it.
        scores: by the names of all images that have one, as they were uploaded.
        n: how many images of each class there are.
    """

    def __init__(self, server: Server, scores: dict[str, float]) -> None:
        self.server = server
        self.scores = scores
        with server.client() as client:
            listed = done(client.get("/datasets/list", params=ROI))["classes"]
        self.n = {label: len(listed[label]["files"]) for label in ("ok", "ng")}


@pytest.fixture(scope="module")
def crowded(models: Path, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowded]:
    folder = tmp_path_factory.mktemp("crowd")
    shutil.copytree(models, folder / "models")
    scores = crowd(folder / "models", ROI, N_OK, N_NG)
    with serve(folder=folder) as server:
        yield Crowded(server, scores)


def requests_of(page: Page) -> Counter[str]:
    """Counts what a page asks of the service from now on, by path."""
    asked: Counter[str] = Counter()

    def count(request: Any) -> None:
        url = httpx.URL(request.url)
        if url.scheme == "http":
            asked[url.path] += 1

    page.on("request", count)
    return asked


def test_samples_of_ten_thousand_are_paged_marked_and_found(chromium: Any, crowded: Crowded) -> None:
    watched = Watched(chromium, crowded.server)
    page = watched.page
    asked = requests_of(page)
    before = processor_s()
    watched.open("samples")
    cells = page.locator(".sample")
    expect(cells.first.locator("img")).to_be_visible(timeout=_LOAD_MS)
    assert processor_s() - before < _MOST_PROCESSOR_S
    expect(cells).to_have_count(PER_PAGE)
    page.wait_for_load_state("networkidle")
    assert asked["/datasets/list"] == 1
    assert 0 < asked["/datasets/file"] < PER_PAGE / 2  # those in sight, and a few more

    total = crowded.n["ok"] + crowded.n["ng"]
    shown = page.get_by_label("Pictures shown").first
    expect(shown.locator("option:checked")).to_have_text(f"1–200 of {total}")
    cells.nth(PER_PAGE - 1).scroll_into_view_if_needed()
    expect(cells.nth(PER_PAGE - 1).locator("img")).to_be_visible(timeout=_LOAD_MS)
    cells.first.focus()
    page.keyboard.press("End")
    last = page.locator(".sample:focus")
    expect(last).to_have_attribute("data-label", "ng")
    expect(cells).to_have_count((total - 1) % PER_PAGE + 1)
    expect(last.locator("img")).to_be_visible(timeout=_LOAD_MS)
    name = last.get_attribute("data-name")
    page.keyboard.press("o")
    expect(page.get_by_role("button", name=f"Good {crowded.n['ok'] + 1}")).to_be_visible(timeout=_LOAD_MS)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Home")
    expect(shown).to_have_value("0")

    page.get_by_role("button", name="Next page").first.click()
    expect(page.locator(".sample:focus")).to_have_attribute("data-id", re.compile("."))
    expect(shown.locator("option:checked")).to_have_text(f"201–400 of {total}")
    page.get_by_role("button", name=re.compile("^Bad ")).and_(page.locator(".chip")).click()
    expect(shown.locator("option:checked")).to_have_text(f"1–200 of {crowded.n['ng'] - 1}")
    find = page.get_by_label("Find by name")
    find.fill("NG-00")
    expect(page.locator('.sample:not([data-name^="ng-00"])')).to_have_count(0)
    page.locator(".chip", has_text="All").click()
    find.fill(str(name))
    expect(cells).to_have_count(1)
    expect(cells).to_have_attribute("data-label", "ok")
    find.fill("nobody")
    expect(page.get_by_text("No picture has “nobody” in its name.")).to_be_visible()
    assert asked["/datasets/file"] < 2.5 * PER_PAGE
    assert asked["/datasets/list"] == 1
    with crowded.server.client() as client:
        listed = done(client.get("/datasets/list", params=ROI))["classes"]
        assert len(listed["ok"]["files"]) == crowded.n["ok"] + 1
        back = next(file for file, uploaded_as in listed["ok"]["uploaded_as"].items() if uploaded_as == name)
        done(client.post("/datasets/move", json=ROI | {"label": "ok", "filename": back, "to": "ng"}))
    watched.close(NO_LAYOUT_YET)


def test_the_threshold_counts_each_of_ten_thousand_scores(chromium: Any, crowded: Crowded) -> None:
    watched = Watched(chromium, crowded.server)
    page = watched.page
    before = processor_s()
    watched.open("threshold")
    expect(page.locator(".near img").first).to_be_visible(timeout=_LOAD_MS)
    assert processor_s() - before < _MOST_PROCESSOR_S
    with crowded.server.client() as client:
        known = done(client.get("/datasets/scores", params=ROI | {"limit": 10_000, "label": "ng"}))
        good = [score for name, score in crowded.scores.items() if name.startswith("ok-")]
        bad = [image["score"] for image in known["images"]]
        assert len(bad) == crowded.n["ng"]
    expect(page.locator(".screen-head")).to_contain_text(f"{crowded.n['ok']} good and {crowded.n['ng']} bad pictures")

    field = page.get_by_label("Threshold", exact=True).and_(page.locator("input"))
    field.fill("0.49")
    rejected = sum(score >= 0.49 for score in good) + crowded.n["ok"] - N_OK  # the real good ones score higher
    escaped = sum(score < 0.49 for score in bad)
    expect(page.locator(".sentence")).to_contain_text(f"At 0.4900, {rejected} of {crowded.n['ok']} good pictures")
    expect(page.locator(".sentence")).to_contain_text(f"{escaped} of {crowded.n['ng']} bad pictures pass.")
    _expect_nearest(page, 0.49, [*good, *bad])

    asked = requests_of(page)
    box = page.locator("score-histogram svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(60):  # past hundreds of pictures
        page.mouse.move(box["x"] + box["width"] * (0.2 + step / 200), box["y"] + box["height"] / 2)
    page.mouse.up()
    dragged = float(field.input_value())
    assert 0.55 < dragged < 0.7  # below the real good ones
    _expect_nearest(page, dragged, [*good, *bad])
    assert 0 < asked["/datasets/file"] < 300
    watched.close(NO_LAYOUT_YET)


def _expect_nearest(page: Page, threshold: float, scores: list[float]) -> None:
    """The twelve pictures below, and the twelve above."""
    every = np.sort(scores)
    at = int(np.searchsorted(every, threshold))
    sides = every[at - _NEAREST : at][::-1], every[at : at + _NEAREST]
    for side, nearest in zip(page.locator(".near").all(), sides, strict=True):
        expect(side.locator("figcaption .num")).to_have_text([f"{score:.4f}" for score in nearest])
        expect(side.locator("img")).to_have_count(len(nearest), timeout=_LOAD_MS)
