"""Pixels of a PNG beyond its rows: noticed before a decoder spends minutes on them."""

import zlib

import cv2
import numpy as np
import pytest

from backend.common.errors import InvalidImage
from backend.common.png_stream import unpacks_too_far
from backend.utils import ImageLimits, decode_image
from harness.hostile_files import png, png_chunk

LIMITS = ImageLimits(64 << 20, 64_000_000)
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def zeros(n_bytes):
    """A zlib stream of so many bytes that unpacks to a thousand times as many."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(4 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + block * -(-n_bytes // len(block))


@pytest.fixture(scope="module")
def bomb():
    """64×64 pixels, and 5 GB of zeros."""
    small = png(64, 64, bytes(64 * (1 + 3 * 64)))
    head, _, _ = small.partition(b"IDAT")
    return head[:-4] + png_chunk(b"IDAT", zeros(5 << 20)) + png_chunk(b"IEND", b"")


def test_pixels_far_beyond_the_rows_are_damage(bomb):
    assert unpacks_too_far(bomb)
    with pytest.raises(InvalidImage, match=r"bomb\.png: .* more pixels"):
        decode_image(bomb, "bomb.png", LIMITS)


@pytest.mark.parametrize("chunk_bytes", [8192, 5 << 20])
def test_they_are_found_in_chunks_of_any_length(bomb, chunk_bytes):
    head, _, rest = bomb.partition(b"IDAT")
    stream = rest[: len(rest) - 16]
    chunks = [png_chunk(b"IDAT", stream[start : start + chunk_bytes]) for start in range(0, len(stream), chunk_bytes)]
    assert unpacks_too_far(head[:-4] + b"".join(chunks) + png_chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16), (4, np.uint16)]
)
def test_large_images_of_noise_are_what_they_say(channels, dtype):
    side = int((6e6 / channels / np.dtype(dtype).itemsize) ** 0.5)
    chance = np.random.default_rng(0)
    noise = chance.integers(0, np.iinfo(dtype).max, (side, side, channels), dtype, endpoint=True)
    content = cv2.imencode(".png", noise)[1].tobytes()
    assert len(content) > 5e6
    assert not unpacks_too_far(content)
    assert decode_image(content, "noise.png", LIMITS).shape == (side, side, 3)


def test_a_stream_that_breaks_off_or_is_none_is_left_to_the_decoder(bomb):
    head, _, _ = bomb.partition(b"IDAT")
    for stream in (b"\x78\x9c" + bytes(5 << 20), np.random.default_rng(0).bytes(5 << 20), bomb[-1:]):
        content = head[:-4] + png_chunk(b"IDAT", stream) + png_chunk(b"tEXt", bytes(5 << 20))
        assert not unpacks_too_far(content)
        with pytest.raises(InvalidImage, match="truncated or damaged"):
            decode_image(content, "damaged.png", LIMITS)


def test_an_interlaced_image_takes_less_than_twice_its_rows():
    for bits in (1, 2, 4, 8, 16, 24, 32, 48, 64):
        for width in range(1, 40):
            for height in range(1, 40):
                rows = height * (1 + (width * bits + 7) // 8)
                passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in ADAM7]
                interlaced = sum(h * (1 + (w * bits + 7) // 8) for w, h in passes if w > 0 and h > 0)
                assert interlaced <= 2 * rows + 8
