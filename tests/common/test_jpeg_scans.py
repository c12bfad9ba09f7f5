"""JPEGs that were cut and closed again, and kinds of JPEG that are not read; no whole image is taken for either."""

import io
import struct
from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import pytest
from PIL import Image

from backend.common.errors import InvalidImage, UnsupportedImage
from backend.common.jpeg_scans import missing_part, unsupported_jpeg
from backend.utils import ImageLimits, check_image, decode_image
from harness.hostile_files import jpeg_of_many_scans, pixels, saved
from tests.factories import SHARED

LIMITS = ImageLimits(64 << 20, 1_000_000)
SMOOTH = cv2.resize(np.random.default_rng(4).integers(0, 256, (20, 30, 3), np.uint8), (300, 200))
RGB = Image.fromarray(SMOOTH)
KINDS = {
    "4:2:0": saved(RGB, "JPEG"),
    "4:4:4": saved(RGB, "JPEG", subsampling=0, quality=95),
    "grey": saved(RGB.convert("L"), "JPEG"),
    "optimised": saved(RGB, "JPEG", optimize=True),
    "progressive": saved(RGB, "JPEG", progressive=True),
    "progressive, grey": saved(RGB.convert("L"), "JPEG", progressive=True),
    "CMYK": saved(RGB.convert("CMYK"), "JPEG"),
    "with restart markers": saved(RGB, "JPEG", restart_marker_blocks=3),
}


def cut_and_closed(jpeg: bytes, share: float) -> bytes:
    """The data of the last scan end after a share of them, and then the file does."""
    data = jpeg.rindex(b"\xff\xda") + 14
    return jpeg[: data + int((len(jpeg) - 2 - data) * share)].rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_is_whole(kind):
    pixels_of_opencv = cv2.imdecode(
        np.frombuffer(KINDS[kind], np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    assert np.array_equal(decode_image(KINDS[kind], "a.jpg", LIMITS), pixels_of_opencv)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_cut_and_closed_again_is_damage(kind, share):
    content = cut_and_closed(KINDS[kind], share)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None  # OpenCV takes it
    with pytest.raises(InvalidImage, match=r"^a\.jpg: a part of the image is missing"):
        decode_image(content, "a.jpg", LIMITS)


def test_a_progressive_jpeg_whose_last_scans_are_missing_is_damage():
    content = KINDS["progressive"]
    starts = [place for place in range(len(content)) if content[place : place + 2] == b"\xff\xda"]
    assert len(starts) == 10
    for start in starts[1:]:
        with pytest.raises(InvalidImage, match="a part of the image is missing"):
            decode_image(content[:start] + b"\xff\xd9", "a.jpg", LIMITS)


def test_one_that_was_cut_between_restart_markers_is_damage():
    content = KINDS["with restart markers"]
    data = content.rindex(b"\xff\xda") + 14
    marker = content.index(b"\xff\xd3", data)
    with pytest.raises(InvalidImage, match="a part of the image is missing"):
        decode_image(content[:marker] + b"\xff\xd9", "a.jpg", LIMITS)


@pytest.mark.parametrize("value", [127, 128, 129])
def test_a_grey_image_is_no_cut_one(value):
    for size in ((16, 16), (17, 33), (300, 200)):
        for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
            content = saved(Image.new("RGB", size, (value,) * 3), "JPEG", **options)
            assert np.all(decode_image(content, "a.jpg", LIMITS) == value)


def test_an_image_that_ends_in_grey_is_no_cut_one_and_a_cut_one_is():
    picture = SMOOTH.copy()
    picture[100:] = 128
    content = saved(Image.fromarray(picture), "JPEG", quality=95)
    assert np.all(decode_image(content, "a.jpg", LIMITS)[-1, -1] == 128)
    with pytest.raises(InvalidImage, match="a part of the image is missing"):
        decode_image(cut_and_closed(content, 0.5), "a.jpg", LIMITS)


def test_bytes_after_the_image_and_metadata_before_it_change_nothing():
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (KINDS["progressive"], KINDS["CMYK"]):
        reread = Image.open(io.BytesIO(content))
        tagged = saved(reread, "JPEG", exif=exif, comment=b"x" * 60_000, progressive=True, quality="keep")
        for whole in (content + bytes(1000), tagged):
            assert missing_part(whole, decode_image(whole, "a.jpg", LIMITS)) is None
    assert decode_image(jpeg_of_many_scans(96, 64, 20), "a.jpg", LIMITS).shape == (64, 96, 3)


def test_the_second_look_prints_nothing(capfd):
    grey = saved(Image.new("RGB", (64, 64), (128,) * 3), "JPEG")
    for content in (KINDS["progressive"], KINDS["CMYK"], grey):
        decode_image(content, "a.jpg", LIMITS)
    assert capfd.readouterr() == ("", "")


def reframed(marker: int, bits: int) -> bytes:
    """The header of another kind of JPEG, over the data of a usual one."""
    content = bytearray(KINDS["grey"])
    frame = content.index(b"\xff\xc0")
    content[frame + 1] = marker
    content[frame + 4] = bits
    return bytes(content)


@pytest.mark.parametrize(
    ("marker", "bits", "named"),
    [
        (0xC1, 12, "a JPEG of 12 bits"),
        (0xC2, 12, "a JPEG of 12 bits"),
        (0xC3, 16, "a lossless JPEG"),
        (0xC5, 8, "a hierarchical JPEG"),
        (0xCB, 8, "a hierarchical JPEG"),
    ],
)
def test_a_jpeg_of_another_kind_is_unsupported_and_named(marker, bits, named):
    content = reframed(marker, bits)
    assert unsupported_jpeg(content) == named
    assert check_image(content, "a.jpg", LIMITS) == (300, 200)
    with pytest.raises(UnsupportedImage, match=f"^a.jpg: {named} is not an accepted image; send a PNG"):
        decode_image(content, "a.jpg", LIMITS)


def test_arithmetic_coding_is_refused_though_the_decoder_may_read_it():
    jpeg = KINDS["4:2:0"].replace(b"\xff\xc0", b"\xff\xc9", 1)
    with pytest.raises(UnsupportedImage, match="arithmetic"):
        decode_image(jpeg, "a.jpg", LIMITS)


def test_a_usual_jpeg_that_is_broken_is_damaged_and_not_unsupported():
    content = KINDS["grey"]
    frame = content.index(b"\xff\xc4")
    broken = content[: frame + 4] + b"\xff" * 30 + content[frame + 34 :]
    with pytest.raises(InvalidImage) as caught:
        decode_image(broken, "a.jpg", LIMITS)
    assert caught.type is InvalidImage
    assert unsupported_jpeg(b"\xff\xd8\xff\xc0" + struct.pack(">H", 9)) is None


def photographs():
    """JPEGs of real parts, by name: solar cells of a package, and the data sets that are beside the checkout."""
    cells = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))[::45]
    for number, file in enumerate(cells):
        yield file.name, saved(Image.open(file), "JPEG", quality=60 + number % 40, progressive=number % 3 == 0)
    files = sorted((SHARED / "data").glob("*/*/*/*.jpg"))
    for file in files[:: max(1, len(files) // 60)]:
        yield file.name, file.read_bytes()


def test_no_photograph_is_refused_and_all_of_them_are_when_cut():
    limits = ImageLimits(64 << 20, 64_000_000)
    contents = list(photographs())
    assert len(contents) > 50
    for name, content in contents:
        assert decode_image(content, name, limits).size
        with pytest.raises(InvalidImage):
            decode_image(cut_and_closed(content, 0.6), name, limits)


def test_the_picture_of_the_harness_is_whole_in_every_quality():
    for quality in range(5, 100, 10):
        for side in (8, 17, 40, 64):
            image = Image.fromarray(pixels(side, side))
            for options in ({}, {"progressive": True}, {"subsampling": 0}):
                content = saved(image, "JPEG", quality=quality, **options)
                assert decode_image(content, "a.jpg", LIMITS).shape == (side, side, 3)
