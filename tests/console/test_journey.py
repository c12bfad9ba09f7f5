"""The whole journey in a real browser before the real service: from a folder to verdicts, by mouse and by keys."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Serve, Watched

_FIT_MS = 120_000
_STORE_MS = 30_000
_JUDGE_MS = 60_000


def test_a_folder_becomes_verdicts_and_no_reload_loses_anything(chromium: Any, serve: Serve, tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with serve(folder=tmp_path, INPUT_SIZE="448") as server:
        watched = Watched(chromium, server)
        page = watched.page
        page.goto(server.address)
        _begin(page)
        _draw(page, parts)
        _mark(page, parts)
        _fit(page)
        threshold = _choose_threshold(page)
        _inspect(page, parts)
        _move(page)
        _roll_back(page, threshold)
        watched.close(NO_LAYOUT_YET)


def _begin(page: Page) -> None:
    new = page.get_by_role("button", name="New ROI")
    new.focus()
    new.press("Enter")
    page.keyboard.press("Control+A")  # the name has the focus
    page.keyboard.type("Left half")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Drop a folder of camera pictures here")).to_be_visible()


def _draw(page: Page, parts: Parts) -> None:
    page.locator("input[webkitdirectory]").first.set_input_files(parts.folder)
    n_parts = len(parts.good) + len(parts.bad)
    expect(page.get_by_role("heading", name=f"The ROI in {n_parts} pictures")).to_be_visible(timeout=_STORE_MS)
    page.reload()
    expect(page.locator(".strip-cell")).to_have_count(n_parts, timeout=_STORE_MS)
    width = page.get_by_label("Width (px)")
    width.fill("280")
    width.press("Enter")
    page.get_by_label("Scale, mm per pixel").fill("0.25")
    stage = page.locator(".roi-stage")
    stage.focus()
    stage.press("ArrowRight")
    stage.press("Shift+ArrowLeft")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    centre = page.get_by_label("Centre x (px)").input_value()
    page.reload()
    expect(page.get_by_label("Width (px)")).to_have_value("280", timeout=_STORE_MS)
    expect(page.get_by_label("Centre x (px)")).to_have_value(centre)
    expect(page.get_by_label("Scale, mm per pixel")).to_have_value("0.25")
    expect(page.get_by_label("Name")).to_have_value("Left half")
    page.get_by_role("link", name="Mark good and bad").click()


def _mark(page: Page, parts: Parts) -> None:
    first = page.locator(".sample").first
    expect(first).to_be_visible(timeout=_STORE_MS)
    name = first.get_attribute("data-name") or ""
    is_bad = any(file.name == name for file in parts.bad)
    first.get_by_role("button", name="Bad" if is_bad else "Good").click()
    first.focus()
    page.keyboard.press("ArrowRight")
    second = page.locator(".sample:focus")
    second_name = second.get_attribute("data-name") or ""
    page.keyboard.press("n" if any(file.name == second_name for file in parts.bad) else "o")
    page.keyboard.press("Enter")
    large = page.get_by_role("dialog")
    expect(large.locator("img")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(large).to_be_hidden()
    page.reload()  # an upload may be on its way: it is neither lost nor stored twice
    again = page.locator(f'.sample[data-name="{name}"]')
    expect(again).to_have_count(1, timeout=_STORE_MS)
    expect(again).to_have_attribute("data-label", "ng" if is_bad else "ok")
    for folder, all_of_it in (("parts/good", "All good"), ("parts/bad", "All bad")):
        row = page.locator(".folder-row", has_text=folder)
        if row.count():
            row.get_by_role("button", name=all_of_it).click()
    expect(page.get_by_text("All decisions are stored")).to_be_visible(timeout=_STORE_MS)
    page.reload()
    expect(page.get_by_role("button", name=f"Good {len(parts.good)}")).to_be_visible(timeout=_STORE_MS)
    expect(page.get_by_role("button", name=f"Bad {len(parts.bad)}", exact=True)).to_be_visible()


def _fit(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Fit on")).click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.wait_for_timeout(1500)  # the request is with the service
    page.reload()  # the fit goes on, and the page says so
    expect(page.get_by_role("link", name="Set the threshold")).to_be_visible(timeout=_FIT_MS)
    page.get_by_role("link", name="Set the threshold").click()


def _choose_threshold(page: Page) -> str:
    with page.expect_request("**/calibrate_dataset"):
        page.get_by_role("button", name="Score the pictures and choose one").click()
    page.wait_for_timeout(500)  # the request is with the service
    page.reload()  # the scoring goes on, and its end is shown
    stored = page.locator(".stored strong")
    expect(stored).to_be_visible(timeout=_FIT_MS)
    recommended = stored.inner_text()
    line = page.get_by_role("slider", name="Threshold")
    before = page.locator(".sentence").inner_text()
    line.focus()
    for _ in range(6):
        line.press("Shift+ArrowRight")
    expect(page.locator(".sentence")).not_to_have_text(before)
    box = page.locator("score-histogram svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    page.mouse.up()
    typed = page.get_by_label("Threshold", exact=True).and_(page.locator("input"))
    dragged = float(typed.input_value())
    page.get_by_role("button", name="Save this threshold").click()
    expect(stored).to_have_text(f"Stored: {dragged:.4f}.", timeout=_FIT_MS)
    expect(page.get_by_text("What it promises")).to_be_visible()
    page.reload()
    expect(stored).to_have_text(f"Stored: {dragged:.4f}.", timeout=_STORE_MS)
    page.get_by_role("button", name="Take the recommended one").click()
    expect(stored).to_have_text(recommended, timeout=_FIT_MS)
    page.get_by_role("main").get_by_role("link", name="Inspect").click()
    return f"{dragged:.4f}"


def _inspect(page: Page, parts: Parts) -> None:
    replies: list[Any] = []
    page.on("response", lambda reply: reply.url.endswith("/infer") and replies.append(reply))
    expect(page.locator(".verdict")).to_have_attribute("data-word", "none")
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh)
    judged = page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(parts.fresh), timeout=_JUDGE_MS)
    words = [cell.get_attribute("data-word") for cell in page.locator(".part").all()]  # one at a time, in this order
    assert words == [reply.json()["decision"] for reply in replies]
    assert "ng" in words
    page.locator(".part[data-word=ng]").first.click()
    expect(page.locator(".verdict")).to_have_attribute("data-word", "ng")
    expect(page.locator(".heat path").first).to_be_attached()
    page.keyboard.press("w")
    expect(page.locator(".reason img").first).to_be_visible(timeout=_JUDGE_MS)
    page.get_by_role("button", name="It was good").click()
    expect(page.get_by_role("heading", name="If this part counts as good")).to_be_visible(timeout=_JUDGE_MS)
    page.get_by_role("button", name="Cancel").click()
    page.reload()
    expect(page.locator(".part")).to_have_count(len(parts.fresh), timeout=_STORE_MS)
    expect(page.locator(".verdict")).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)


def _move(page: Page) -> None:
    page.get_by_role("navigation").get_by_role("link", name="ROI").click()
    width = page.get_by_label("Width (px)")
    width.fill("270")
    width.press("Enter")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_STORE_MS)
    page.get_by_role("navigation").get_by_role("link", name="Inspect").click()
    expect(page.locator(".verdict")).to_contain_text("changed since the fit", timeout=_JUDGE_MS)
    expect(page.locator(".verdict")).to_have_attribute("data-word", "none")


def _roll_back(page: Page, threshold: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name="Health").click()
    version = page.locator(".version", has_text=f"Threshold {threshold}").and_(page.locator("[data-version]")).first
    version.get_by_role("button", name="Roll back to this").click()
    version.get_by_role("button", name="Yes, roll back").click()
    expect(page.locator(".version.now")).to_contain_text(f"Threshold {threshold}")


@pytest.mark.parametrize("size", [(390, 844), (1280, 800), (2560, 1300)], ids=lambda size: f"{size[0]} px")
def test_every_screen_fits_every_width(
    chromium: Any, judging: Any, parts: Parts, size: tuple[int, int], tmp_path: Path
) -> None:
    watched = Watched(chromium, judging, color_scheme="dark" if size[0] == 390 else "light")
    page = watched.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for screen in ("line", "roi", "samples", "threshold", "inspect", "live", "health"):
        watched.open(screen, ROI)
        expect(page.locator("h1")).to_be_attached()
        page.wait_for_timeout(700)
        page.screenshot(path=tmp_path / f"{screen}-{size[0]}.png", full_page=True)
        for part in ("html", "main"):
            assert page.locator(part).evaluate("(node) => node.scrollWidth - node.clientWidth") == 0, (screen, part)
        small = page.evaluate(
            """[...document.querySelectorAll("button, a, input, select")].filter((e) => {
              const { width, height } = e.getBoundingClientRect();
              const box = e.closest("label")?.getBoundingClientRect() ?? { height };
              return width > 1 && e.checkVisibility() && !e.matches("h2 a, .skip") && Math.max(height, box.height) < 44;
            }).map((e) => e.outerHTML.slice(0, 90))"""
        )
        assert small == [], screen
    watched.close(NO_LAYOUT_YET)
