"""Pictures of 64 megapixels: cut and judged exactly, within bounded memory; larger ones are refused by a sentence."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from harness.browser import peak_mb
from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Watched, done
from tests.console.pictures import refused

WIDTH, HEIGHT = 9248, 6944
SIDE, CX, CY = 300, 8000, 5900
_MS = 180_000
_MOST_MB = 2000
"""Of all processes of the browser together; a decoded picture takes 257."""


@pytest.fixture(scope="module")
def files(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of real parts side by side, each moved a bit."""
    folder = tmp_path_factory.mktemp("large")
    part = cv2.imread(str(parts.good[0]))
    across, down = -(-WIDTH // part.shape[1]), -(-HEIGHT // part.shape[0])
    picture = np.tile(part, (down, across, 1))[:HEIGHT, :WIDTH]
    written = [folder / name for name in ("1.jpg", "2.jpg", "3.jpg", "4.png")]
    for number, file in enumerate(written):
        cv2.imwrite(str(file), np.roll(picture, 7 * number, axis=1), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return written


@pytest.mark.long
def test_pictures_of_64_megapixels_are_judged_in_bounded_memory(
    chromium: Any, judging: Server, files: list[Path]
) -> None:
    watched = Watched(chromium, judging)
    page = watched.page
    replies: list[Any] = []
    page.on("response", lambda reply: reply.url.endswith("/infer") and replies.append(reply))
    with peak_mb() as peak:
        watched.open("roi")
        page.locator("input[type=file][accept]").first.set_input_files(files[:1])
        values = {"Width (px)": SIDE, "Height (px)": SIDE, "Centre x (px)": CX, "Centre y (px)": CY}
        expect(page.locator(".strip-cell canvas")).to_be_visible(timeout=_MS)
        for label, value in values.items():
            field = page.get_by_label(label)
            field.fill(str(value))
            field.press("Enter")
        expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_MS)
        assert [float(page.get_by_label(label).input_value()) for label in values] == list(values.values())
        watched.open("inspect")
        expect(page.get_by_text("Drop pictures or choose them below.")).to_be_visible(timeout=_MS)
        page.locator("input[type=file][accept]").first.set_input_files(files)
        judged = page.locator(".part[data-word=ok], .part[data-word=ng]")
        expect(judged).to_have_count(len(files), timeout=_MS)
    scores = [reply.json()["score"] for reply in replies]
    assert scores == [_score(judging, file) for file in files]
    assert len(set(scores)) == len(files)
    assert peak() < _MOST_MB
    watched.close(NO_LAYOUT_YET)


def _score(server: Server, file: Path) -> float:
    """As a client in Python has it."""
    top, left = CY - SIDE // 2, CX - SIDE // 2
    crop = cv2.imread(str(file))[top : top + SIDE, left : left + SIDE]
    content = cv2.imencode(".png", np.ascontiguousarray(crop))[1].tobytes()
    with server.client() as client:
        form = ROI | {"mm_per_px": "1", "trial": "true"}
        score: float = done(client.post("/infer", data=form, files={"image": ("crop.png", content)}))["score"]
        return score


def test_a_picture_beyond_the_limit_is_refused_by_a_sentence(chromium: Any, judging: Server, tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    file.write_bytes(refused()["huge.png"][1])
    watched = Watched(chromium, judging)
    for screen in ("roi", "inspect"):
        watched.open(screen)
        watched.page.reload()
        watched.page.locator("input[type=file][accept]").first.set_input_files(file)
        expect(watched.page.get_by_role("alert")).to_have_text(
            "huge.png has 8193×8192 pixels, which is 67.1 million; at most 65.0 million are possible. Save it smaller.",
            timeout=_MS,
        )
    watched.close(NO_LAYOUT_YET)
