"""Parts that lie elsewhere and are turned, before the real service: judged where they are, or not at all."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import expect

from backend.commands.watch.anchor import Anchor
from backend.commands.watch.arrivals import Arrival, identity_of
from backend.commands.watch.crop import Roi, crop
from backend.commands.watch.layouts import read_layout
from backend.commands.watch.preparing import prepare
from backend.commands.watch.service_judge import ServiceJudge
from harness.server import Server
from tests.console.line import ROI, Parts, Serve, Watched, calibrate, done

Image = npt.NDArray[np.uint8]
SIDE, MARGIN, MARK = 200, 90, 64  # of a part, around it, of the print beside it
ANCHOR = {"cx": 112, "cy": 190, "w": MARK, "h": MARK, "search_px": 90, "search_deg": 9, "least_score": 0.8}
PLACE = Roi("rect", cx=MARGIN + 80 + SIDE / 2, cy=MARGIN + SIDE / 2, w=SIDE, h=SIDE)
_WAIT_MS = 180_000


def _print() -> Image:
    cells = np.random.default_rng(6).choice(np.array([50, 190], np.uint8), (8, 8))
    return np.asarray(cv2.resize(cells, (MARK, MARK), interpolation=cv2.INTER_AREA), np.uint8)[..., None]


def scene(part: Image, dx: float, dy: float, angle_deg: float, *, has_print: bool = True) -> Image:
    """A part with a print beside it, both moved about the middle of the picture, uint8 [380, 460, 3]."""
    part = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    image = cv2.copyMakeBorder(part, MARGIN, MARGIN, MARGIN + 80, MARGIN, cv2.BORDER_REPLICATE)
    if has_print:
        left, top = (int(ANCHOR[name] - MARK / 2) for name in ("cx", "cy"))
        image[top : top + MARK, left : left + MARK] = _print()
    turn = math.radians(angle_deg)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = np.array([image.shape[1] - 1, image.shape[0] - 1]) / 2
    matrix = np.column_stack([rotation, middle + np.array([dx, dy]) - rotation @ middle])
    size = (image.shape[1], image.shape[0])
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    noise = np.random.default_rng(7).normal(0, 2, moved.shape)
    return np.clip(moved + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good parts that moved in folder good/; in fresh/ one that moved otherwise, one with a spot, one without print."""
    folder = tmp_path_factory.mktemp("moved")
    rng = np.random.default_rng(8)
    images = [cv2.imread(str(file)) for file in parts.good]
    (folder / "good").mkdir()
    (folder / "fresh").mkdir()
    for number, image in enumerate(images):
        motion = (*rng.uniform(-35, 35, 2), rng.uniform(-7, 7))
        cv2.imwrite(str(folder / "good" / f"part-{number}.png"), scene(image, *motion))
    spotted = cv2.circle(images[1].copy(), tuple(side // 2 for side in images[1].shape[1::-1]), 40, (0, 0, 160), -1)
    fresh = {
        "good": scene(images[0], 33, -30, 6.5),
        "bad": scene(spotted, -31, 28, -6),
        "lost": scene(images[2], 10, 10, 2, has_print=False),
    }
    for name, image in fresh.items():
        cv2.imwrite(str(folder / "fresh" / f"{name}.png"), image)
    return {"fit": folder / "good"} | {name: folder / "fresh" / f"{name}.png" for name in fresh}


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Iterator[Server]:
    """A service whose recipe has a ROI and an anchor, drawn on a part that did not move."""
    ids = {name: value for name, value in ROI.items() if name != "recipe_id"}
    roi = {"kind": "rect", "cx": PLACE.cx, "cy": PLACE.cy, "w": SIDE, "h": SIDE, "r": 9, "r_inner": 1, "angle_deg": 0}
    size = {"width": 2 * MARGIN + 80 + SIDE, "height": 2 * MARGIN + SIDE}
    drawn = ids | {"name": "Nut", "mm_per_px": 1, "roi": roi, "picture": size}
    content = {"format": "roi-anomaly-console", "version": 1, "rois": [drawn]}
    anchored = content | {"anchor": {"id": "a1", **ANCHOR, "picture": size}}
    with serve(folder=tmp_path) as server, server.client() as client:
        recipe = {"recipe_id": ROI["recipe_id"]}
        template = cv2.imencode(".png", np.repeat(_print(), 3, 2))[1].tobytes()
        named = recipe | {"name": "anchor-a1"}
        kind = {"Content-Type": "image/png"}
        done(client.put("/layout/picture", params=named, content=template, headers=kind))
        done(client.put("/layout", params=recipe, json=anchored, headers={"If-None-Match": "*"}))
        yield server


def _live(watched: Watched, scenes: dict[str, Path]) -> None:
    """Live shows where the anchor was found, and how well; without it, why nothing is judged."""
    page = watched.page
    watched.open("live")
    page.get_by_role("button", name="Folder, each picture once").click()
    page.locator("input[type=file][accept]").set_input_files([scenes["bad"], scenes["lost"]])
    expect(page.locator(".part")).to_have_count(2, timeout=_WAIT_MS)
    expect(page.locator(".verdict")).to_contain_text("NOT JUDGEDThe anchor was not found (")
    expect(page.locator(".live-anchor")).to_have_attribute("data-word", "none")
    page.locator(".part[data-word=ng]").click()
    expect(page.locator(".inspect-name")).to_have_text(
        re.compile(r"bad\.png · Anchor: 0\.9\d · areas in pixels: no scale is set")
    )
    frame = page.locator(".live-anchor")
    expect(frame.locator("text")).to_have_text(re.compile(r"Anchor 0\.9\d"))
    x, y, turn = (float(number) for number in re.findall(r"-?[\d.]+", frame.get_attribute("transform"))[:3])
    assert turn == pytest.approx(-6, abs=0.2)
    middle = np.array([2 * MARGIN + 80 + SIDE, 2 * MARGIN + SIDE]) / 2
    cos, sin = math.cos(math.radians(6)), math.sin(math.radians(6))
    offset = np.array([[cos, sin], [-sin, cos]]) @ (np.array([ANCHOR["cx"], ANCHOR["cy"]]) - middle)
    assert [x, y] == pytest.approx(list(middle + np.array([-31, 28]) + offset), abs=0.7)


def _master(watched: Watched, server: Server, scenes: dict[str, Path]) -> None:
    """A picture of the anchor alone, as the desktop GUI has it, is found in the picture that is shown; watch too."""
    page, files = watched.page, scenes["fit"].parent / "masters"
    files.mkdir()
    cv2.imwrite(str(files / "print.png"), np.repeat(_print(), 3, 2))
    cv2.imwrite(str(files / "whole.png"), cv2.imread(str(scenes["lost"])))
    cv2.imwrite(str(files / "other.png"), _print()[::-1])
    page.get_by_role("button", name="Change the anchor").click()
    for name, told in (
        ("whole", "whole.png has 460 × 380 pixels. Choose a picture of the anchor alone"),
        ("other", "The anchor was not found ("),
        ("print", "print.png (64 × 64 pixels) was found here, score 0.9"),
    ):
        page.locator("div.anchor input[type=file]").set_input_files(files / f"{name}.png")
        expect(page.locator("div.anchor")).to_contain_text(told, timeout=_WAIT_MS)
    page.get_by_role("button", name="Use this anchor").click()
    page.get_by_role("button", name="Yes, change it").click(timeout=_WAIT_MS)
    expect(page.get_by_role("button", name="Change the anchor")).to_be_visible(timeout=_WAIT_MS)
    judge = ServiceJudge(server.address, None)
    layout = read_layout(judge.layout(ROI["recipe_id"]), ROI["recipe_id"], "the layout", judge.template)
    assert layout.anchor is not None
    assert layout.anchor.id != "a1"
    assert layout.anchor.search == Anchor(**{name: value for name, value in ANCHOR.items() if name != "least_score"})
    name = f"anchor-{layout.anchor.id}"
    assert judge.template(ROI["recipe_id"], name) == (files / "print.png").read_bytes()
    part = prepare(scenes["good"].parent, Arrival("good.png", identity_of(scenes["good"])), layout)
    assert part.placement is not None
    assert part.placement.angle_deg == pytest.approx(6.5, abs=0.1)
    judge.close()


def test_moved_parts_are_judged_where_they_are_or_not_at_all(
    chromium: Any, server: Server, scenes: dict[str, Path]
) -> None:
    watched = Watched(chromium, server)
    page = watched.page
    watched.open("roi")
    expect(page.get_by_text("Drop a folder of camera pictures here")).to_be_visible(timeout=_WAIT_MS)
    page.locator("input[webkitdirectory]").first.set_input_files(scenes["fit"])
    expect(page.locator(".strip-cell")).to_have_count(10, timeout=_WAIT_MS)
    page.locator(".strip-cell").last.scroll_into_view_if_needed()  # places are looked for where somebody looks
    expect(page.get_by_text("Found in 10 of 10 pictures")).to_be_visible(timeout=_WAIT_MS)
    page.get_by_role("link", name="Mark good and bad").click()
    page.get_by_role("button", name="All good").click()
    expect(page.get_by_text("All decisions are stored")).to_be_visible(timeout=_WAIT_MS)
    page.get_by_role("button", name="Fit on 10 good pictures").click()
    expect(page.get_by_role("link", name="Set the threshold")).to_be_visible(timeout=_WAIT_MS)
    with server.client() as client:
        threshold = calibrate(client)["threshold"]
        elsewhere = crop(cv2.imread(str(scenes["good"])), PLACE)
        image = ("image.png", cv2.imencode(".png", elsewhere)[1].tobytes())
        without = done(client.post("/infer", data=ROI | {"mm_per_px": "1"}, files={"image": image}))
    watched.open("inspect")
    expect(page.locator(".verdict")).to_be_visible()
    for name, word, reason in (
        ("good", "ok", ""),
        ("bad", "ng", ""),
        ("lost", "none", "The anchor was not found"),
    ):
        page.locator("input[type=file][accept]").first.set_input_files(scenes[name])
        cell = page.locator(".part", has_text=scenes[name].name)
        expect(cell).to_have_attribute("data-word", word, timeout=_WAIT_MS)
        cell.click()
        expect(page.locator(".verdict")).to_have_attribute("data-word", word)
        expect(page.locator(".verdict")).to_contain_text(reason)
    _live(watched, scenes)
    watched.open("roi")
    page.get_by_role("button", name="Remove the anchor").click(timeout=_WAIT_MS)
    expect(page.get_by_text("1 model was fitted on crops as they are cut now: Nut.")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    _master(watched, server, scenes)
    assert without["score"] >= threshold  # where the ROI was drawn, the same part is elsewhere
    watched.close()
