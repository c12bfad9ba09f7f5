"""Screens of a ROI to which something is missing: pictures, a model, a threshold, or the service."""

from typing import Any

from playwright.sync_api import expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Watched, done

_LOAD_MS = 30_000
_JUDGE_MS = 60_000
_NEW = ROI | {"roi_id": "new", "model_key": "new"}


def test_each_screen_of_a_new_roi_leads_to_what_comes_first(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    main = watched.page.get_by_role("main")
    for screen, link in (("samples", "Add pictures on ROI"), ("threshold", "Samples"), ("health", "Samples")):
        watched.open(screen, _NEW)
        expect(main.get_by_role("link", name=link)).to_be_visible(timeout=_LOAD_MS)
    watched.open("inspect", _NEW)
    expect(watched.page.locator(".verdict")).to_contain_text("not fitted yet", timeout=_LOAD_MS)
    main.get_by_role("link", name="Go to Samples").click()
    expect(main.get_by_role("heading", name="Samples")).to_be_visible()
    watched.close(NO_LAYOUT_YET)


def test_a_sample_of_the_service_alone_is_never_undecided(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("samples")
    sample = watched.page.locator(".sample[data-label=ok]").first
    sample.focus(timeout=_LOAD_MS)
    name = sample.get_attribute("data-name")
    sample.press("u")
    expect(watched.page.get_by_text("in the service alone")).to_be_visible()
    same = watched.page.locator(f'.sample[data-name="{name}"]')
    expect(same).to_have_attribute("data-label", "ok")
    same.press("n")
    expect(same).to_have_attribute("data-label", "ng")
    watched.page.reload()
    expect(same).to_have_attribute("data-label", "ng", timeout=_LOAD_MS)
    watched.close(NO_LAYOUT_YET)


def test_without_a_threshold_no_part_in_the_list_stays_green(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = Watched(chromium, judging)
    watched.open("inspect")
    watched.page.locator("input[type=file][accept]").first.set_input_files(parts.good)
    judged = watched.page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(parts.good), timeout=_JUDGE_MS)
    with judging.client() as client:
        versions = done(client.get("/versions", params=ROI))["versions"]
        uncalibrated = next(version["version"] for version in versions if not version["calibrated"])
        done(client.post("/rollback", json=ROI | {"version": uncalibrated}))
    expect(judged).to_have_count(0, timeout=_LOAD_MS)
    expect(watched.page.get_by_text(f"OK 0 · NG 0 · not judged {len(parts.good)}")).to_be_visible()
    expect(watched.page.get_by_role("main").get_by_role("link", name="Set the threshold")).to_be_visible()
    watched.close(NO_LAYOUT_YET)


def test_a_screen_opened_without_the_service_comes_with_it(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("line")
    expect(watched.page.locator(".card")).to_be_visible(timeout=_LOAD_MS)
    watched.page.wait_for_load_state("networkidle")
    watched.context.set_offline(True)
    watched.open("threshold")
    expect(watched.page.get_by_role("heading", name="Threshold", exact=True)).to_be_visible()
    expect(watched.page.get_by_text("The service does not answer. Check that it runs")).to_be_visible()
    watched.context.set_offline(False)
    expect(watched.page.locator(".stored strong")).to_be_visible(timeout=_LOAD_MS)
    allowed = [text for text in watched.complaints if text.startswith("ERR_")]
    watched.close(NO_LAYOUT_YET, *allowed)
