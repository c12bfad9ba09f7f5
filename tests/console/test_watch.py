"""`watch` beside the console: the same crops to the last byte, and the same verdicts on the same parts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from backend.commands.watch.crop import Roi
from backend.commands.watch.pictures import Crop, PictureRefused, cut_roi, open_picture
from harness.drawn import fit_drawn, ids_of, layout_of, put_layout
from harness.pages import pages
from harness.server import ROOT, Server
from tests.console.conftest import PAGES, Visit
from tests.console.line import Parts, Serve, Watched
from tests.console.pictures import HEIGHT, WIDTH, accepted, decode, deep_png, refused

ROIS = [
    Roi("rect", WIDTH / 2, HEIGHT / 2, w=WIDTH, h=HEIGHT),
    Roi("rect", 90, 70, w=50, h=40),
    Roi("rect", 90.3, 70.2, w=51, h=40, angle_deg=33.3),
    Roi("rect", 90, HEIGHT / 2, w=HEIGHT, h=60, angle_deg=270),
    Roi("circle", 60, 60, r=30.2, angle_deg=-17),
    Roi("annulus", 100.25, 70.75, r=50, r_inner=49, angle_deg=211.7),
    Roi("rect", 24, 70, w=50, h=40),  # beyond the picture
    Roi("rect", 90.3, 70.2, w=51, h=40, angle_deg=33.3, crop="gui"),
    Roi("annulus", 24, 70.75, r=50, r_inner=20, angle_deg=12, crop="gui"),  # beyond it, where that is black
]
_SHARES = [(0.5, 0.5, 0.6, 0.5, 12.5), (0.45, 0.55, 0.3, 0.4, -90), (0.5, 0.5, 1, 1, 0)]
_JUDGE_MS = 120_000
IDS = ids_of("line 1", 1)
_WATCH_S = 300


def rois_of(content: bytes) -> list[Roi]:
    """ROIs of a real picture, by shares of its size."""
    height, width = decode(content).shape[:2]
    sized = [
        Roi("rect", x * width, y * height, w=round(w * width), h=round(h * height), angle_deg=angle)
        for x, y, w, h, angle in _SHARES
    ]
    return [*sized, Roi("circle", width / 2, height / 2, r=0.3 * width, angle_deg=45)]


def ours_of(content: bytes, name: str, roi: Roi) -> Crop | str:
    """What `watch` cuts, or the code of its refusal."""
    try:
        return cut_roi(open_picture(content, name), roi)
    except PictureRefused as exc:
        return exc.code


@pytest.mark.parametrize("visit", ["chromium", pytest.param("firefox", marks=pytest.mark.long)], indirect=True)
def test_watch_cuts_byte_for_byte_what_the_browser_cuts(visit: Visit, parts: Parts) -> None:
    real = {file.name: file.read_bytes() for file in [*parts.good[:2], *parts.bad[:2]]}
    damaged = {name: content for name, (_, content) in refused().items()}
    files = accepted() | damaged | real | {"deep.png": deep_png()}
    asked = [(name, roi) for name in [*accepted(), "deep.png"] for roi in ROIS]
    asked += [(name, roi) for name, content in real.items() for roi in rois_of(content)]
    asked += [(name, ROIS[1]) for name in damaged]
    with pages(PAGES) as server:
        server.files = files
        server.cases = [{"file": name, "roi": dataclasses.asdict(roi)} for name, roi in asked]
        visit(server, "/pages/compare.html")
        found = [server.results[str(number)] for number in range(len(asked))]
    refusals = 0
    for (name, roi), (head, crop) in zip(asked, found, strict=True):
        ours = ours_of(files[name], name, roi)
        assert (ours if isinstance(ours, str) else None) == head.get("refused"), (name, roi)
        if isinstance(ours, str):
            refusals += 1
            continue
        assert head["shape"] == pytest.approx(ours.shape) if ours.shape else head["shape"] is None
        if name != "deep.png":  # of which both are the file itself
            assert np.array_equal(decode(ours.content), decode(crop)), (name, roi)
        if roi == ROIS[0] and not head["turned"]:
            assert ours.content == crop == files[name]
    assert refusals == len(damaged) + len(accepted()) + len(ROIS) - 1  # beyond, in each; of 16 bits all but the whole


def written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """Files in a folder of their own."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


def test_verdicts_of_watch_are_those_of_inspect(chromium: Any, serve: Serve, parts: Parts, tmp_path: Path) -> None:
    good = [open_picture(file.read_bytes(), file.name) for file in parts.good]
    roi = rois_of(good[0].content)[0]
    fresh = written(tmp_path / "incoming", {file.name: file.read_bytes() for file in parts.fresh})
    with serve(folder=tmp_path) as server:
        with server.client() as client:
            crops = [cut_roi(picture, roi).content for picture in good]
            fit_drawn(client, IDS, roi, crops, 0.5, profile="recommended")
            put_layout(client, IDS["recipe_id"], layout_of({"Body": roi}, good[0].size, 0.5))
        in_browser = inspected(chromium, server, fresh)
        torn = tmp_path / "incoming" / f"torn{fresh[0].suffix}"
        torn.write_bytes(fresh[0].read_bytes()[:2000])
        found = watched(server, tmp_path)
    assert found.pop(torn.name)["verdict"] == "not_judged"
    judged = {name: (part["verdict"], part["rois"][0]["score"]) for name, part in found.items()}
    assert judged == in_browser
    assert {verdict for verdict, _ in judged.values()} == {"ok", "ng"}


def test_a_part_that_moved_gets_the_score_that_inspect_gives_it(
    chromium: Any, serve: Serve, parts: Parts, tmp_path: Path
) -> None:
    first = open_picture(parts.good[0].read_bytes(), parts.good[0].name)
    width, height = first.size
    anchor = {"id": "7f", "cx": width / 2, "cy": height / 2, "w": width // 4 * 2, "h": height // 4 * 2}
    anchor |= {"search_px": 40, "search_deg": 6, "least_score": 0.7, "picture": {"width": width, "height": height}}
    roi = Roi("rect", width / 2 + 10, height / 2 - 12, w=width // 3, h=height // 3, angle_deg=10)
    scenes = {
        f"{number}.png": png(moved(first.pixels, *motion))
        for number, motion in enumerate([(0, 0, 0), (21.3, -17.8, 3.1), (-30.6, 11.2, -4.7)])
    }
    fresh = written(tmp_path / "incoming", scenes)
    template = cut_roi(first, Roi("rect", width / 2, height / 2, w=anchor["w"], h=anchor["h"])).content
    with serve(folder=tmp_path) as server:
        with server.client() as client:
            crops = [cut_roi(open_picture(file.read_bytes(), file.name), roi).content for file in parts.good]
            fit_drawn(client, IDS, roi, crops, 0.5, anchor_id="7f")
            picture = {"recipe_id": IDS["recipe_id"], "name": "anchor-7f"}
            kind = {"Content-Type": "image/png"}
            client.put("/layout/picture", params=picture, content=template, headers=kind).raise_for_status()
            layout = layout_of({"Body": roi}, first.size, 0.5) | {"anchor": anchor}
            put_layout(client, IDS["recipe_id"], layout)
        in_browser = inspected(chromium, server, fresh)
        (tmp_path / "incoming" / "gone.png").write_bytes(png(np.full_like(first.pixels, 90)))
        found = watched(server, tmp_path)
    assert "was not found" in found.pop("gone.png")["reason"]
    assert {name: (part["verdict"], part["rois"][0]["score"]) for name, part in found.items()} == in_browser
    assert found["1.png"]["placement"]["dx"] == pytest.approx(21.3, abs=0.3)


def png(image: np.ndarray) -> bytes:
    """A file."""
    return cv2.imencode(".png", image)[1].tobytes()


def moved(image: np.ndarray, dx: float, dy: float, angle_deg: float) -> np.ndarray:
    """The picture after a motion about its centre."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle_deg, 1.0)
    matrix[:, 2] += [dx, dy]
    scene = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(scene, np.uint8)


def watched(server: Server, folder: Path) -> dict[str, dict[str, Any]]:
    """By file what `watch` told of each part in ``incoming``."""
    out = folder / "results.jsonl"
    command = [sys.executable, "-m", "backend", "watch", IDS["recipe_id"], str(folder / "incoming"), "--once"]
    command += ["--settle", "0.1", "--url", server.address, "--out", str(out)]
    subprocess.run(command, cwd=ROOT, env=os.environ, check=True, timeout=_WATCH_S)
    return {part["file"]: part for part in map(json.loads, out.read_text().splitlines())}


def inspected(chromium: Any, server: Server, files: list[Path]) -> dict[str, tuple[str, float]]:
    """By file the word on the screen and the score that the service gave the browser."""
    browser = Watched(chromium, server)
    page = browser.page
    replies: list[Any] = []
    page.on("response", lambda reply: reply.url.endswith("/infer") and replies.append(reply))
    browser.open("inspect", IDS)
    page.locator("input[type=file][accept]").first.set_input_files(files)
    judged = page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(files), timeout=_JUDGE_MS)
    cells = {cell.get_attribute("title"): cell.get_attribute("data-word") for cell in page.locator(".part").all()}
    scores = [reply.json()["score"] for reply in replies]
    browser.close()
    assert len(scores) == len(cells)
    return {name: (cells[name], score) for name, score in zip(cells, scores, strict=True)}
