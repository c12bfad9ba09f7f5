"""A live line in a real browser before the real service: nothing lost, nothing twice, no verdict of another part."""

import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from harness.images import png
from harness.pages import pages
from harness.server import Server, free_port
from harness.two_cells import ROIS, ids, pictures
from tests.console.conftest import PAGES, visit_in_firefox
from tests.console.line import Serve, done, on_port
from tests.console.live import JUDGE_MS, Live, line_of_two_cells, words
from tests.console.page_time import pass_and_stop, take_over_time

_MOST_S = 2.0
PICTURES = pictures(12)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Path:
    """A models folder with the recipe of two cells; its tests only read it."""
    folder = tmp_path_factory.mktemp("two-cells")
    with line_of_two_cells(serve, folder):
        return folder / "models"


@pytest.fixture(scope="module")
def line(models: Path, serve: Serve) -> Iterator[Server]:
    """A service on `models`."""
    with serve(MODELS_DIR=str(models)) as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """`PICTURES` as files."""
    folder = tmp_path_factory.mktemp("frames")
    return [picture.write(folder) for picture in PICTURES]


def scores(server: Server, count: int) -> dict[tuple[str, str], Any]:
    """What a client in Python gets for the crops of the first pictures."""
    found = {}
    with server.client() as client:
        for picture in PICTURES[:count]:
            for roi in ROIS:
                form = ids(roi) | {"mm_per_px": "1", "trial": "true"}
                reply = client.post("/infer", data=form, files={"image": ("crop.png", png(picture.crops[roi]))})
                found[picture.name, roi] = essence(done(reply))
    return found


def essence(said: dict[str, Any]) -> dict[str, Any]:
    """What an answer decides by."""
    return {name: said[name] for name in ("score", "decision", "threshold")}


def test_each_file_is_judged_once_in_order_as_python_judges_it(chromium: Any, line: Server, files: list[Path]) -> None:
    live = Live(chromium, line)
    live.show()
    expect(live.verdict()).to_have_attribute("data-word", "none")
    live.drop(list(reversed(files[:6])))
    live.is_judged(6)
    assert live.parts() == words(PICTURES[:6])
    assert {which: essence(said) for which, said in live.answered().items()} == scores(line, 6)
    assert len(live.asked) == 12
    for roi in ROIS:
        own = [asked for asked in live.asked if asked.roi == roi]
        assert all(before.answered_at <= later.at for before, later in itertools.pairwise(own))
    assert {asked.trial for asked in live.asked} == {"false"}  # each counts as a part
    expect(live.verdict()).to_have_text("NGRight")  # part 5: any ROI that is NG
    assert [tile.get_attribute("data-word") for tile in live.page.locator(".tile").all()] == ["ok", "ng"]
    assert live.facts().startswith("OK 3 · NG 3 · not judged 0 · ")
    assert live.facts().endswith(" · 0 pictures wait")
    live.page.locator(".tile", has_text="Right").click()
    expect(live.page.get_by_role("heading", name="Scores of Right")).to_be_visible()
    assert live.page.locator(".run-ng").count() == 2
    assert live.page.locator(".run-ok").count() == 4
    assert "3 of them" not in (live.page.locator(".run-chart").get_attribute("aria-label") or "")
    live.page.locator('.part[data-word="ok"]').first.click()
    expect(live.verdict()).to_have_attribute("data-word", "ok")
    live.page.get_by_role("button", name="It is bad").click()
    expect(live.page.get_by_role("heading", name="If this part counts as bad")).to_be_visible(timeout=JUDGE_MS)
    live.close()


def test_of_a_recording_that_is_too_quick_the_newest_picture_wins(
    chromium: Any, line: Server, files: list[Path]
) -> None:
    live = Live(chromium, line)
    live.show()
    live.choose("Folder that plays a camera")
    live.page.get_by_label("Pictures a second").fill("20")
    live.page.get_by_label("Over and over").uncheck()
    live.page.locator("input[type=file][accept]").set_input_files(files)
    expect(live.page.get_by_text("No more pictures in 12 files.")).to_be_visible(timeout=JUDGE_MS)
    names = [name for name, _ in live.parts()]
    assert names == sorted(names)
    assert names[0] == PICTURES[0].name
    assert names[-1] == PICTURES[-1].name
    assert len(names) < len(files)
    assert f"{len(files) - len(names)} pictures passed over" in live.facts()
    live.close()


def test_a_service_that_is_killed_loses_no_part_and_repeats_none(
    chromium: Any, serve: Serve, models: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with on_port(serve, port, models, monkeypatch) as server:
        live = Live(chromium, server)
        held: list[Any] = []
        live.refuse = lambda number, route: number == 7 and not held.append(route)  # the first about the fourth part
        take_over_time(live.page)
        live.show()
        live.drop(files)
        live.is_asked(7)
        live.is_judged(3)
        server.process.kill()
        held[0].continue_()
        pass_and_stop(live.page, _MOST_S)
        expect(live.verdict()).to_have_attribute("data-word", "none", timeout=JUDGE_MS)
        expect(live.verdict()).to_contain_text("does not answer")
        live.page.clock.resume()
        before = len(live.parts())
        live.page.wait_for_timeout(1500)
        assert len(live.parts()) == before  # nothing is taken for judged meanwhile
    with on_port(serve, port, models, monkeypatch):
        live.is_judged(len(files))
        assert live.parts() == words(PICTURES)
        # A part of which one ROI was NG when the service was killed needs no other answer.
        answers = Counter(name for name, _ in live.answered())
        assert all(answers[name] == 2 if word == "ok" else answers[name] >= 1 for name, word in live.parts())
        refused = [text for text in live.complaints if text.startswith("ERR_")]
        live.close(*refused)


def test_a_busy_service_is_asked_again_when_it_says_so(chromium: Any, line: Server, files: list[Path]) -> None:
    live = Live(chromium, line)

    def refuse(number: int, route: Any) -> bool:
        if number not in (2, 3):
            return False
        status, code = (503, "busy") if number == 2 else (429, "too_many_requests")
        error = {"error": f"refused as {code}", "trace": "", "code": code}
        route.fulfill(status=status, json=error, headers={"Retry-After": "3"})
        return True

    live.refuse = refuse
    live.show()
    live.drop(files[:2])
    expect(live.verdict()).to_contain_text("asked again in", timeout=JUDGE_MS)
    expect(live.verdict()).to_have_attribute("data-word", "none")
    live.is_judged(2)
    assert live.parts() == words(PICTURES[:2])
    first, second = (picture.name for picture in PICTURES[:2])
    order = [(asked.name, asked.roi) for asked in live.asked]
    assert order == [(first, "left"), *[(first, "right")] * 3, (second, "left"), (second, "right")]
    assert [later.at - before.at >= 3 for before, later in itertools.pairwise(live.asked[1:4])] == [True, True]
    live.close("503 /infer", "429 /infer")


def test_a_picture_that_cannot_be_judged_says_why_and_the_line_goes_on(
    chromium: Any, line: Server, files: list[Path], tmp_path: Path
) -> None:
    damaged, other = tmp_path / "a-damaged.png", tmp_path / "b-other.png"
    damaged.write_bytes(PICTURES[0].png[:5000])
    other.write_bytes(png(PICTURES[0].crops["left"]))
    live = Live(chromium, line)
    live.show()
    live.drop([damaged, other, files[0]])
    live.is_judged(3)
    assert live.parts() == [(damaged.name, "none"), (other.name, "none"), (files[0].name, "ok")]
    assert live.facts().startswith("OK 1 · NG 0 · not judged 2 · ")
    assert {asked.name for asked in live.asked} == {files[0].name}
    for file, reason in ((damaged, "The file is damaged"), (other, "has 300 × 300 pixels")):
        live.page.locator(f'.part[data-name="{file.name}"]').click()
        expect(live.verdict()).to_contain_text(reason)
        expect(live.verdict()).to_have_attribute("data-word", "none")
    live.close()


def test_a_part_that_gets_no_answer_takes_the_verdict_before_it_away(
    chromium: Any, line: Server, files: list[Path]
) -> None:
    live = Live(chromium, line)
    held: list[Any] = []
    live.refuse = lambda number, route: number == 3 and not held.append(route)  # and nobody answers it
    take_over_time(live.page)
    live.show()
    live.drop(files[:2])
    expect(live.verdict()).to_have_attribute("data-word", "ok", timeout=JUDGE_MS)
    live.is_asked(3)
    pass_and_stop(live.page, _MOST_S)
    expect(live.verdict()).to_have_attribute("data-word", "none", timeout=JUDGE_MS)
    live.page.clock.resume()  # a look at the service may be under way: then that is what has no answer, until the next
    expect(live.verdict()).to_contain_text(f"{PICTURES[1].name} has had no answer for", timeout=JUDGE_MS)
    held[0].continue_()
    expect(live.verdict()).to_have_text("NGRight", timeout=JUDGE_MS)
    live.close()


def settled(live: Live) -> int:
    """Wait until what was asked is answered and shown; how many parts were judged."""
    deadline = time.monotonic() + JUDGE_MS / 1000
    while time.monotonic() < deadline:
        count = len(live.parts())
        if len(live.asked) == 2 * count and all(asked.said for asked in live.asked):
            return count
        live.page.wait_for_timeout(100)
    raise AssertionError("the part in flight has no verdict")


def test_paused_nothing_is_judged_but_one_picture_at_a_time(chromium: Any, line: Server, files: list[Path]) -> None:
    live = Live(chromium, line)
    live.show()
    live.drop(files[:5])
    live.is_judged(1)
    live.page.keyboard.press("p")
    expect(live.page.get_by_text("Paused: nothing more is judged")).to_be_visible()
    count = settled(live)  # the part in flight gets its verdict
    assert count <= 2
    live.page.wait_for_timeout(3000)
    assert len(live.asked) == 2 * count
    live.page.get_by_role("button", name="Single picture").click()
    live.is_judged(count + 1)
    live.page.wait_for_timeout(3000)
    assert len(live.asked) == 2 * (count + 1)
    live.page.get_by_role("button", name="Go on").click()
    live.is_judged(5)
    assert live.parts() == words(PICTURES[:5])
    live.close()


def test_a_threshold_that_was_changed_takes_the_ok_from_the_screen(
    chromium: Any, models: Path, serve: Serve, files: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    with serve(folder=tmp_path) as server, server.client() as client:
        live = Live(chromium, server)
        live.show()
        live.drop(files[:1])
        expect(live.verdict()).to_have_attribute("data-word", "ok", timeout=JUDGE_MS)
        body = ids("left") | {"require_ng": False, "default_mm_per_px": 1, "threshold": 0.01}
        done(client.post("/calibrate_dataset", json=body))
        expect(live.verdict()).to_have_attribute("data-word", "none", timeout=JUDGE_MS)
        expect(live.verdict()).to_contain_text("changed since this part was judged")
        live.page.get_by_role("button", name="Stop").click()
        live.drop(files[2:3])
        expect(live.verdict()).to_have_text("NGLeft", timeout=JUDGE_MS)
        live.close()


def test_a_hidden_tab_says_that_it_is_slowed(chromium: Any, line: Server, files: list[Path]) -> None:
    live = Live(chromium, line)
    live.show()
    live.drop(files[:2])
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    title = live.page.title()
    live.page.evaluate(hide, True)
    expect(live.page).to_have_title("Hidden, so slowed · ROI inspection")
    expect(live.page.get_by_text("This tab is hidden, so the browser slows it down.")).to_be_visible()
    live.is_judged(2)
    live.page.evaluate(hide, False)
    expect(live.page).to_have_title(title)
    expect(live.page.get_by_text("The browser slowed it down meanwhile: 2 parts were judged.")).to_be_visible()
    live.close()


@pytest.mark.long
def test_a_recorded_folder_is_judged_in_firefox_too(line: Server) -> None:
    with pages(PAGES) as server:
        server.behind = line.address
        server.cases = [picture.name for picture in PICTURES[:4]]
        server.files = {picture.name: picture.png for picture in PICTURES[:4]}
        visit_in_firefox(server, "/pages/live.html#/live?recipe=two+cells")
        found = json.loads(server.results["found"][1])
    assert "problem" not in found
    assert {tuple(part) for part in found["parts"]} == set(words(PICTURES[:4]))
    newest = next(picture for picture in PICTURES if picture.name == found["parts"][0][0])
    assert found["drawn"] == ["ng" if roi in newest.bad else "ok" for roi in ROIS]
