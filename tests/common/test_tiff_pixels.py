"""TIFF: the stored pixels and no others, in every byte order, layout and packing that is accepted."""

import io
import itertools
import struct
import time

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from backend.commands.evaluate.masks import read_mask
from backend.commands.image_files import find_images
from backend.common.errors import InvalidImage, TooLarge
from backend.common.image_headers import image_suffix
from backend.utils import ImageLimits, decode_image
from harness.hostile_files import corpus, pixels, saved
from harness.tiff_files import lzw, pack, tiff

LIMITS = ImageLimits(64 << 20, 1_000_000)
CODECS = ("none", "LZW", "deflate", "old deflate", "PackBits")
# Odd rows of odd columns are where two bytes do not make one number.
SIZES = ((1, 1), (2, 7), (33, 47), (64, 48), (97, 131))


def made(width: int, height: int, channels: int, dtype: type = np.uint8) -> npt.NDArray[np.generic]:
    """Smooth, with noise: uint8 or uint16 [H, W, C]."""
    noise = np.random.default_rng(width).integers(0, 9, (height, width, channels))
    image = pixels(width, height, channels).astype(np.int64) + noise
    return (image * 257 % 65536 if dtype is np.uint16 else image % 256).astype(dtype)


def as_8_bit_rgb(image: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """What an image means, by numpy alone."""
    eight = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    colours = eight[..., :3] if image.shape[2] >= 3 else eight[..., :1]
    return np.broadcast_to(colours, (*image.shape[:2], 3))


def decoded(content: bytes) -> npt.NDArray[np.uint8]:
    return decode_image(content, "part.tif", LIMITS)[..., ::-1]


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_accepted_tiff_decodes_to_the_stored_pixels(codec, channels, dtype):
    for (height, width), order in itertools.product(SIZES, "<>"):
        image = made(width, height, channels, dtype)
        for predictor in (1, 2) if codec not in ("none", "PackBits") else (1,):
            layouts = [{}, {"rows_each": 1}, {"rows_each": 5}, {"rows_each": 8}, {"tile": (16, 32)}]
            for layout in layouts:
                content = tiff(image, codec=codec, order=order, predictor=predictor, **layout)
                assert np.array_equal(decoded(content), as_8_bit_rgb(image)), (height, width, order, predictor, layout)


def test_the_files_of_the_test_mean_the_same_to_another_decoder():
    # Pillow reads colour of 16 bits as nothing, and OpenCV no second channel: each is asked for what it knows.
    for codec, (height, width) in itertools.product(("none", "LZW", "deflate", "PackBits"), SIZES):
        for image, layout in itertools.product(
            (made(width, height, 1), made(width, height, 3), made(width, height, 1, np.uint16)),
            ({}, {"rows_each": 5}, {"tile": (16, 32)}),
        ):
            content = tiff(image, codec=codec, **layout)
            with Image.open(io.BytesIO(content)) as reread:
                assert np.array_equal(np.asarray(reread).reshape(image.shape), image), (codec, image.shape, layout)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_what_pillow_writes_is_read(mode, compression):
    image = made(131, 97, len(mode))
    options = {"compression": compression} if compression else {}
    content = saved(Image.fromarray(image.squeeze(), mode), "TIFF", **options)
    assert np.array_equal(decoded(content), as_8_bit_rgb(image))


@pytest.mark.parametrize("compression", [1, 5, 8, 32946, 32773])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_opencv_writes_is_read(compression, dtype, channels):
    image = made(131, 97, channels, dtype)
    ok, content = cv2.imencode(".tiff", image[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert ok
    assert np.array_equal(decoded(content.tobytes()), as_8_bit_rgb(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("codec", CODECS)
def test_the_orientation_tag_turns_nothing(codec, orientation):
    image = made(50, 30, 3)
    content = tiff(image, codec=codec, extra={274: orientation})
    with Image.open(io.BytesIO(content)) as reread:
        turned = np.asarray(reread)
    assert (turned.shape == image.shape) == (orientation < 5)  # the tag is there, and turns for others
    assert np.array_equal(decoded(content), image)


def test_where_0_is_white_the_picture_is_the_same():
    image = made(50, 30, 1)
    content = tiff(~image, extra={262: 0})
    with Image.open(io.BytesIO(content)) as reread:
        assert np.array_equal(np.asarray(reread), image[..., 0])
    assert np.array_equal(decoded(content), as_8_bit_rgb(image))
    wide = made(50, 30, 1, np.uint16)
    assert np.array_equal(decoded(tiff(~wide, extra={262: 0})), as_8_bit_rgb(wide))


def test_a_tiff_is_the_image_that_its_png_is():
    for channels, dtype in itertools.product((1, 3), (np.uint8, np.uint16)):
        image = made(61, 41, channels, dtype)
        png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        assert np.array_equal(
            decode_image(tiff(image, codec="LZW"), "a.tif", LIMITS), decode_image(png, "a.png", LIMITS)
        )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(64, 48), (97, 131)])
def test_a_cut_strip_is_damage_whatever_its_packing(codec, size, capfd):
    image = made(size[1], size[0], 3)
    whole = pack(image, codec)
    for share in (0.0, 0.3, 0.9, 0.999):
        cut = whole[: int(len(whole) * share)]
        with pytest.raises(InvalidImage, match=r"^part\.tif: .*damaged"):
            decoded(tiff(image, codec=codec, segments=[cut or b"\0"]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("codec", ["LZW", "deflate"])
def test_garbage_in_a_strip_is_damage_and_nothing_is_printed(codec, capfd):
    image = made(131, 97, 1)
    whole = pack(image, codec)
    chance = np.random.default_rng(3)
    n_refused = 0
    for place in range(20, len(whole) - 60, len(whole) // 40):
        content = whole[:place] + chance.bytes(40) + whole[place + 40 :]
        try:
            assert decoded(tiff(image, codec=codec, segments=[content])).shape == (97, 131, 3)
        except InvalidImage:
            n_refused += 1
    assert n_refused > 20
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("end", range(1, 12))
def test_a_file_cut_anywhere_is_damage(end):
    for codec in CODECS:
        content = tiff(made(50, 30, 1), codec=codec)
        with pytest.raises(InvalidImage) as caught:
            decoded(content[: len(content) * end // 12])
        assert caught.type is InvalidImage


@pytest.mark.slow
def test_a_strip_that_unpacks_to_gigabytes_takes_no_time():
    # 30 MB of deflated zeros are 30 GB; of LZW's longest strings, and of PackBits, no less than a hundredth of it.
    image = made(64, 64, 1)
    packer_of = {"deflate": bytes(1 << 26), "LZW": bytes(1 << 20), "PackBits": bytes(1 << 22)}
    for codec, zeros in packer_of.items():
        bomb = pack(np.frombuffer(zeros, np.uint8).reshape(1, -1, 1), codec)
        begin = time.perf_counter()
        assert decoded(tiff(image, codec=codec, segments=[bomb])).max() == 0
        assert time.perf_counter() - begin < 0.5


def test_lzw_of_the_test_is_lzw():
    assert lzw(b"\x07\x07\x07\x08\x08\x07\x07\x06\x06") == bytes.fromhex("80 01 e0 40 80 44 08 0c 06 80 80")


def test_masks_and_folders_take_tiff(tmp_path):
    mask = np.zeros((30, 50, 1), np.uint8)
    mask[3:9, 4:8] = 1
    for name, content in {
        "a.tif": tiff(mask, codec="LZW"),
        "b.TIFF": tiff(mask.astype(np.uint16), order=">"),
        "c.tif": tiff(~mask, extra={262: 0, 274: 6}),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(read_mask(str(tmp_path / name), LIMITS), mask[..., 0] > 0)
    assert [path.rsplit("/", 1)[1] for path in find_images([str(tmp_path)])[0].values()] == ["a.tif", "b.TIFF", "c.tif"]
    assert image_suffix(tiff(mask)) == image_suffix(tiff(mask, order=">")) == ".tif"
    (tmp_path / "a.tif").write_bytes(tiff(mask)[:100])
    with pytest.raises(InvalidImage, match="damaged"):
        read_mask(str(tmp_path / "a.tif"), LIMITS)


@pytest.mark.parametrize("colours", [1, 3])
def test_a_mask_that_was_drawn_into_alpha_is_found_in_a_tiff_too(tmp_path, colours):
    alpha = np.zeros((30, 50, 1), np.uint8)
    alpha[3:9, 4:8] = 255
    (tmp_path / "a.tif").write_bytes(tiff(np.dstack([np.full((30, 50, colours), 7, np.uint8), alpha])))
    assert np.array_equal(read_mask(str(tmp_path / "a.tif"), LIMITS), alpha[..., 0] > 0)


@pytest.mark.slow
def test_the_tiffs_of_the_hostile_corpus_are_judged_at_once_in_silence(capfd):
    files = {what: content for what, content in corpus().items() if "TIFF" in what and "cut at" not in what}
    assert len(files) > 40
    slowest, refusals = 0.0, {}
    for what, content in files.items():
        begin = time.perf_counter()
        try:
            assert decoded(content).dtype == np.uint8
        except (InvalidImage, TooLarge) as exc:
            refusals[what] = str(exc)
        slowest = max(slowest, time.perf_counter() - begin)
    assert slowest < 5
    assert all(message.startswith("part.tif: ") and "/" not in message[10:] for message in refusals.values())
    assert "TIFF" not in refusals
    assert "TIFF turned" not in refusals
    assert capfd.readouterr() == ("", "")


def test_packed_rows_of_millions_are_refused_before_any_is_made():
    """130 bytes that once took gigabytes: one LZW strip, one row of twenty million pixels."""
    strip = b"\x80\0\0\0\0\0"
    values = (256, 19_999_999), (257, 1), (258, 8), (259, 5), (262, 2), (273, 8), (277, 3), (278, 1), (279, len(strip))
    directory = struct.pack("<H", len(values)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in values
    )
    content = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + b"\0\0\0\0"
    begin = time.perf_counter()
    with pytest.raises(InvalidImage, match="more than 1048576 bytes a row"):
        decode_image(content, "bomb.tif", ImageLimits(64 << 20, 64_000_000))
    assert time.perf_counter() - begin < 0.5
