"""Pictures of files: what OpenCV makes of them, and the console's refusals, for the console's reasons."""

import contextlib

import cv2
import numpy as np
import pytest

from backend.commands.watch.crop import Roi
from backend.commands.watch.pictures import LIMITS, PictureRefused, cut_roi, open_picture
from tests.console.pictures import HEIGHT, WIDTH, accepted, decode, deep_png, refused, saved_grey_corner

WHOLE = Roi("rect", WIDTH / 2, HEIGHT / 2, w=WIDTH, h=HEIGHT)
PART = Roi("rect", 90, 70, w=50, h=40)


@pytest.mark.parametrize("name", [*accepted(), "grey-corner.jpg"])
def test_pictures_that_the_console_cuts_are_read_as_they_are_stored(name):
    content = {**accepted(), "grey-corner.jpg": saved_grey_corner()}[name]
    picture = open_picture(content, name)
    assert np.array_equal(picture.pixels, decode(content))
    assert (picture.size, picture.bits) == (
        (WIDTH, HEIGHT),
        4 if name == "palette-4.png" else 1 if name == "bilevel.png" else 8,
    )


@pytest.mark.parametrize("name", refused())
def test_pictures_that_the_console_refuses_are_refused_for_its_reason(name):
    code, content = refused()[name]
    with pytest.raises(PictureRefused) as exc:
        open_picture(content, name)
    assert exc.value.code == code
    assert str(exc.value).startswith(name)
    assert str(exc.value).endswith(".")


@pytest.mark.parametrize("name", ["rgb.png", "420.jpg", "progressive.jpg", "rgb.bmp", "lossy.webp", "interlaced.png"])
def test_a_file_that_is_still_being_written_is_refused_at_every_length(name):
    content = accepted()[name]
    for length in np.linspace(0, len(content) - 1, 60).astype(int):
        with pytest.raises(PictureRefused):
            open_picture(content[:length], name)


@pytest.mark.parametrize("name", ["rgb.png", "interlaced.png", "420.jpg", "progressive.jpg"])
def test_a_png_or_jpeg_with_zeros_for_its_rest_shows_no_false_pixel(name):
    content = accepted()[name]
    opened = []
    for length in np.linspace(0, len(content) - 1, 60).astype(int):
        with contextlib.suppress(PictureRefused):
            opened.append(open_picture(content[:length] + bytes(len(content) - length), name))
    assert len(opened) <= 1  # all pixels are there: of a PNG only its last checksum is missing
    assert all(np.array_equal(picture.pixels, decode(content)) for picture in opened)


def test_a_crop_is_a_png_of_its_pixels_and_a_whole_picture_its_own_bytes():
    content = accepted()["420.jpg"]
    picture = open_picture(content, "420.jpg")
    cut = cv2.imdecode(np.frombuffer(cut_roi(picture, PART).content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cut, decode(content)[50:90, 65:115])
    assert cut_roi(picture, WHOLE).content is content


def test_sixteen_bits_go_whole_or_not_at_all():
    picture = open_picture(deep_png(), "deep.png")
    assert cut_roi(picture, WHOLE).content == deep_png()
    with pytest.raises(PictureRefused, match="16 bits") as exc:
        cut_roi(picture, PART)
    assert exc.value.code == "sixteen_bits"


def test_a_roi_beyond_the_picture_is_refused_with_how_far():
    picture = open_picture(accepted()["rgb.png"], "rgb.png")
    with pytest.raises(PictureRefused, match=f"1 pixels beyond the {WIDTH}×{HEIGHT} picture rgb.png") as exc:
        cut_roi(picture, Roi("rect", 24, 70, w=50, h=40))
    assert exc.value.code == "outside"


def test_the_limits_are_those_of_the_console():
    assert (LIMITS.max_bytes, LIMITS.max_pixels) == (256 * 1024 * 1024, 65_000_000)
