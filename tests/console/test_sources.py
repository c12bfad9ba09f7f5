"""Where Live takes pictures from: a watched folder, which is one of the page's own, and a camera that plays a file."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from harness.pages import PageServer, pages
from harness.two_cells import pictures
from tests.console.conftest import PAGES
from tests.console.live import fake_camera, write_video

_STILL_S = 1.0


@pytest.fixture
def server() -> Iterator[PageServer]:
    with pages(PAGES) as server:
        yield server


class Folder:
    """A folder of the page's own, and its source."""

    def __init__(self, page: Any, server: PageServer) -> None:
        self.page = page
        self.address = f"{server.address}/pages/sources.html"
        self.open()

    def open(self) -> None:
        self.page.goto(self.address)
        self.page.get_by_text("ready", exact=True).wait_for()

    def write(self, path: str, text: str) -> None:
        self.page.evaluate("([path, text]) => write(path, text)", [path, text])

    def watch(self) -> None:
        self.page.evaluate("watch('line')")

    def next(self) -> list[str]:
        found: list[str] = self.page.evaluate("next()")
        return found

    def judged(self) -> list[str]:
        found = self.next()
        self.page.evaluate("judged()")
        return found

    def backlog_after(self, seconds: float) -> int:
        self.page.wait_for_timeout(seconds * 1000)
        count: int = self.page.evaluate("backlog()")
        return count


@pytest.fixture
def folder(chromium: Any, server: PageServer) -> Iterator[Folder]:
    context = chromium.new_context()
    yield Folder(context.new_page(), server)
    context.close()


def test_each_file_comes_once_by_its_time_and_none_after_a_reload(folder: Folder) -> None:
    folder.write("line/b.png", "first")
    folder.page.wait_for_timeout(20)
    folder.write("line/day 2/a.png", "second")
    folder.page.wait_for_timeout(20)
    folder.write("line/a.jpg", "third")
    folder.write("line/notes.txt", "no picture")
    folder.watch()
    assert folder.judged() == ["b.png", "first"]
    assert folder.judged() == ["day 2/a.png", "second"]
    assert folder.next() == ["a.jpg", "third"]  # and is not judged before the page ends
    folder.open()
    folder.watch()
    assert folder.judged() == ["a.jpg", "third"]
    assert folder.backlog_after(2.5) == 0
    folder.write("line/b.png", "another part")
    assert folder.judged() == ["b.png", "another part"]
    assert folder.backlog_after(2.5) == 0


def test_a_file_that_grows_waits_until_it_stands_still(folder: Folder) -> None:
    folder.watch()
    start = time.monotonic()
    for length in range(1, 6):
        folder.write("line/slow.png", "x" * length)
        assert folder.backlog_after(0.6) == 0
    grown = time.monotonic()
    assert grown - start > 2 * _STILL_S
    assert folder.judged() == ["slow.png", "xxxxx"]
    assert time.monotonic() - grown > _STILL_S - 0.6
    folder.write("line/empty.png", "")
    assert folder.backlog_after(2.5) == 0


def test_what_is_passed_over_or_deleted_does_not_come(folder: Folder) -> None:
    for name in ("1.png", "2.png", "10.png"):
        folder.write(f"line/{name}", name)
    folder.watch()
    assert folder.judged() == ["1.png", "1.png"]
    folder.page.evaluate("erase('line/2.png')")
    assert folder.backlog_after(2.0) == 1
    folder.page.evaluate("skip()")
    assert folder.backlog_after(2.0) == 0
    folder.open()
    folder.watch()
    assert folder.backlog_after(3.0) == 0
    folder.write("line/3.png", "3.png")
    assert folder.judged() == ["3.png", "3.png"]


def test_frames_of_a_camera_are_its_pixels_but_for_rounding(
    launch: Callable[..., Any], server: PageServer, tmp_path: Path
) -> None:
    (picture,) = pictures(1)
    write_video(tmp_path / "camera.y4m", [picture], seconds=1)
    page = launch(*fake_camera(tmp_path / "camera.y4m")).new_page()
    page.goto(f"{server.address}/pages/sources.html")
    page.get_by_text("ready", exact=True).wait_for()
    found = page.evaluate("frames(4)")
    frames = [
        cv2.imdecode(np.frombuffer(server.results[f"frame-{n}"][1], np.uint8), cv2.IMREAD_COLOR) for n in range(4)
    ]
    sent = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_COLOR)
    assert all(np.array_equal(frame, frames[0]) for frame in frames)
    assert np.abs(frames[0].astype(int) - sent).max() <= 1  # 220 levels of brightness on the way
    assert found["names"] == sorted(found["names"])
    assert found["problem"] is None
    assert "ended" in found["ended"]
    assert found["lit"] == "ended"
