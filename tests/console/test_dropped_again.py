"""The verdict on Inspect is about what was dropped last: a file of an old name, the same file again, a damaged one."""

from pathlib import Path
from typing import Any

import cv2
from playwright.sync_api import expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, Parts, Watched

_JUDGE_MS = 60_000


def _overwritten(file: Path, by: Path) -> Path:
    """A picture as a camera leaves it that always writes the same BMP."""
    cv2.imwrite(str(file), cv2.imread(str(by)))
    return file


def test_verdict_is_about_the_file_dropped_last(chromium: Any, judging: Server, parts: Parts, tmp_path: Path) -> None:
    good, bad = parts.good[0], parts.bad[0]
    camera, damaged = tmp_path / "capture.bmp", tmp_path / "damaged.jpg"
    damaged.write_bytes(good.read_bytes()[:3000])
    watched = Watched(chromium, judging)
    watched.open("inspect")
    page = watched.page
    drop = page.locator("input[type=file][accept]").first
    verdict, name = page.locator(".verdict"), page.locator(".inspect-name")

    drop.set_input_files(_overwritten(camera, good))
    expect(verdict).to_have_attribute("data-word", "ok", timeout=_JUDGE_MS)
    n_bytes = camera.stat().st_size
    drop.set_input_files(_overwritten(camera, bad))
    assert camera.stat().st_size == n_bytes
    expect(verdict).to_have_attribute("data-word", "ng", timeout=_JUDGE_MS)
    expect(page.locator(".part")).to_have_count(2)

    drop.set_input_files(good)
    expect(name).to_contain_text(good.name, timeout=_JUDGE_MS)
    expect(verdict).to_have_attribute("data-word", "ok", timeout=_JUDGE_MS)
    drop.set_input_files(camera)
    expect(verdict).to_have_attribute("data-word", "ng", timeout=_JUDGE_MS)
    expect(name).to_contain_text(camera.name)
    expect(page.locator(".part")).to_have_count(3)

    page.locator(".part[data-word=ok]").first.click()
    expect(verdict).to_have_attribute("data-word", "ok")
    drop.set_input_files(damaged)
    expect(verdict).to_contain_text("The file is damaged", timeout=_JUDGE_MS)
    expect(verdict).to_have_attribute("data-word", "none")
    expect(page.locator(".part[data-word=none]")).to_have_count(1)
    watched.close(NO_LAYOUT_YET)
