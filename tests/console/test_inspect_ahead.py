"""Inspect loses no time: a picture is opened once, and a part is cut while the service judges the one before."""

from typing import Any

import cv2
from playwright.sync_api import Page, expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Watched

_JUDGE_MS = 60_000
_REST_MS = 500
# What the page has the worker do, by the names of cutter.js.
_POSTED = """window.posted = [];
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...more) {
  window.posted.push(message.name);
  return post.call(this, message, ...more);
};"""


def _draw_half(server: Server, parts: Parts) -> None:
    """A ROI half as wide as the pictures, so that each has to be cut."""
    height, width = cv2.imread(str(parts.fresh[0])).shape[:2]
    roi = {
        "kind": "rect",
        "cx": width // 2,
        "cy": height // 2,
        "w": width // 4 * 2,
        "h": height // 4 * 2,
        "angle_deg": 0,
    }
    drawn = {"name": "half", "mm_per_px": 1, "roi": roi, "picture": {"width": width, "height": height}}
    ids = {name: ROI[name] for name in ("role_id", "roi_id", "model_key")}
    layout = {"format": "roi-anomaly-console", "version": 1, "rois": [ids | drawn]}
    with server.client() as client:
        reply = client.put(
            "/layout", params={"recipe_id": ROI["recipe_id"]}, json=layout, headers={"If-None-Match": "*"}
        )
        assert reply.is_success, reply.text


def _posted(page: Page, name: str) -> int:
    posted: list[str] = page.evaluate("window.posted")
    return posted.count(name)


def test_the_next_part_is_cut_while_the_service_judges(chromium: Any, judging: Server, parts: Parts) -> None:
    _draw_half(judging, parts)
    watched = Watched(chromium, judging)
    page = watched.page
    page.add_init_script(_POSTED)
    held: list[Any] = []
    page.route("**/infer", lambda route: route.continue_() if held else held.append(route))
    watched.open("inspect")
    expect(page.get_by_text("Drop pictures or choose them below.")).to_be_visible(timeout=_JUDGE_MS)
    n_opened, n_cut = _posted(page, "open"), _posted(page, "cut")  # by the test of the browser
    files = parts.fresh[:3]
    with page.expect_request("**/infer"):
        page.locator("input[type=file][accept]").first.set_input_files(files)
    expect(page.locator(".part")).to_have_count(len(files), timeout=_JUDGE_MS)
    page.wait_for_timeout(_REST_MS)
    assert len(held) == 1
    assert _posted(page, "cut") == n_cut + 2  # the part that is judged, and the next one alone
    held[0].continue_()
    expect(page.locator(".part[data-word=ok], .part[data-word=ng]")).to_have_count(len(files), timeout=_JUDGE_MS)
    assert _posted(page, "cut") == n_cut + len(files)
    assert _posted(page, "open") == n_opened + len(files)
    watched.close(NO_LAYOUT_YET)
