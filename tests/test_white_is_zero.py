"""16-bit TIFFs in which 0 is white: the largest number of the bits that are used is black."""

import contextlib

import numpy as np
import numpy.typing as npt
import pytest

from backend.bit_depth import NOT_SETTLED, BitDepth, decode, settle
from backend.commands.evaluate.masks import read_mask
from backend.common.errors import InvalidImage, InvalidRequest, UnsupportedImage
from backend.utils import ImageLimits, NamedImage
from harness.tiff_files import tiff

LIMITS = ImageLimits(64 << 20, 1_000_000)
WHITE_IS_ZERO = {262: 0}
DEPTHS = (8, 10, 12, 14, 16)


def numbers(bits: int, channels: int = 1) -> npt.NDArray[np.uint16]:
    """A ramp from 0 to the largest number of so many bits, uint16 [8, 32, channels]; alpha is far above it."""
    ramp = np.linspace(0, (1 << bits) - 1, 8 * 32).round().astype(np.uint16).reshape(8, 32, 1)
    return np.concatenate([ramp, np.full_like(ramp, 65535)][:channels], axis=2)


def depth_of(*contents: bytes) -> BitDepth | None:
    images = [NamedImage(f"{number}.tif", lambda content=content: content) for number, content in enumerate(contents)]
    return settle(images, LIMITS, lambda image: contextlib.nullcontext())


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["none", "LZW"])
def test_it_is_inverted_over_the_bits_that_the_fit_settles(bits, channels, codec):
    stored = numbers(bits, channels)
    content = tiff(stored, codec=codec, extra=WHITE_IS_ZERO)
    depth = depth_of(content)
    assert depth == BitDepth(bits, (1 << bits) - 1)
    pixels, warning = decode(content, "part.tif", LIMITS, depth)
    expected = ((1 << bits) - 1 - stored[..., 0].astype(int)) >> bits - 8
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))
    assert warning is None


def test_it_is_the_picture_that_it_is_with_0_as_black():
    stored = numbers(12)
    inverted, plain = tiff(stored, extra=WHITE_IS_ZERO), tiff(4095 - stored)
    depth = depth_of(inverted, plain)
    assert depth == BitDepth(12, 4095)
    assert np.array_equal(*(decode(content, "part.tif", LIMITS, depth)[0] for content in (inverted, plain)))


def test_it_may_have_fewer_bits_than_others_only_with_a_word():
    inverted = tiff(numbers(12), extra=WHITE_IS_ZERO)
    with pytest.raises(InvalidRequest, match="use different numbers of bits"):
        depth_of(inverted, tiff(numbers(16)))
    assert "reaches 4095, but those of the fit reach 65535" in str(
        decode(inverted, "part.tif", LIMITS, BitDepth(16, 65535))[1]
    )
    with pytest.raises(InvalidImage, match="reaches 4095, but the memory bank was fitted on images of 10 bits"):
        decode(inverted, "part.tif", LIMITS, BitDepth(10, 1023))


def test_without_a_recorded_depth_all_16_bits_are_inverted_and_said():
    stored = numbers(16)
    pixels, warning = decode(tiff(stored, extra=WHITE_IS_ZERO), "part.tif", LIMITS, None)
    assert np.array_equal(pixels[..., 0], 65535 - stored[..., 0] >> 8)
    assert warning == NOT_SETTLED


@pytest.mark.parametrize("bits", DEPTHS)
def test_a_mask_marks_what_is_not_its_black(tmp_path, bits):
    stored = np.full((8, 32, 1), (1 << bits) - 1, np.uint16)
    stored[2:4, 5:9] = 0
    path = tmp_path / "mask.tif"
    path.write_bytes(tiff(stored, extra=WHITE_IS_ZERO))
    assert np.array_equal(read_mask(str(path), LIMITS), stored[..., 0] == 0)


def test_a_mask_whose_black_cannot_be_known_is_refused(tmp_path):
    path = tmp_path / "mask.tif"
    path.write_bytes(tiff(np.full((8, 32, 1), 3000, np.uint16), extra=WHITE_IS_ZERO))
    with pytest.raises(UnsupportedImage, match="largest number is 3000, so nobody can tell which number is black"):
        read_mask(str(path), LIMITS)
