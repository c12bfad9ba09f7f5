"""Never a false OK: what takes a verdict away, and how fast; and what a key may see."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from harness.server import Server
from tests.console.line import FULL, INFER, NO_LAYOUT_YET, ROI, Parts, Serve, Watched, calibrate, done

_JUDGE_MS = 60_000
_MOST_S = 2.0


def inspecting(chromium: Any, server: Server, parts: Parts) -> Watched:
    """A page on which the first fresh part was judged."""
    watched = Watched(chromium, server)
    watched.open("inspect")
    watched.page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[:1])
    expect(watched.page.locator(".verdict")).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    return watched


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["it is killed", "it hangs"])
def test_the_verdict_turns_within_two_seconds_when(
    end: signal.Signals, chromium: Any, models: Path, serve: Serve, parts: Parts
) -> None:
    with serve(MODELS_DIR=str(models)) as server:
        watched = inspecting(chromium, server, parts)
        verdict = watched.page.locator(".verdict")
        os.kill(server.pid, end)
        start = time.monotonic()
        expect(verdict).to_have_attribute("data-word", "none", timeout=10_000)
        seconds = time.monotonic() - start
        if end is signal.SIGSTOP:
            os.kill(server.pid, signal.SIGCONT)
            expect(verdict).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
        else:
            expect(watched.page.get_by_text("no answer")).to_be_visible()
        allowed = [text for text in watched.complaints if text.startswith("ERR_")]
        watched.close(NO_LAYOUT_YET, *allowed)
        assert seconds < _MOST_S


def test_a_threshold_that_was_changed_judges_again_and_none_not(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = inspecting(chromium, judging, parts)
    verdict = watched.page.locator(".verdict")
    with judging.client() as client:
        calibrate(client, threshold=0.0001)
        expect(verdict).to_have_attribute("data-word", "ng", timeout=_JUDGE_MS)
        versions = done(client.get("/versions", params=ROI))["versions"]
        uncalibrated = next(version["version"] for version in versions if not version["calibrated"])
        done(client.post("/rollback", json=ROI | {"version": uncalibrated}))
        expect(verdict).to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
        expect(verdict).to_contain_text("no threshold")
        calibrate(client)
        expect(verdict).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    watched.close(NO_LAYOUT_YET)


def test_where_there_are_keys_the_page_asks_and_keeps_it_out_of_urls(chromium: Any, locked: Server) -> None:
    watched = Watched(chromium, locked)
    page = watched.page
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(locked.address)
    field = page.get_by_label("Key", exact=True)
    field.fill("a-key-that-nobody-knows")
    field.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("does not know this key")
    field = page.get_by_label("Key", exact=True)
    field.fill(FULL)
    field.press("Enter")
    expect(page.get_by_role("button", name="New ROI")).to_be_visible()
    page.reload()
    expect(page.get_by_text("1 ROI")).to_be_visible()
    assert [url for url in urls if FULL in url] == []
    fresh = watched.tab()
    fresh.goto(locked.address)
    expect(fresh.get_by_role("dialog")).to_be_visible()  # another tab has no key
    unauthorised = [text for text in watched.complaints if text.startswith("401 ")]
    watched.close(NO_LAYOUT_YET, *unauthorised)


def test_a_key_that_may_only_infer_judges_and_sees_no_changes(chromium: Any, locked: Server, parts: Parts) -> None:
    watched = Watched(chromium, locked)
    page = watched.page
    page.goto(locked.address)
    field = page.get_by_label("Key", exact=True)
    field.fill(INFER)
    field.press("Enter")
    expect(page.get_by_text("Key: may look and judge")).to_be_visible()
    expect(page.get_by_role("button", name="New ROI")).to_be_hidden()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url.rpartition('/')[2]}"))
    watched.open("samples")
    expect(page.locator(".sample").first).to_be_visible()
    changes = ("Good", "Bad", "Fit again", "Save", "recommended", "Roll back", "It was good", "It is bad")
    for screen in ("samples", "threshold", "health", "inspect"):
        watched.open(screen)
        page.reload()
        expect(page.get_by_text("Key: may look and judge")).to_be_visible()
        page.wait_for_timeout(800)
        buttons = [
            button.inner_text()
            for button in page.get_by_role("main").get_by_role("button").all()
            if button.is_visible()
        ]
        assert [text for text in buttons if text.strip() in changes or text.startswith(changes[2:])] == [], screen
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[-1:])
    expect(page.locator(".verdict")).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    assert {request for request in sent if not request.startswith("GET")} == {"POST infer"}
    unauthorised = [text for text in watched.complaints if text.startswith("401 ")]
    watched.close(NO_LAYOUT_YET, *unauthorised)
