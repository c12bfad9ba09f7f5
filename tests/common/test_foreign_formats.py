"""What is refused is named, and so are the channels of a BMP that nobody could tell."""

import struct

import numpy as np
import pytest
from PIL import Image

from backend.common.errors import InvalidImage, UnsupportedImage
from backend.common.foreign_formats import format_name
from backend.utils import ImageLimits, check_image, decode_image
from harness.hostile_files import pixels, saved

LIMITS = ImageLimits(64 << 20, 1_000_000)
RGB = Image.fromarray(pixels())

FILES = {
    "a GIF": saved(RGB.quantize(16), "GIF"),
    "an AVIF": b"\0\0\0\x20ftypavif\0\0\0\0" + bytes(30),
    "a HEIC": b"\0\0\0\x20ftypheic\0\0\0\0" + bytes(30),
    "a JPEG 2000": saved(RGB, "JPEG2000"),
    "a JPEG XL": b"\xff\x0a" + bytes(30),
    "a BigTIFF": b"MM\0+\0\x08\0\0" + bytes(30),
    "a Photoshop file": b"8BPS\0\1" + bytes(30),
    "an icon": saved(RGB, "ICO"),
    "a PDF": saved(RGB, "PDF"),
    "a PostScript file": saved(RGB, "EPS"),
    "a ZIP archive": b"PK\3\4" + bytes(30),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(30),
    "a video (MP4 or MOV)": b"\0\0\0\x20ftypisom" + bytes(30),
    "a video (Matroska or WebM)": b"\x1a\x45\xdf\xa3" + bytes(30),
    "a video (AVI)": b"RIFF\x40\0\0\0AVI LIST" + bytes(30),
    "a sound (WAV)": b"RIFF\x40\0\0\0WAVEfmt " + bytes(30),
    "an OpenEXR image": b"\x76\x2f\x31\x01" + bytes(30),
    "a NumPy array": b"\x93NUMPY\1\0" + bytes(30),
    "a DICOM image": bytes(128) + b"DICM" + bytes(30),
    "a portable pixmap (PPM, PGM or PBM)": saved(RGB, "PPM"),
    "a Windows program": b"MZ\x90\0" + bytes(30),
    "a Linux program": b"\x7fELF" + bytes(30),
    "a web page": b"\xef\xbb\xbf \n<!DOCTYPE html><html>",
    "an SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "an XML file": b'<?xml version="1.0"?><a/>',
    "a JSON text": b'{"image": 1}',
    "a text": b"iVBORw0KGgo=",
}


@pytest.mark.parametrize("named", FILES)
def test_a_refusal_names_what_it_got_and_what_to_send(named):
    with pytest.raises(UnsupportedImage) as caught:
        check_image(FILES[named], "part.png", LIMITS)
    assert str(caught.value) == f"part.png: {named} is not an accepted image; send a PNG, JPEG, BMP, TIFF or WebP image"


def test_a_pointer_of_git_lfs_and_a_data_url_say_how_to_get_the_image():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    assert format_name(pointer).startswith("a Git LFS pointer, which stands for the file itself (fetch it with")
    assert format_name(b"data:image/png;base64,iVBORw0KGgo=").startswith("a data URL (send the bytes")


def test_what_nobody_knows_is_shown_by_its_first_bytes():
    assert format_name(bytes(500)) == "a file of unknown kind (it begins with 00 00 00 00 00 00 00 00)"
    assert format_name(b"\xfe\xfa") == "a file of unknown kind (it begins with fe fa)"


PIXELS = np.random.default_rng(1).integers(0, 256, (4, 5, 4), np.uint8)
ALPHA = 0xFF000000


def masked_bmp(header_bytes: int, masks: tuple[int, ...], bits: int = 32, content: bytes = PIXELS.tobytes()) -> bytes:
    """A BMP of 5×4 pixels whose header says which bits are red, green, blue and alpha."""
    info = struct.pack("<IiiHHIIiiII", header_bytes, 5, 4, 1, bits, 3, len(content), 0, 0, 0, 0)
    words = struct.pack("<4I", *masks)
    info += words[:12] if header_bytes == 40 else words.ljust(header_bytes - 40, b"\0")[: max(12, header_bytes - 40)]
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(content), 0, 0, 14 + len(info)) + info + content


@pytest.mark.parametrize("header_bytes", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("red", [0, 16])
@pytest.mark.parametrize("alpha", [0, ALPHA])
def test_red_and_blue_of_a_bmp_are_where_its_masks_say(header_bytes, red, alpha):
    content = masked_bmp(header_bytes, (0xFF << red, 0xFF00, 0xFF << (16 - red), alpha))
    words = PIXELS.view("<u4")[::-1, :, 0]  # the last row comes first
    expected = np.stack([words >> (16 - red) & 255, words >> 8 & 255, words >> red & 255], axis=-1)
    assert np.array_equal(decode_image(content, "a.bmp", LIMITS), expected)


def test_masks_that_the_decoder_would_take_for_others_are_refused():
    for header_bytes, masks in (
        (40, (0xFF000000, 0xFF0000, 0xFF00, 0)),
        (40, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
        (108, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
    ):
        with pytest.raises(UnsupportedImage, match=f"a BMP of 32 bits with the masks red {masks[0]:#x}, green"):
            check_image(masked_bmp(header_bytes, masks), "a.bmp", LIMITS)
    with pytest.raises(UnsupportedImage, match="a BMP of 16 bits with the masks red 0xf,"):
        check_image(masked_bmp(40, (0xF, 0xF0, 0xF00, 0), bits=16), "a.bmp", LIMITS)


def test_a_bmp_of_16_bits_is_read_as_before():
    words = np.arange(4 * 6, dtype="<u2").reshape(4, 6) * 2741  # of 5 pixels, and filled up to 4 bytes
    content = masked_bmp(40, (0xF800, 0x7E0, 0x1F, 0), bits=16, content=words.tobytes())
    image = decode_image(content, "a.bmp", LIMITS)
    green = (words[::-1, :5].astype(int) >> 5 & 63) * 4
    assert np.array_equal(image[..., 1], green)


def test_a_bmp_that_ends_within_its_masks_is_damaged():
    with pytest.raises(InvalidImage) as caught:
        check_image(masked_bmp(40, (0xFF, 0xFF00, 0xFF0000, 0))[:60], "a.bmp", LIMITS)
    assert caught.type is InvalidImage
