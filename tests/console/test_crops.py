"""What the console cuts out of a picture is, byte for byte, what NumPy cuts out of what the service decodes."""

import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from backend.commands.watch.crop import Roi, crop, turn_of
from harness.pages import pages
from tests.console.conftest import PAGES, Visit, visit_in_firefox
from tests.console.pictures import (
    HEIGHT,
    WIDTH,
    accepted,
    bgr,
    decode,
    deep_png,
    interlaced_png,
    refused,
    saved_grey_corner,
)

WHOLE = Roi("rect", WIDTH / 2, HEIGHT / 2, w=WIDTH, h=HEIGHT)
TILTED = Roi("rect", 90.3, 70.2, w=51, h=40, angle_deg=33.3)
ROIS = {
    "whole": WHOLE,
    "whole turn": dataclasses.replace(WHOLE, angle_deg=-720),
    "whole, upside down": dataclasses.replace(WHOLE, angle_deg=180),
    "whole circle": Roi("circle", HEIGHT / 2, HEIGHT / 2, r=HEIGHT / 2),
    "plain": Roi("rect", 90, 70, w=50, h=40),
    "between pixels": Roi("rect", 90.25, 70.4, w=50, h=41),
    "to the last pixel": Roi("rect", WIDTH - 25, HEIGHT - 20, w=50, h=40),
    "tilted": TILTED,
    "tilted the other way": Roi("rect", 101.5, 74.5, w=120, h=33, angle_deg=-17.3),
    "a quarter": Roi("rect", 90, 70, w=50, h=40, angle_deg=90),
    "a half": Roi("rect", 90.5, 70, w=51, h=40, angle_deg=180),
    "three quarters": Roi("rect", 90.5, 70, w=51, h=40, angle_deg=-90),
    "a quarter of the whole height": Roi("rect", 90, HEIGHT / 2, w=HEIGHT, h=60, angle_deg=270),
    "ties of rounding": Roi("rect", 90, 70, w=21, h=21, angle_deg=30),
    "half pixels": Roi("rect", 90, 70, w=21, h=21),
    "hardly turned": Roi("rect", 101, 74, w=150, h=100, angle_deg=0.1),
    "a long way round": Roi("rect", 101, 74, w=60, h=30, angle_deg=1234.5),
    "one pixel": Roi("rect", 7.5, 9.5, w=1, h=1),
    "circle": Roi("circle", 60, 60, r=30.2, angle_deg=-17),
    "circle at the corner": Roi("circle", 40, 40, r=40, angle_deg=45),
    "annulus": Roi("annulus", 100, 70, r=50.5, r_inner=10.5, angle_deg=90),
    "tilted annulus": Roi("annulus", 100.25, 70.75, r=50, r_inner=49, angle_deg=211.7),
}
OUTSIDE = {
    "to the left": Roi("rect", 24, 70, w=50, h=40),
    "below": Roi("rect", 90, HEIGHT - 19, w=50, h=40),
    "by a corner": Roi("rect", 30, 70, w=50, h=40, angle_deg=40),
    "circle": Roi("circle", 60, 29, r=30),
    "far away": Roi("rect", 5000, 70, w=50, h=40),
}
INVALID = {
    "no width": Roi("rect", 90, 70, w=0, h=40),
    "no radius": Roi("circle", 90, 70),
    "a ring that is none": Roi("annulus", 90, 70, r=20, r_inner=20),
}
TINY = Roi("rect", 1, 1.5, w=1, h=2, angle_deg=90)
EVERY_ROI = ("rgb.png", "420.jpg")

Case = tuple[str, Roi]
Result = tuple[dict[str, Any], bytes]


def tiny() -> bytes:
    """Two pixels by three, of which some passes of Adam7 are empty."""
    return interlaced_png(bgr()[:3, :2])


def cases() -> Iterator[Case]:
    for file in [*accepted(), "grey-corner.jpg"]:
        for name, roi in ROIS.items():
            if file in EVERY_ROI or name in ("whole", "tilted", "annulus"):
                yield file, roi
    yield from (("rgb.png", roi) for roi in [*OUTSIDE.values(), *INVALID.values()])
    yield from ((file, TILTED) for file in refused())
    yield "tiny.png", TINY
    yield from (("deep.png", roi) for roi in (WHOLE, TILTED))


@cache
def files() -> dict[str, bytes]:
    refusals = {name: content for name, (_, content) in refused().items()}
    return {
        **accepted(),
        **refusals,
        "deep.png": deep_png(),
        "grey-corner.jpg": saved_grey_corner(),
        "tiny.png": tiny(),
    }


@pytest.fixture(scope="module")
def found(visit: Visit) -> tuple[dict[Case, Result], dict[str, Any]]:
    """By picture and ROI what the browser cut, and its self-test."""
    with pages(PAGES) as server:
        server.files = files()
        asked = list(cases())
        server.cases = [{"file": file, "roi": dataclasses.asdict(roi)} for file, roi in asked]
        visit(server, "/pages/compare.html")
        results = {case: server.results[str(index)] for index, case in enumerate(asked)}
        return results, server.results["self-test"][0]


@pytest.fixture(scope="module")
def crops(found: tuple[dict[Case, Result], dict[str, Any]]) -> dict[Case, Result]:
    return found[0]


def is_whole(roi: Roi) -> bool:
    return roi.size == (WIDTH, HEIGHT) and roi.angle_deg % 360 == 0


@pytest.mark.parametrize("file", [*accepted(), "grey-corner.jpg"])
def test_crops_of_every_kind_of_picture_are_numpys(crops, file):
    image = decode(files()[file])
    for roi in ROIS.values():
        if (file, roi) not in crops:
            continue
        head, content = crops[file, roi]
        expected = crop(image, roi)
        assert (head.get("message"), head.get("width"), head.get("height")) == (None, *roi.size)
        assert np.array_equal(decode(content), expected), roi


@pytest.mark.parametrize("name", ROIS)
def test_crops_of_every_roi_have_its_size_and_shape(crops, name):
    for file in EVERY_ROI:
        head, _ = crops[file, ROIS[name]]
        assert head["shape"] == ROIS[name].shape


def test_a_picture_of_six_pixels_is_cut(crops):
    head, content = crops["tiny.png", TINY]
    assert "message" not in head
    assert np.array_equal(decode(content), crop(bgr()[:3, :2], TINY))


def test_a_crop_is_what_is_seen_and_not_a_mean_of_it():
    image = decode(files()["rgb.png"])
    assert np.array_equal(crop(image, ROIS["plain"]), image[50:90, 65:115])
    assert np.array_equal(crop(image, ROIS["a quarter"]), np.rot90(image[45:95, 70:110]))
    assert np.array_equal(crop(image, ROIS["a half"]), image[50:90, 65:116][::-1, ::-1])


def test_a_tilted_crop_is_what_opencv_cuts_but_for_rounding():
    image = decode(files()["rgb.png"])
    cos, sin = turn_of(TILTED.angle_deg)
    width, height = TILTED.size
    # OpenCV counts from the centres of pixels.
    shift = [TILTED.cx - 0.5, TILTED.cy - 0.5] - np.array([[cos, -sin], [sin, cos]]) @ [
        (width - 1) / 2,
        (height - 1) / 2,
    ]
    matrix = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(image.astype(np.float32), matrix, (width, height), flags=flags)
    assert np.abs(crop(image, TILTED) - expected).max() < 6  # its fractions have five bits


@pytest.mark.parametrize("degrees", [0, 0.1, 30, 44.99, 45, 45.01, 90, 135, 180, 269.9, -17.3, 1234.5])
def test_sums_and_products_make_cosine_and_sine(degrees):
    assert turn_of(degrees) == pytest.approx((np.cos(np.radians(degrees)), np.sin(np.radians(degrees))), abs=1e-14)


@pytest.mark.parametrize("file", [*accepted(), "deep.png"])
def test_a_whole_picture_goes_as_its_own_bytes_unless_exif_turns_it(crops, file):
    head, content = crops[file, WHOLE]
    assert head["turned"] == file.startswith("turned")
    assert (content == files()[file]) != head["turned"]


@pytest.mark.parametrize("file", refused())
def test_pictures_that_a_browser_cannot_keep_are_refused(crops, file):
    head, content = crops[file, TILTED]
    assert (head["refused"], content) == (refused()[file][0], b""), head
    assert head["message"].startswith(file)
    assert head["message"].endswith(".")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_roi_beyond_the_picture_is_refused_with_how_far(crops, name):
    head, _ = crops["rgb.png", OUTSIDE[name]]
    assert head["refused"] == "outside"
    assert re.search(rf"\d+ pixels? beyond the {WIDTH}×{HEIGHT} picture rgb\.png", head["message"])


@pytest.mark.parametrize("name", INVALID)
def test_a_roi_without_a_size_is_refused(crops, name):
    assert crops["rgb.png", INVALID[name]][0]["refused"] == "invalid_roi"


def test_sixteen_bits_are_sent_whole_or_not_at_all(crops):
    head, content = crops["deep.png", TILTED]
    assert (head["refused"], content) == ("sixteen_bits", b"")


def test_this_browser_passes_the_test_of_itself(found):
    assert found[1] == {"ok": True}


def test_no_picture_is_opened_where_the_browser_adds_noise_to_pixels():
    with pages(PAGES) as server:
        server.files = files()
        server.cases = [{"file": "rgb.png", "roi": dataclasses.asdict(roi)} for roi in (WHOLE, TILTED)]
        visit_in_firefox(server, "/pages/compare.html", privacy__resistFingerprinting=True)
        refusals = [server.results[str(index)] for index in (0, 1)]
        verdict, _ = server.results["self-test"]
    assert [(head["refused"], content) for head, content in refusals] == [("browser", b""), ("browser", b"")]
    assert verdict["ok"] is False
    assert "changes pixels: 1280 of 1280 differ" in verdict["reason"]
