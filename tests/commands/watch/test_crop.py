"""The crop in NumPy beside a computation of its own, pixel by pixel; tests/console compares it with the browser's."""

import math
from fractions import Fraction

import numpy as np
import pytest

from backend.commands.watch.crop import Roi, crop, turn_of

WIDTH, HEIGHT = 37, 29
ROIS = [
    Roi("rect", 18, 14, w=20, h=11),
    Roi("rect", 18.25, 14.5, w=13, h=9),
    Roi("rect", 18, 14, w=12, h=20, angle_deg=90),
    Roi("rect", 18.3, 13.9, w=17, h=8, angle_deg=-33.3),
    Roi("circle", 18.5, 14.5, r=9.4, angle_deg=211),
    Roi("rect", WIDTH / 2, HEIGHT / 2, w=WIDTH, h=HEIGHT, angle_deg=180),
]


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def at(image, x, y, channel):
    """Bilinear in rational numbers, at a place counted from the centre of the first pixel."""
    left, above = math.floor(x), math.floor(y)
    rest_x, rest_y = x - left, y - above
    value = Fraction(0)
    for row, share_y in ((above, 1 - rest_y), (above + 1, rest_y)):
        for column, share_x in ((left, 1 - rest_x), (left + 1, rest_x)):
            pixel = image[min(max(row, 0), HEIGHT - 1), min(max(column, 0), WIDTH - 1), channel]
            value += share_x * share_y * int(pixel)
    return value


@pytest.mark.parametrize("roi", ROIS)
def test_each_pixel_of_a_crop_lies_between_four_of_the_picture(image, roi):
    cut = crop(image, roi)
    width, height = roi.size
    assert cut.shape == (height, width, 3)
    cos, sin = (Fraction(turn(math.radians(roi.angle_deg))).limit_denominator(10**12) for turn in (math.cos, math.sin))
    for i in range(0, height, 3):
        for j in range(width):
            u, v = Fraction(2 * j + 1 - width, 2), Fraction(2 * i + 1 - height, 2)
            x = Fraction(roi.cx) + u * cos - v * sin - Fraction(1, 2)
            y = Fraction(roi.cy) + u * sin + v * cos - Fraction(1, 2)
            expected = at(image, x, y, j % 3)
            assert abs(expected - int(cut[i, j, j % 3])) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_a_large_crop_has_no_seams_between_its_blocks():
    rows, columns = np.mgrid[:300, :300]
    ramp = np.repeat(((rows + columns) % 256).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(crop(ramp, Roi("rect", 150, 150, w=280, h=290)), ramp[5:295, 10:290])


def test_a_turn_by_quarters_moves_pixels_and_changes_none(image):
    roi = Roi("rect", 18, 14, w=12, h=20, angle_deg=90)
    assert np.array_equal(crop(image, roi), np.rot90(image[8:20, 8:28]))


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        (Roi("rect", 10, 10, w=20, h=20), 0),
        (Roi("rect", 8, 10, w=20, h=20), 1.5),  # the outermost centre is half a pixel inside of the edge
        (Roi("rect", 18, 9, w=20, h=20, angle_deg=45), 19 / math.sqrt(2) - 9),
        (Roi("circle", 18, 27, r=6), 27 + 5.5 - HEIGHT),
        (Roi("circle", 18, 14, r=6, angle_deg=45), 0),
    ],
)
def test_how_far_a_roi_reaches_beyond_the_picture(roi, expected):
    assert roi.beyond(WIDTH, HEIGHT) == pytest.approx(expected)


def test_only_a_whole_picture_that_is_not_turned_is_whole():
    whole = Roi("rect", WIDTH / 2, HEIGHT / 2, w=WIDTH, h=HEIGHT, angle_deg=360)
    assert whole.is_whole(WIDTH, HEIGHT)
    assert not whole.is_whole(WIDTH + 1, HEIGHT)
    assert not Roi("rect", WIDTH / 2, HEIGHT / 2, w=WIDTH, h=HEIGHT, angle_deg=180).is_whole(WIDTH, HEIGHT)
    assert not Roi("rect", WIDTH / 2 + 0.5, HEIGHT / 2, w=WIDTH, h=HEIGHT).is_whole(WIDTH, HEIGHT)


def test_a_ring_is_cut_as_its_square_and_masked_in_the_middle():
    ring = Roi("annulus", 10, 12, r=7.6, r_inner=3)
    assert ring.size == (15, 15)
    assert ring.shape == {"kind": "annulus", "cx": 7.5, "cy": 7.5, "r": 7.6, "r_inner": 3}
    assert Roi("rect", 10, 12, w=4, h=5).shape is None


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, 720])
def test_quarters_turn_without_rounding(degrees):
    assert all(value in (-1, 0, 1) for value in turn_of(degrees))
