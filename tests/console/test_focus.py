"""Who works by keys is not sent to the top of the page when the button that they pressed goes."""

from typing import Any

from playwright.sync_api import Locator, expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, Parts, Watched

_LOAD_MS = 30_000
_WORK_MS = 120_000


def press(button: Locator) -> None:
    expect(button).to_be_enabled(timeout=_LOAD_MS)
    button.focus()
    button.press("Enter")


def test_focus_stays_where_it_was_when_the_pressed_button_goes(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = Watched(chromium, judging)
    page = watched.page
    main = page.get_by_role("main")

    watched.open("samples")
    press(main.get_by_role("button", name="Fit again on"))
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator(".fit:focus-within")).to_be_visible()
    expect(main.get_by_role("button", name="Fit again on")).to_be_visible(timeout=_WORK_MS)
    expect(page.locator(".fit:focus-within")).to_be_visible()

    watched.open("threshold")
    press(main.get_by_role("button", name="Take the recommended one"))
    expect(page.get_by_text("applies now")).to_be_visible(timeout=_WORK_MS)
    expect(page.locator(".screen:focus-within")).to_be_visible()

    watched.open("health")
    press(main.get_by_role("button", name="Roll back to this").first)
    press(main.get_by_role("button", name="Cancel"))
    expect(main.get_by_role("button", name="Roll back to this").first).to_be_focused()

    watched.open("inspect")
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[:1])
    press(main.get_by_role("button", name="It is bad"))
    press(page.locator(".feedback").get_by_role("button", name="Cancel"))
    page.keyboard.press("Tab")
    expect(main.get_by_role("button", name="It was good")).to_be_focused()
    press(main.get_by_role("button", name="Why?"))
    press(main.get_by_role("button", name="Close the reasons"))
    expect(main.get_by_role("button", name="Why?")).to_be_focused()
    press(main.get_by_role("button", name="Remove these pictures"))
    expect(main.get_by_role("button", name="Choose a folder")).to_be_focused()
    watched.close(NO_LAYOUT_YET)
