"""PNG files of our own: others read the same pixels, and what they say of themselves."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from isal import isal_zlib
from PIL import Image

from backend.common.png_writer import encode_png, png_text

SIZES = [(1, 1), (1, 7), (9, 1), (40, 60), (1300, 900)]


def picture_of(*size):
    smooth = cv2.resize(np.random.default_rng(3).integers(0, 256, (5, 5, 3), np.uint8), size[1::-1])
    return smooth if len(size) == 3 else smooth[..., 0].copy()


@pytest.mark.parametrize("size", SIZES)
def test_others_read_the_pixels_of_a_colour_picture(size):
    picture = picture_of(*size, 3)
    png = encode_png(picture)
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), picture)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image)[..., ::-1], picture)


@pytest.mark.parametrize("size", SIZES)
def test_a_heatmap_without_text_has_the_bytes_that_it_always_had(size):
    heatmap = picture_of(*size)
    lines = np.hstack([np.ones((size[0], 1), np.uint8), heatmap[:, :1], np.diff(heatmap, axis=1)])
    expected = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", size[1], size[0], 8, 0, 0, 0, 0)
    for name, content in ((b"IHDR", header), (b"IDAT", isal_zlib.compress(lines, 1)), (b"IEND", b"")):
        expected += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    assert encode_png(heatmap) == expected


@pytest.mark.parametrize("size", [(40, 60), (40, 60, 3)])
def test_what_a_file_says_of_itself_is_read_by_others_and_here(size):
    picture = picture_of(*size)
    png = encode_png(picture, "overlay threshold=0.55")
    assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), picture)
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.info["Description"] == "overlay threshold=0.55"
    assert png_text(png[:512]) == "overlay threshold=0.55"


@pytest.mark.parametrize("beginning", [b"", b"\x89PNG", encode_png(picture_of(3, 3)), b"x" * 600])
def test_other_files_say_nothing(beginning):
    assert png_text(beginning) is None
