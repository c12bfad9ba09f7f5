"""Image bytes and the pixels that they mean, percentiles, and areas in millimetres and pixels."""

import base64
import io
import struct
import time
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.common.config import Settings
from backend.common.errors import InvalidImage, TooLarge, UnsupportedImage
from backend.common.roi_key import RoiKey
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import (
    ImageLimits,
    NamedImage,
    check_image,
    decode_image,
    encode_png_base64,
    mm2_to_px2,
    percentile,
    px2_to_mm2,
)
from harness.hostile_files import jpeg_of_many_scans

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1_000_000)


ORIENTATION = 0x0112


random = np.random.default_rng(11)


RGB = random.integers(0, 256, (30, 50, 3), dtype=np.uint8)


GREY = random.integers(0, 256, (30, 50), dtype=np.uint8)


ALPHA = random.integers(0, 256, (30, 50), dtype=np.uint8)


GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)


PALETTE = Image.fromarray(RGB).quantize(64)


PALETTE_RGB = np.array(PALETTE.convert("RGB"))


def decode(content):
    return decode_image(content, "part.png", LIMITS)


def saved(image, image_format="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_by_hand(width, height, depth, colour_type, rows=b""):
    """A PNG written chunk by chunk: for what Pillow does not write, and for headers that lie."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def png_of_16_bits(pixels, colour_type):
    """`pixels` uint8 [H, W, C] as 16-bit samples that mean the same: 255 becomes 65535."""
    wide = (pixels.astype(np.uint32) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return png_by_hand(pixels.shape[1], pixels.shape[0], 16, colour_type, rows)


# Every kind of file, and the plain 8-bit RGB image that it means.
KINDS = {
    "RGB PNG": (saved(RGB), RGB),
    "RGB BMP": (saved(RGB, "BMP"), RGB),
    "RGB WebP": (saved(RGB, "WEBP", lossless=True), RGB),
    "grey PNG": (saved(GREY), GREY_RGB),
    "grey BMP": (saved(GREY, "BMP"), GREY_RGB),
    "one bit": (saved(GREY > 127), np.where(GREY_RGB > 127, 255, 0)),
    "16-bit grey": (png_of_16_bits(GREY[..., None], 0), GREY_RGB),
    "16-bit RGB": (png_of_16_bits(RGB, 2), RGB),
    "16-bit grey and alpha": (png_of_16_bits(np.dstack([GREY, ALPHA]), 4), GREY_RGB),
    "16-bit RGB and alpha": (png_of_16_bits(np.dstack([RGB, ALPHA]), 6), RGB),
    "grey and alpha": (saved(Image.fromarray(np.dstack([GREY, ALPHA]))), GREY_RGB),
    "RGB and alpha": (saved(Image.fromarray(np.dstack([RGB, ALPHA]))), RGB),
    "WebP with alpha": (saved(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True), RGB),
    "BMP with alpha": (saved(np.dstack([RGB, ALPHA]), "BMP"), RGB),
    "palette": (saved(PALETTE), PALETTE_RGB),
    "palette BMP": (saved(PALETTE, "BMP"), PALETTE_RGB),
    "palette with a transparent colour": (saved(PALETTE, transparency=3), PALETTE_RGB),
    "palette with translucent colours": (saved(PALETTE, transparency=bytes(range(64))), PALETTE_RGB),
    "grey with a transparent colour": (saved(GREY, transparency=int(GREY[0, 0])), GREY_RGB),
    "RGB with a transparent colour": (saved(RGB, transparency=tuple(map(int, RGB[0, 0]))), RGB),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_decodes_to_exactly_its_plain_8_bit_rgb(kind):
    content, rgb = KINDS[kind]
    image = decode(content)
    assert image.dtype == np.uint8
    assert image.shape == (30, 50, 3)
    assert np.array_equal(image[..., ::-1], rgb)


def test_a_16_bit_image_keeps_its_upper_8_bits():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = decode(saved(Image.fromarray(values)))
    assert np.abs(image[..., 0] - values / 257).max() < 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "16" in kind or "alpha" in kind or "grey" in kind])
def test_the_plain_image_written_as_png_is_the_same_image(kind):
    content, rgb = KINDS[kind]
    assert np.array_equal(decode(content), decode(saved(np.asarray(rgb, np.uint8))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("image_format", "options"),
    [("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"lossless": True})],
    ids=["JPEG", "PNG", "WebP"],
)
def test_orientation_tags_are_ignored(image_format, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    tagged = saved(RGB, image_format, exif=exif, **options)
    with Image.open(io.BytesIO(tagged)) as reread:
        assert reread.getexif()[ORIENTATION] == orientation
    image = decode(tagged)
    assert image.shape == (30, 50, 3)
    assert np.array_equal(image, decode(saved(RGB, image_format, **options)))
    if image_format != "JPEG":
        assert np.array_equal(image[..., ::-1], RGB)


def test_a_jpeg_decodes_to_what_another_decoder_makes_of_it():
    content = saved(cv2.resize(RGB, (200, 120), interpolation=cv2.INTER_CUBIC), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        assert np.abs(decode(content)[..., ::-1].astype(int) - np.array(image)).max() <= 2


SMOOTH = cv2.resize(RGB, (200, 120), interpolation=cv2.INTER_CUBIC)


WHOLE = {
    "PNG": saved(SMOOTH),
    "JPEG": saved(SMOOTH, "JPEG"),
    "progressive JPEG": saved(SMOOTH, "JPEG", progressive=True),
    "WebP": saved(SMOOTH, "WEBP"),
    "lossless WebP": saved(SMOOTH, "WEBP", lossless=True),
    "BMP": saved(SMOOTH, "BMP"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_image_is_invalid_wherever_it_ends(kind):
    content = WHOLE[kind]
    assert decode(content).shape == (120, 200, 3)
    ends = {*range(2, 64), *(round(x) for x in np.linspace(64, len(content) - 1, 40)), *range(-13, 0)}
    for end in sorted(ends):
        with pytest.raises(InvalidImage, match=r"^part\.png: "):
            decode(content[:end])


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_image_is_damaged_and_not_of_another_format(kind):
    # From 18 bytes on every one of the formats can be told.
    misjudged = []
    for end in [*range(18, 700), *range(700, 2000, 50)]:
        with pytest.raises(InvalidImage) as caught:
            decode(WHOLE[kind][:end])
        if caught.type is UnsupportedImage:
            misjudged.append(end)
    assert misjudged == []


def test_a_damaged_png_is_invalid_for_its_checksums():
    content = bytearray(WHOLE["PNG"])
    for place in np.linspace(40, len(content) - 30, 25).astype(int):
        damaged = content.copy()
        damaged[place] ^= 0x55
        with pytest.raises(InvalidImage):
            decode(bytes(damaged))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", InvalidImage),
        (b"not an image at all", UnsupportedImage),
        (b"\0" * 1000, UnsupportedImage),
        (b"MZ\x90\0" + bytes(1000), UnsupportedImage),
        (b"\x7fELF" + bytes(1000), UnsupportedImage),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', UnsupportedImage),
        (b"%PDF-1.7\n", UnsupportedImage),
        (saved(PALETTE, "GIF"), UnsupportedImage),
        (saved(RGB, "PPM"), UnsupportedImage),
        (saved(RGB, "ICO"), UnsupportedImage),
    ],
    ids=["empty", "text", "zeros", "exe", "elf", "svg", "pdf", "gif", "ppm", "ico"],
)
def test_what_is_not_an_accepted_image_is_refused_by_its_content(content, error):
    with pytest.raises(InvalidImage, match=r"^part\.png: .*") as caught:
        decode(content)
    assert caught.type is error
    with pytest.raises(error):
        check_image(content, "part.png", LIMITS)


def test_the_size_is_read_from_the_header():
    for kind, content in WHOLE.items():
        assert check_image(content, kind, LIMITS) == (200, 120)


@pytest.mark.parametrize("side", [1001, 9_000, 10_000, 20_000, 60_000, 2**31 - 1])
def test_too_many_pixels_are_refused_by_the_header_alone(side):
    bomb = png_by_hand(side, side, 8, 2)
    assert len(bomb) < 100
    begin = time.perf_counter()
    with pytest.raises(TooLarge, match="at most 1000000 are accepted"):
        decode_image(bomb, "bomb.png", LIMITS)
    assert time.perf_counter() - begin < 0.5


def test_refusing_a_bomb_writes_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(TooLarge):
            decode_image(png_by_hand(10_000, 10_000, 8, 2), "bomb.png", LIMITS)
    assert caught == []


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    limits = ImageLimits(1 << 20, 64_000_000)
    assert decode_image(jpeg_of_many_scans(640, 480, 90), "many.jpg", limits).shape == (480, 640, 3)
    endless = jpeg_of_many_scans(8000, 8000, 8000)  # of less than a megabyte; decoding it takes more than half a minute
    assert len(endless) < 1 << 20
    begin = time.perf_counter()
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode_image(endless, "endless.jpg", limits)
    assert time.perf_counter() - begin < 0.5


@pytest.mark.parametrize("size", [(1000, 1000), (1_000_000, 1), (9_500, 9_500), (15_000, 13_000), (20_000, 20_000)])
def test_the_pixel_limit_is_the_configured_one_and_no_other(size):
    # 9,500² and above are where Pillow warns, and 15,000 × 13,000 where it refuses by itself.
    header = png_by_hand(*size, 8, 0)
    assert check_image(header, "large.png", ImageLimits(1 << 20, size[0] * size[1])) == size
    with pytest.raises(TooLarge):
        check_image(header, "large.png", ImageLimits(1 << 20, size[0] * size[1] - 1))


def test_the_byte_limit_counts_the_file():
    content = saved(RGB)
    assert decode_image(content, "a.png", ImageLimits(len(content), 10_000)).shape == (30, 50, 3)
    with pytest.raises(TooLarge, match=f"{len(content)} bytes, at most {len(content) - 1}"):
        decode_image(content, "a.png", ImageLimits(len(content) - 1, 10_000))


SMOOTH_GREY = np.ascontiguousarray(SMOOTH[..., 0])


@pytest.mark.parametrize("image", [GREY, SMOOTH_GREY, GREY[:1], GREY[:, :1], GREY[:1, :1], GREY[::2, ::3]])
def test_a_png_in_base64_reads_back_as_the_same_pixels(image):
    content = base64.b64decode(encode_png_base64(image), validate=True)
    assert np.array_equal(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED), image)
    with Image.open(io.BytesIO(content)) as reread:
        assert (reread.format, reread.mode) == ("PNG", "L")
        reread.verify()
    with Image.open(io.BytesIO(content)) as reread:
        assert np.array_equal(np.array(reread), image)


def test_the_png_of_a_smooth_map_is_smaller_than_opencv_s_own_by_a_third():
    smooth = cv2.resize(GREY, (1000, 600), interpolation=cv2.INTER_LINEAR)
    assert len(base64.b64decode(encode_png_base64(smooth))) < 2 / 3 * len(cv2.imencode(".png", smooth)[1])


@pytest.mark.parametrize("size", [1, 2, 5, 1000, 12345])
def test_percentiles_interpolate_between_order_statistics(size):
    values = np.random.default_rng(size).random(size).astype(np.float32)
    ordered = sorted(values.tolist())
    for percent, result in zip(
        (0, 1, 5, 50, 99, 99.9, 100), percentile(values, 0, 1, 5, 50, 99, 99.9, 100), strict=True
    ):
        place = percent / 100 * (size - 1)
        below, above = ordered[int(place)], ordered[min(int(place) + 1, size - 1)]
        assert result == pytest.approx(below + (place - int(place)) * (above - below), abs=1e-6)
        assert type(result) is float


def adversarial(values):
    """The same values where a regular sample of them sees only the largest."""
    placed = np.sort(values, axis=None)
    every = np.arange(0, placed.size, 5)
    placed[every], placed[-len(every) :] = placed[-len(every) :].copy(), placed[every].copy()
    return placed.reshape(values.shape)


noise = random.random((300, 400), np.float32)


MAPS = {
    "smooth": cv2.resize(random.random((32, 32), np.float32), (700, 500), interpolation=cv2.INTER_LINEAR),
    "noise": noise,
    "rising": np.sort(noise, axis=None).reshape(noise.shape),
    "falling": -np.sort(-noise, axis=None).reshape(noise.shape),
    "hidden from samples": adversarial(noise),
    "its opposite": 1 - adversarial(noise),
    "flat": np.full((300, 400), 0.7, np.float32),
    "two values": (noise > 0.5).astype(np.float32),
    "one row": noise[:1],
    "one column": noise[:, :1],
    "one pixel": noise[:1, :1],
}


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("share", [None, 0.5, 0.01])
def test_percentiles_are_those_of_numpy_bit_for_bit(kind, share):
    distance_map, mask = MAPS[kind], None
    if share is not None:
        mask = np.random.default_rng(3).random(distance_map.shape) < share
        mask[-1, -1] = True
    percentiles = (0, 0.3, 1, 25, 49.9, 50, 63.1, 99, 99, 99.9, 100)
    expected = np.percentile(distance_map if mask is None else distance_map[mask], percentiles)
    assert percentile(distance_map, *percentiles, mask=mask) == expected.tolist()


def test_areas_convert_between_millimetres_and_pixels():
    assert mm2_to_px2(1.0, 0.2) == pytest.approx(25)  # 5 × 5 pixels of 0.2 mm
    assert px2_to_mm2(250, 0.2) == pytest.approx(10)  # the playbook's example
    assert px2_to_mm2(mm2_to_px2(3.7, 0.031), 0.031) == pytest.approx(3.7)


@pytest.mark.slow
def test_16_bit_palette_and_alpha_images_score_as_plain_8_bit_rgb(features, images, tmp_path):
    """Grey images, of 8 or 16 bits, score as the same grey in RGB, and transparency has no effect."""
    service = InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path))
    key = RoiKey("Master1", "Pattern")
    good, other = (np.ascontiguousarray(image[..., ::-1]) for image in (images[0], images[1]))
    fit(service, key, [NamedImage("good.png", lambda: saved(good))], mm_per_px=0.2)

    def score(content):
        result = infer(service, key, NamedImage("part.png", lambda: content), Scoring(0.2))
        return result.inference.score, result.heatmap_png_base64

    grey = np.ascontiguousarray(other[..., 1])
    alpha = np.zeros_like(grey)  # fully transparent
    plain_rgb = score(saved(other))
    plain_grey = score(saved(np.repeat(grey[..., None], 3, axis=2)))
    palette = Image.fromarray(other).quantize(32)
    assert plain_rgb[0] > 0.1
    assert score(png_of_16_bits(other, 2)) == plain_rgb
    assert score(saved(np.dstack([other, alpha]))) == plain_rgb
    assert score(png_of_16_bits(np.dstack([other, alpha]), 6)) == plain_rgb
    assert score(saved(grey)) == plain_grey
    assert score(png_of_16_bits(grey[..., None], 0)) == plain_grey
    assert score(saved(palette, transparency=bytes(32))) == score(saved(np.array(palette.convert("RGB"))))
