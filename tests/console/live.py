"""A live line in a browser: a page on which pictures are judged one after the other, and what it asked the service."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import expect

from harness.server import Server
from harness.two_cells import RECIPE, Picture, prepare
from tests.console.line import Serve, Watched

JUDGE_MS = 90_000
_LOOK_MS = 100
_FPS = 4


@dataclass
class Asked:
    """A question about a ROI of a picture.

    Attributes:
        request: playwright's.
        at: when it was asked, monotonic seconds.
        name: of the picture.
        roi: id of the ROI.
        trial: whether the statistics shall not count it: "true" or "false".
        part_id: by which they count it once.
        answered_at: when it was answered; infinity: not, or with an error.
        said: the answer.
    """

    request: Any
    at: float
    name: str
    roi: str
    trial: str
    part_id: str
    answered_at: float = math.inf
    said: dict[str, Any] = dataclasses.field(default_factory=dict)


class Live(Watched):
    """The screen of the recipe.

    Attributes:
        asked: of `/infer`, in order.
        refuse: answers a request in the service's place, if it wants to: by its number and route.
    """

    def __init__(self, browser: Any, server: Server | str, **context: Any) -> None:
        super().__init__(browser, server, **context)
        self.asked: list[Asked] = []
        self.refuse: Callable[[int, Any], bool] = lambda _number, _route: False
        self.page.route("**/infer", self._ask)
        self.page.on("response", self._hear)

    def _ask(self, route: Any) -> None:
        sent = route.request.post_data_buffer
        name = sent.partition(b'filename="')[2].partition(b'"')[0].decode()
        fields = (_field(sent, field) for field in ("roi_id", "trial", "part_id"))
        asked = Asked(route.request, time.monotonic(), name, *fields)
        self.asked.append(asked)
        if not self.refuse(len(self.asked), route):
            route.continue_()

    def _hear(self, reply: Any) -> None:
        for asked in self.asked:
            if asked.request == reply.request and reply.ok:
                asked.answered_at = time.monotonic()
                asked.said = reply.json()

    def answered(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What was said, by name of the picture and ROI.

        Raises:
            AssertionError: something was said twice.
        """
        said = [((asked.name, asked.roi), asked.said) for asked in self.asked if asked.said]
        found = dict(said)
        assert len(found) == len(said)
        return found

    def show(self) -> None:
        """Open the screen."""
        self.page.goto(f"{self.address}/#/live?recipe={RECIPE.replace(' ', '+')}")
        expect(self.page.locator(".tile")).to_have_count(2)

    def choose(self, source: str) -> None:
        """Choose where pictures come from."""
        self.page.get_by_role("button", name=source, exact=True).click()

    def drop(self, files: Sequence[Path]) -> None:
        """Have each of the files judged once."""
        self.choose("Folder, each picture once")
        self.page.locator("input[type=file][accept]").set_input_files(files)

    def verdict(self) -> Any:
        """The word on the screen."""
        return self.page.locator(".verdict")

    def is_judged(self, count: int) -> None:
        """Wait until so many parts were judged."""
        expect(self.page.locator(".part")).to_have_count(count, timeout=JUDGE_MS)

    def is_asked(self, count: int) -> None:
        """Wait until so many questions were asked.

        Raises:
            AssertionError: they were not.
        """
        for _ in range(JUDGE_MS // _LOOK_MS):
            if len(self.asked) >= count:
                return
            self.page.wait_for_timeout(_LOOK_MS)
        raise AssertionError(f"{len(self.asked)} of {count} were asked")

    def parts(self) -> list[tuple[str, str]]:
        """Name and word of the last fifty, the oldest first."""
        cells = self.page.locator(".part").all()
        return [
            (cell.get_attribute("data-name") or "", cell.get_attribute("data-word") or "") for cell in reversed(cells)
        ]

    def facts(self) -> str:
        """Counts, speed, and what waits."""
        return str(self.page.locator(".live-facts").inner_text())


def _field(sent: bytes, name: str) -> str:
    """A field of a form that was sent."""
    return sent.partition(f'name="{name}"\r\n\r\n'.encode())[2].partition(b"\r\n")[0].decode()


def words(pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """Name and word of each, as they must be."""
    return [(picture.name, "ng" if picture.bad else "ok") for picture in pictures]


def fake_camera(video: Path) -> list[str]:
    """Options of a Chromium whose only camera plays a file of `write_video`."""
    fake = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
    return [*fake, f"--use-file-for-fake-video-capture={video}"]


@contextlib.contextmanager
def line_of_two_cells(serve: Serve, folder: Path, **settings: str) -> Iterator[Server]:
    """A service that has the recipe of two cells."""
    with serve(folder=folder, **settings) as server:
        with server.client() as client:
            prepare(client)
        yield server


def write_video(file: Path, pictures: Sequence[Picture], seconds: float) -> None:
    """Write a video in which each picture stands for some seconds, as Chromium's fake camera plays it: YUV4MPEG2."""
    with file.open("wb") as video:
        for picture in pictures:
            bgr = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_COLOR)
            height, width = bgr.shape[:2]
            if video.tell() == 0:
                video.write(f"YUV4MPEG2 W{width} H{height} F{_FPS}:1 Ip A1:1 C420jpeg\n".encode())
            luma = np.round(16 + bgr[..., 1] * (219 / 255)).astype(np.uint8)  # cells are grey
            frame = luma.tobytes() + bytes([128]) * (width * height // 2)
            for _ in range(round(seconds * _FPS)):
                video.write(b"FRAME\n" + frame)
