"""`watch` beside the console: the same crops to the last byte, and the same verdicts on the same parts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from backend.commands.watch.crop import Roi
from backend.commands.watch.pictures import Crop, PictureRefused, cut_roi, open_picture
from harness.drawn import fit_drawn, ids_of, layout_of, put_layout
from harness.pages import pages
from harness.server import ROOT
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


@pytest.fixture
def folder(tmp_path: Path, parts: Parts) -> Path:
    """Parts that arrive: good and bad ones that no model has seen, and one that is damaged."""
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for file in parts.fresh:
        (incoming / file.name).write_bytes(file.read_bytes())
    first = parts.fresh[0]
    (incoming / f"torn{first.suffix}").write_bytes(first.read_bytes()[:2000])
    return incoming


def test_verdicts_of_watch_are_those_of_inspect(
    chromium: Any, serve: Serve, parts: Parts, folder: Path, tmp_path: Path
) -> None:
    good = [open_picture(file.read_bytes(), file.name) for file in parts.good]
    size = good[0].size
    roi = rois_of(good[0].content)[0]
    ids = ids_of("line 1", 1)
    with serve(folder=tmp_path) as server:
        with server.client() as client:
            fit_drawn(client, ids, roi, [cut_roi(picture, roi).content for picture in good], 0.5, profile="recommended")
            put_layout(client, "line 1", layout_of({"Body": roi}, size, 0.5))
        in_browser = inspected(chromium, server, ids, parts)
        out = tmp_path / "results.jsonl"
        command = [sys.executable, "-m", "backend", "watch", "line 1", str(folder), "--once", "--settle", "0.1"]
        command += ["--url", server.address, "--out", str(out)]
        subprocess.run(command, cwd=ROOT, env=os.environ, check=True, timeout=_WATCH_S)
    told = [json.loads(line) for line in out.read_text().splitlines()]
    judged = {
        part["file"]: (part["verdict"], part["rois"][0]["score"]) for part in told if part["verdict"] != "not_judged"
    }
    assert judged == in_browser
    assert {verdict for verdict, _ in judged.values()} == {"ok", "ng"}
    assert [Path(part["file"]).stem for part in told if part["verdict"] == "not_judged"] == ["torn"]


def inspected(chromium: Any, server: Any, ids: dict[str, str], parts: Parts) -> dict[str, tuple[str, float]]:
    """By file the word on the screen and the score that the service gave the browser."""
    watched = Watched(chromium, server)
    page = watched.page
    replies: list[Any] = []
    page.on("response", lambda reply: reply.url.endswith("/infer") and replies.append(reply))
    watched.open("inspect", ids)
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh)
    judged = page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(parts.fresh), timeout=_JUDGE_MS)
    cells = {cell.get_attribute("title"): cell.get_attribute("data-word") for cell in page.locator(".part").all()}
    scores = [reply.json()["score"] for reply in replies]
    watched.close()
    names = list(cells)
    assert len(scores) == len(names)
    return {name: (cells[name], score) for name, score in zip(names, scores, strict=True)}
