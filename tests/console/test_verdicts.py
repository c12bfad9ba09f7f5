"""Never a false OK: what takes a verdict away, and how fast; and what a key may see."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from backend import web
from harness.server import Server
from tests.console.line import FULL, INFER, NO_LAYOUT_YET, ROI, Parts, Serve, Watched, calibrate, done
from tests.console.page_time import pass_and_stop, take_over_time

_JUDGE_MS = 60_000
_MOST_S = 2.0
_MOST_REFUSED_S = 5.0


def inspecting(chromium: Any, server: Server, parts: Parts) -> Watched:
    """A page on which the first fresh part was judged."""
    watched = Watched(chromium, server)
    take_over_time(watched.page)
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
        pass_and_stop(watched.page, _MOST_S)
        expect(verdict).to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
        watched.page.clock.resume()
        if end is signal.SIGSTOP:
            os.kill(server.pid, signal.SIGCONT)
            expect(verdict).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
        else:
            expect(watched.page.get_by_text("no answer")).to_be_visible()
        allowed = [text for text in watched.complaints if text.startswith("ERR_")]
        watched.close(NO_LAYOUT_YET, *allowed)


def test_a_threshold_that_was_changed_judges_again_and_none_not(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = inspecting(chromium, judging, parts)
    verdict = watched.page.locator(".verdict")
    with judging.client() as client:
        calibrate(client, threshold=1.9)
        expect(verdict).to_have_attribute("data-word", "ok", timeout=_JUDGE_MS)
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


def test_a_changed_threshold_of_a_borrowed_model_judges_again(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = Watched(chromium, judging)
    watched.open("inspect", ROI | {"recipe_id": "line 2"})  # which has no model of its own
    watched.page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[:1])
    verdict = watched.page.locator(".verdict")
    expect(verdict).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    with judging.client() as client:
        for threshold, word in ((1.9, "ok"), (0.0001, "ng")):
            calibrate(client, threshold=threshold)
            expect(verdict).to_have_attribute("data-word", word, timeout=_JUDGE_MS)
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
    expect(page.locator(".sample").first).to_be_visible(timeout=_JUDGE_MS)
    changes = ("Good", "Bad", "Fit again", "Save", "Take the recommended", "Roll back", "It was good", "It is bad")
    there = {
        "samples": page.locator(".sample"),
        "threshold": page.locator(".stored strong"),
        "health": page.locator(".version").nth(1),
        "inspect": page.get_by_text("Drop pictures or choose them below."),
    }
    for screen, content in there.items():
        watched.open(screen)
        page.reload()
        expect(page.get_by_text("Key: may look and judge")).to_be_visible()
        expect(content.first).to_be_visible(timeout=_JUDGE_MS)
        buttons = [
            button.inner_text().strip()
            for button in page.get_by_role("main").get_by_role("button").all()
            if button.is_visible()
        ]
        assert [text for text in buttons if text in changes or text.startswith(changes[2:])] == [], screen
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[-1:])
    expect(page.locator(".verdict")).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    assert {request for request in sent if not request.startswith("GET")} == {"POST infer"}
    unauthorised = [text for text in watched.complaints if text.startswith("401 ")]
    watched.close(NO_LAYOUT_YET, *unauthorised)


def test_a_key_that_is_known_no_more_takes_the_verdict_away(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = inspecting(chromium, judging, parts)
    page = watched.page
    error = {"error": "the key is not known", "trace": "", "code": "unauthorized"}
    page.route("**/rois?*", lambda route: route.fulfill(status=401, json=error))
    pass_and_stop(page, _MOST_REFUSED_S)
    expect(page.locator(".verdict")).to_contain_text("not known which model and threshold", timeout=_JUDGE_MS)
    expect(page.locator(".verdict")).to_have_attribute("data-word", "none")
    page.clock.resume()
    page.unroute("**/rois?*")
    expect(page.locator(".verdict")).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    watched.close(NO_LAYOUT_YET, "401 /rois")


def test_while_the_service_is_too_busy_a_part_is_not_judged(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = Watched(chromium, judging)
    page = watched.page
    error = {"error": "busy", "trace": "", "code": "busy"}
    asked: list[float] = []

    def refuse_once(route: Any) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            return route.continue_()
        return route.fulfill(status=503, json=error, headers={"Retry-After": "2"})

    page.route("**/infer", refuse_once)
    watched.open("inspect")
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[:1])
    expect(page.get_by_text("busy (again in 2 s)")).to_be_visible(timeout=_JUDGE_MS)
    expect(page.locator(".verdict")).to_have_attribute("data-word", "none")
    expect(page.locator(".part")).to_have_attribute("data-word", "none")
    expect(page.locator(".verdict")).not_to_have_attribute("data-word", "none", timeout=_JUDGE_MS)
    assert asked[1] - asked[0] >= 2
    watched.close(NO_LAYOUT_YET, "503 /infer")


def test_where_pixels_are_noised_nothing_is_uploaded_or_judged(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = Watched(chromium, judging)
    page = watched.page
    read, noised = "getImageData(0, 0, box.width, box.height).data;", "map((value, k) => (k % 40 ? value : value ^ 1));"
    code = (Path(web.__file__).parent / "pixels" / "cutter.js").read_text(encoding="utf-8")
    assert code.count(read) == 1
    body = code.replace(read, read.replace(";", f".{noised}"))
    page.route("**/pixels/cutter.js", lambda route: route.fulfill(body=body, content_type="text/javascript"))
    sent: list[str] = []
    page.on("request", lambda request: request.method in ("POST", "PUT") and sent.append(request.url))
    for screen in ("roi", "samples"):
        watched.open(screen)
        expect(page.get_by_role("alert")).to_contain_text("Nothing is uploaded from here. This browser changes pixels")
    watched.open("inspect")
    expect(page.locator(".verdict")).to_contain_text("This browser changes pixels", timeout=_JUDGE_MS)
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[:1])
    expect(page.get_by_text("This browser changes pixels").nth(1)).to_be_visible()
    expect(page.locator(".verdict")).to_have_attribute("data-word", "none")
    assert sent == []
    watched.close(NO_LAYOUT_YET)
