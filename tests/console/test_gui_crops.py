"""The console's crops for the desktop GUI's models are, byte for byte, what OpenCV makes of the GUI's description."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from backend.commands.watch.crop import Roi as WatchRoi
from backend.commands.watch.gui_crop import gui_crop
from harness.images import solar_cells
from harness.pages import pages
from tests.console.conftest import PAGES, Visit
from tests.console.pictures import HEIGHT, WIDTH, bgr, saved_grey_corner

Roi = dict[str, Any]
PLACES = {
    "inside": (101.5, 74.5),
    "between pixels": (90.25, 70.4),
    "at the left border": (12.3, 70),
    "at the right border": (WIDTH - 12.3, 70),
    "at the upper border": (101, 8.75),
    "at the lower border": (101, HEIGHT - 8.75),
    "in a corner": (WIDTH - 3, HEIGHT - 2.5),
    "beyond a corner": (-4, -3.5),
}
ANGLES = (0, 90, 180, -90, 30, 45, 17, -23.7, 0.1, 359.95, 1234.5)
KINDS: dict[str, Roi] = {
    "rect": {"kind": "rect", "w": 51, "h": 40, "r": 0, "r_inner": 0},
    "rect between pixels": {"kind": "rect", "w": 50.5, "h": 39.5, "r": 0, "r_inner": 0},
    "circle": {"kind": "circle", "w": 9, "h": 9, "r": 30.2, "r_inner": 0},
    "annulus": {"kind": "annulus", "w": 0, "h": 0, "r": 25.25, "r_inner": 10.4},
}
FILES = ("noise.png", "cell.png", "noise.jpg")

Case = tuple[str, str, str, float]


def roi_of(kind: str, place: str, angle: float) -> Roi:
    x, y = PLACES[place]
    return KINDS[kind] | {"cx": x, "cy": y, "angle_deg": angle, "crop": "gui"}


@cache
def files() -> dict[str, bytes]:
    cell = cv2.resize(solar_cells(1)[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return {
        "noise.png": cv2.imencode(".png", bgr())[1].tobytes(),
        "cell.png": cv2.imencode(".png", cell)[1].tobytes(),
        "noise.jpg": saved_grey_corner(),
    }


def image_of(file: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(files()[file], np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def cases() -> Iterator[Case]:
    for file in FILES:
        for kind in KINDS:
            for place in PLACES:
                for angle in ANGLES if file == "noise.png" else (17, 90):
                    yield file, kind, place, angle


@pytest.fixture(scope="module")
def crops(visit: Visit) -> dict[Case, tuple[dict[str, Any], np.ndarray]]:
    with pages(PAGES) as server:
        server.files = files()
        asked = list(cases())
        server.cases = [{"file": file, "roi": roi_of(*where)} for file, *where in asked]
        visit(server, "/pages/compare.html")
        posted = [server.results[str(index)] for index in range(len(asked))]
    images = (cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) for _, content in posted)
    return {case: (head, image) for case, (head, _), image in zip(asked, posted, images, strict=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_the_gui_crop_is_opencvs_byte_for_byte(crops, kind, place):
    compared = 0
    for file, of_kind, at, angle in crops:
        if (of_kind, at) != (kind, place):
            continue
        head, found = crops[file, kind, place, angle]
        expected, shape = gui_crop(image_of(file), WatchRoi(**roi_of(kind, place, angle)))
        assert np.array_equal(found, expected), (file, angle)
        assert (head["width"], head["height"]) == expected.shape[1::-1]
        assert head["shape"] == pytest.approx(shape) if shape else head["shape"] is None
        compared += 1
    assert compared == len(ANGLES) + 2 * (len(FILES) - 1)


def test_the_gui_crop_is_another_one_than_the_consoles(crops):
    head, found = crops["noise.png", "rect", "inside", 90]
    x, y = PLACES["inside"]
    left, top = round(x - 20), round(y - 25.5)
    exact = np.rot90(bgr()[top : top + 51, left : left + 40])
    assert (head["width"], head["height"]) == (51, 40)
    assert not np.array_equal(found, exact)  # half a pixel lies between them


def test_at_borders_the_gui_crop_shrinks_or_moves(crops):
    at = {place: crops["noise.png", "rect", place, 0][0] for place in PLACES}
    assert (at["inside"]["width"], at["inside"]["height"]) == (51, 40)
    assert (at["at the left border"]["width"], at["at the right border"]["width"]) == (51, 38)
    assert (at["at the upper border"]["height"], at["at the lower border"]["height"]) == (40, 29)


def test_a_crop_of_another_way_is_another_place_for_the_model(visit: Visit):
    plain = {key: value for key, value in roi_of("rect", "inside", 17).items() if key != "crop"}
    with pages(PAGES) as server:
        server.files = files()
        server.cases = [{"file": "noise.png", "roi": roi} for roi in (plain, plain | {"crop": "gui"})]
        visit(server, "/pages/compare.html")
        (_, console), (_, gui) = (server.results[str(index)] for index in range(2))
        texts = [json.loads(server.results[str(index)][0]["cut"]) for index in range(2)]
    assert console != gui
    assert texts[1] == [*texts[0], "gui"]
