"""BMPs that OpenCV does not read: some are read all the same, the others are named."""

import struct

import numpy as np
import pytest

from backend.common.errors import InvalidImage, UnsupportedImage
from backend.utils import ImageLimits, decode_image, decode_numbers

LIMITS = ImageLimits(1 << 20, 1 << 20)
WORDS = np.random.default_rng(1).integers(0, 1 << 32, (4, 5), np.uint32)
SHORTS = np.arange(4 * 6, dtype="<u2").reshape(4, 6) * 2741  # of 5 pixels, and filled up to 4 bytes


def bmp(
    compression: int, bits: int, content: bytes = bytes(400), *, header: int = 40, masks: tuple[int, ...] = ()
) -> bytes:
    """5×4 pixels; the masks stand behind a header of 40 bytes, and within a longer one."""
    info = struct.pack("<IiiHHIIiiII", header, 5, 4, 1, bits, compression, len(content), 0, 0, 0, 0)
    info = (info + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(content), 0, 0, 14 + len(info)) + info + content


@pytest.mark.parametrize("red", [0, 16])
@pytest.mark.parametrize("alpha", [0, 0xFF000000])
def test_bit_fields_with_alpha_are_read_where_their_masks_say(red, alpha):
    masks = (0xFF << red, 0xFF00, 0xFF << (16 - red), alpha)
    image = decode_image(bmp(6, 32, WORDS.tobytes(), masks=masks), "a.bmp", LIMITS)
    upright = WORDS[::-1]  # the last row comes first
    expected = np.stack([upright >> (16 - red) & 255, upright >> 8 & 255, upright >> red & 255], axis=-1)
    assert np.array_equal(image, expected)


@pytest.mark.parametrize(("compression", "header"), [(6, 40), (3, 56), (3, 108), (3, 124), (6, 108)])
@pytest.mark.parametrize(("red", "green", "n_green"), [(10, 5, 5), (11, 5, 6)])
def test_bit_fields_of_16_bits_are_read_in_every_header(compression, header, red, green, n_green):
    masks = (31 << red, ((1 << n_green) - 1) << green, 31, 0)
    content = bmp(compression, 16, SHORTS.tobytes(), header=header, masks=masks)
    image = decode_image(content, "a.bmp", LIMITS)
    upright = SHORTS[::-1, :5].astype(int)
    expected = [(upright & 31) * 8, (upright >> green) % (1 << n_green) << 8 - n_green, (upright >> red) % 32 * 8]
    assert np.array_equal(image, np.stack(expected, axis=-1))
    assert np.array_equal(decode_numbers(content, "a.bmp", LIMITS)[..., :3], image)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (bmp(4, 0, b"\xff\xd8\xff"), "a BMP with JPEG compression"),
        (bmp(5, 0, b"\x89PNG"), "a BMP with PNG compression"),
        (bmp(11, 32), "a BMP with CMYK colours"),
        (bmp(7, 24), "a BMP with unknown compression (number 7)"),
        (bmp(3, 1, header=64), "a BMP with Huffman compression"),
        (bmp(4, 24, header=64), "a BMP with run-length compression of 24 bits"),
        (bmp(0, 2), "a BMP of 2 bits"),
        (bmp(0, 64), "a BMP of 64 bits"),
        (
            b"BM" + struct.pack("<IHHI", 400, 0, 0, 30) + struct.pack("<IiiHH", 16, 5, 4, 1, 24) + bytes(400),
            "a BMP with",
        ),
    ],
)
def test_other_kinds_are_named_and_not_called_damaged(content, named):
    with pytest.raises(UnsupportedImage) as caught:
        decode_image(content, "a.bmp", LIMITS)
    assert str(caught.value).startswith(f"a.bmp: {named}")
    assert "is not an accepted image; send a PNG, JPEG, BMP, TIFF or WebP image" in str(caught.value)


@pytest.mark.parametrize(("compression", "bits", "header"), [(6, 32, 40), (6, 16, 40), (3, 16, 124), (0, 24, 40)])
def test_cut_ones_are_damaged_wherever_they_end(compression, bits, header):
    masks = (0xFF0000, 0xFF00, 0xFF, 0) if bits == 32 else (0x7C00, 0x3E0, 0x1F, 0)
    content = bmp(compression, bits, bytes(4 * 5 * bits // 8 + 4), header=header, masks=masks)
    for length in range(2, len(content) - 20):
        with pytest.raises(InvalidImage, match="damaged") as caught:
            decode_image(content[:length], "a.bmp", LIMITS)
        assert caught.type is InvalidImage
