"""What the console says while a person works never lies over what the person works with."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from harness.server import Server
from tests.console.line import FULL, NO_LAYOUT_YET, ROI, Watched

_LOAD_MS = 60_000
_N_SAID = 3
# Controls in the part of the page that is seen, and what else lies over their middles.
_COVERED = """() => {
  const main = document.querySelector("main").getBoundingClientRect();
  const covered = [];
  for (const control of document.querySelectorAll("button, a, input, select, .sample")) {
    if (!control.checkVisibility() || control.matches(".skip")) continue;
    const { left, top, width, height } = control.getBoundingClientRect();
    const [x, y] = [left + width / 2, top + height / 2];
    if (control.closest("main") && (y < main.top || y > main.bottom)) continue;
    const above = document.elementFromPoint(x, y);
    if (!control.contains(above) && !control.closest("label")?.contains(above)) covered.push(control.outerHTML);
  }
  return covered;
}"""


@pytest.mark.parametrize("size", [(390, 844), (760, 600), (1440, 1000), (2560, 1300)], ids=lambda size: f"{size[0]} px")
def test_messages_cover_no_control(size: tuple[int, int], chromium: Any, locked: Server, tmp_path: Path) -> None:
    watched = Watched(chromium, locked, color_scheme="light")
    page = watched.page
    page.add_init_script(f"sessionStorage.setItem('roi-anomaly-key', '{FULL}')")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    watched.open("samples", ROI)
    samples = page.locator(".sample")
    samples.nth(_N_SAID).wait_for(timeout=_LOAD_MS)
    for number in range(_N_SAID):
        samples.nth(number).focus()
        samples.nth(number).press("u")  # of the service alone, so it cannot be undecided
    expect(page.locator(".message")).to_have_count(_N_SAID)
    for sample in (samples.first, samples.last):
        sample.focus()
        sample.press("ArrowRight")
        page.screenshot(path=tmp_path / f"{size[0]}.png")
        assert page.evaluate(_COVERED) == []
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    page.locator(".message button").first.click()
    expect(page.locator(".message")).to_have_count(_N_SAID - 1)
    watched.close(NO_LAYOUT_YET)
