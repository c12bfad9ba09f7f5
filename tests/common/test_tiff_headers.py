"""What a TIFF says about itself: read in bounded time, believed in nothing, refused by its name."""

import io
import random
import struct
import time

import numpy as np
import pytest
from PIL import Image

from backend.common.errors import InvalidImage, TooLarge, UnsupportedImage
from backend.common.foreign_formats import UnsupportedKind
from backend.common.tiff_headers import tiff_layout, tiff_size
from backend.utils import ImageLimits, check_image, decode_image
from harness.hostile_files import pixels, saved
from harness.tiff_files import tiff

LIMITS = ImageLimits(64 << 20, 1_000_000)
GREY = pixels(50, 40, 1)
RGB = pixels(50, 40)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("size", [(1, 1), (255, 256), (1000, 3)])
def test_the_size_is_read_in_both_byte_orders(order, size):
    assert tiff_size(tiff(pixels(*size), order=order)) == size


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({259: 2}, "with CCITT compression"),
        ({259: 4}, "with CCITT compression"),
        ({259: 6}, "with JPEG compression"),
        ({259: 7}, "with JPEG compression"),
        ({259: 50000}, "with Zstandard compression"),
        ({259: 999}, r"unknown \(number 999\) compression"),
        ({262: 3}, "with a colour palette"),
        ({262: 5}, "with CMYK colours"),
        ({262: 6}, "with YCbCr colours"),
        ({262: 8}, "with CIELab colours"),
        ({262: 32803}, "with raw sensor data"),
        ({262: 77}, r"unknown colours \(number 77\)"),
        ({258: 1}, "of 1 bits a channel"),
        ({258: 12}, "of 12 bits"),
        ({258: 32}, "of 32 bits"),
        ({258: 32, 339: 3}, "of floating point numbers"),
        ({339: 2}, "of signed integers"),
        ({277: 5}, "of 5 channels in grey"),
        ({277: 2, 284: 2}, "with separate colour planes"),
        ({266: 2}, "in reverse order"),
        ({259: 8, 317: 3}, "with predictor 3"),
    ],
)
def test_another_kind_of_tiff_is_unsupported_and_named(tags, named):
    content = tiff(GREY, extra=tags)
    with pytest.raises(UnsupportedKind, match=f"^a TIFF .*{named}"):
        tiff_size(content)
    with pytest.raises(UnsupportedImage, match=f"{named}.*is not an accepted image; send a TIFF of one page"):
        check_image(content, "a.tif", LIMITS)


def test_kinds_that_pillow_writes_are_named():
    rgb = Image.fromarray(RGB)
    for image, options, named in (
        (rgb, {"compression": "jpeg"}, "JPEG compression"),
        (rgb.convert("CMYK"), {}, "CMYK"),
        (rgb.quantize(16), {}, "palette"),
        (rgb.convert("1"), {"compression": "group4"}, "CCITT"),
        (rgb.convert("1"), {}, "1 bits"),
        (rgb.convert("F"), {}, "floating point"),
        (rgb.convert("LAB"), {}, "CIELab"),
    ):
        with pytest.raises(UnsupportedImage, match=named):
            check_image(saved(image, "TIFF", **options), "a.tif", LIMITS)


def test_several_pages_are_refused():
    both = saved(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(RGB)])
    with pytest.raises(
        UnsupportedImage, match="a TIFF of several pages is not an accepted image; send a TIFF of one page"
    ):
        check_image(both, "a.tif", LIMITS)


def test_a_bigtiff_is_named():
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "TIFF", big_tiff=True)
    with pytest.raises(UnsupportedImage, match="a BigTIFF is not an accepted image"):
        check_image(buffer.getvalue(), "a.tif", LIMITS)


def directory_of(content: bytes) -> int:
    (offset,) = struct.unpack_from("<I", content, 4)
    return int(offset)


def changed(content: bytes, offset: int, form: str, value: int) -> bytes:
    new = bytearray(content)
    struct.pack_into(form, new, offset, value)
    return bytes(new)


def test_a_directory_that_leads_to_itself_or_out_of_the_file_is_damage():
    content = tiff(GREY)
    start = directory_of(content)
    (n_tags,) = struct.unpack_from("<H", content, start)
    following = start + 2 + 12 * n_tags
    for offset in (start, 5, len(content) - 3, 2**32 - 1):
        with pytest.raises(InvalidImage) as caught:
            check_image(changed(content, following, "<I", offset), "a.tif", LIMITS)
        assert caught.type is InvalidImage


@pytest.mark.parametrize("start", [0, 4, 2**31, 2**32 - 1])
def test_a_directory_outside_the_file_is_damage(start):
    with pytest.raises(InvalidImage, match="damaged") as caught:
        check_image(changed(tiff(GREY), 4, "<I", start), "a.tif", LIMITS)
    assert caught.type is InvalidImage


def test_more_tags_than_any_camera_writes_are_refused():
    many = b"II*\0" + struct.pack("<IH", 8, 1001) + struct.pack("<HHII", 256, 4, 1, 9) * 1001 + bytes(4)
    with pytest.raises(ValueError, match="a TIFF of 1001 tags"):
        tiff_size(many)


@pytest.mark.parametrize("tag", [256, 257, 273, 279, 262])
def test_a_tag_that_is_needed_and_missing_is_damage(tag):
    with pytest.raises(InvalidImage, match="damaged") as caught:
        check_image(tiff(GREY, codec="deflate", without=(tag,)), "a.tif", LIMITS)
    assert caught.type is InvalidImage


def test_segments_outside_the_file_or_too_short_are_damage():
    for extra in ({273: 10**6}, {273: 2}, {273: 2**32 - 1}, {279: 100}, {279: 0}):
        for codec in ("none", "deflate"):
            if codec == "deflate" and extra == {279: 100}:
                continue  # that it is too short shows when it is unpacked
            with pytest.raises(InvalidImage, match="damaged") as caught:
                check_image(tiff(GREY, codec=codec, extra=extra), "a.tif", LIMITS)
            assert caught.type is InvalidImage


def test_strips_that_all_lie_on_the_same_bytes_are_damage():
    # A thousand strips of a megabyte each, of which the file holds one.
    rows, n_bytes = 1000, 1 << 20
    body = bytes(n_bytes)
    content = tiff(np.zeros((rows, 8, 1), np.uint8), codec="LZW", rows_each=1, segments=[b""] * rows, extra_body=body)
    content = tiff(
        np.zeros((rows, 8, 1), np.uint8),
        codec="LZW",
        rows_each=1,
        segments=[b""] * rows,
        extra_body=body,
        offsets=[8] * rows,
        counts=[n_bytes] * rows,
    )
    with pytest.raises(InvalidImage, match="truncated or damaged"):
        check_image(content, "a.tif", LIMITS)


def test_too_many_pixels_are_refused_before_segments_are_counted():
    begin = time.perf_counter()
    for side in (1001, 65_500, 2**31 - 1, 2**32 - 1):
        with pytest.raises(TooLarge, match=f"{side}x{side} pixels, at most 1000000"):
            decode_image(tiff(GREY, extra={256: side, 257: side, 278: 1}), "bomb.tif", LIMITS)
    assert time.perf_counter() - begin < 0.5


def test_tiles_far_larger_than_the_image_are_refused():
    with pytest.raises(InvalidImage, match="tiles of the image are far larger"):
        check_image(tiff(GREY, tile=(16, 16), extra={322: 65_536, 323: 65_536}), "a.tif", LIMITS)
    with pytest.raises(InvalidImage, match="damaged"):
        check_image(tiff(GREY, tile=(16, 16), extra={322: 17}), "a.tif", LIMITS)


def test_a_file_without_byte_counts_is_read_where_nothing_is_packed():
    assert tiff_layout(tiff(GREY, without=(279,))).counts.tolist() == [2000]


def test_random_directories_are_judged_at_once():
    chance = random.Random(5)
    original = tiff(RGB, codec="deflate")
    start = directory_of(original)
    slowest = 0.0
    for _ in range(3000):
        content = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(start, len(content)) if chance.random() < 0.8 else chance.randrange(8)
            content[place] = chance.choice((0, 1, 0xFF, chance.randrange(256)))
        begin = time.perf_counter()
        try:
            size = check_image(bytes(content), "a.tif", LIMITS)
            assert size[0] * size[1] <= LIMITS.max_pixels
        except (InvalidImage, TooLarge):
            pass
        slowest = max(slowest, time.perf_counter() - begin)
    assert slowest < 0.2
