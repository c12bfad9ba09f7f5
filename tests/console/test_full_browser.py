"""A browser that has no room, or whose data somebody deletes: nothing is lost, and the work goes on."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Watched, done, drawing

_WORK_MS = 120_000
_FILL = """() => {
  for (let size = 2 ** 22, n = 0; size >= 1; size = Math.floor(size / 2)) {
    try {
      for (;;) localStorage.setItem(`filled ${n++}`, "x".repeat(size));
    } catch (problem) { localStorage.removeItem(`filled ${n}`); }
  }
}"""


def test_a_roi_that_is_drawn_without_room_for_drafts_is_not_lost(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = drawing(chromium, judging, parts)
    page = watched.page
    page.evaluate(_FILL)
    refuse = re.compile(r"/layout\?")
    page.route(refuse, lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    width = page.get_by_label("Width (px)")
    width.fill("300")
    width.press("Enter")
    expect(page.get_by_text("no room to keep it: leave this page open")).to_be_visible(timeout=_WORK_MS)
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    navigation = page.get_by_role("navigation")
    navigation.get_by_role("link", name="Samples").click()
    expect(page.get_by_role("heading", name="Samples")).to_be_visible()
    page.unroute(refuse)
    navigation.get_by_role("link", name="ROI").click()
    expect(width).to_have_value("300", timeout=_WORK_MS)
    expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_WORK_MS)
    with judging.client() as client:
        layout = done(client.get("/layout", params={"recipe_id": ROI["recipe_id"]}))
    assert [roi["roi"]["w"] for roi in layout["rois"]] == [300]
    watched.close(NO_LAYOUT_YET, "ERR_FAILED /layout")


def test_a_fit_begins_without_room_to_remember_it(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("samples")
    fit = watched.page.get_by_role("button", name=re.compile("^Fit again on"))
    expect(fit).to_be_visible(timeout=_WORK_MS)
    watched.page.evaluate(_FILL)
    fit.click()
    expect(watched.page.get_by_text("Fitted on 10 good pictures.")).to_be_visible(timeout=_WORK_MS)
    watched.close(NO_LAYOUT_YET)


def test_pictures_are_kept_after_the_data_of_the_page_were_deleted(
    chromium: Any, judging: Server, parts: Parts
) -> None:
    watched = drawing(chromium, judging, parts)
    page = watched.page
    page.context.new_cdp_session(page).send(
        "Storage.clearDataForOrigin", {"origin": watched.address, "storageTypes": "indexeddb"}
    )
    page.locator("input[type=file][accept]").first.set_input_files(parts.good[2:4])
    _expect_cells(page, parts, (0, 1, 2, 3))
    page.reload()
    _expect_cells(page, parts, (2, 3))
    watched.close(NO_LAYOUT_YET)


def _expect_cells(page: Page, parts: Parts, numbers: tuple[int, ...]) -> None:
    """The strip shows these pictures."""
    expect(page.locator(".strip-name")).to_have_text([parts.good[number].name for number in numbers], timeout=_WORK_MS)
