"""Sizes from headers: as OpenCV decodes them, of what cameras write, and at once whatever the file."""

import random
import struct
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from backend.common.errors import InvalidImage
from backend.common.image_headers import PNG_SIGNATURE, SIGNATURES, image_size
from backend.common.tiff_headers import SIGNATURES as TIFF_SIGNATURES
from backend.utils import ImageLimits, check_image, decode_image
from harness.hostile_files import corpus, endless_headers, mutations, pixels, saved

LIMITS = ImageLimits(64 << 20, 1_000_000)
RGB = Image.fromarray(pixels())
JPEG = saved(RGB, "JPEG")


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def frame(marker: int, width: int, height: int) -> bytes:
    return segment(marker, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (255, 256), (1000, 3)])
def test_the_size_of_every_format_is_read(image_format, options, size):
    assert image_size(saved(RGB.resize(size), image_format, **options)) == size


def test_the_size_of_an_animation_is_its_canvas():
    animated = saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)])
    assert b"ANMF" in animated
    assert image_size(animated) == RGB.size


def test_a_bmp_of_the_oldest_kind_has_a_size_too():
    old = b"BM" + struct.pack("<IHHI", 26 + 8, 0, 0, 26) + struct.pack("<IHHHH", 12, 2, 1, 1, 24) + bytes(8)
    assert image_size(old) == (2, 1)
    assert decode_image(old, "old.bmp", LIMITS).shape == (1, 2, 3)


def strange_jpegs(count):
    """JPEGs with frames, fill, garbage and broken lengths put between and into their segments."""
    chance = random.Random(7)
    jpegs = [JPEG, saved(RGB, "JPEG", progressive=True), saved(RGB.convert("L"), "JPEG")]
    for _ in range(count):
        content = chance.choice(jpegs)
        starts, place = [2], 2
        while content[place + 1] != 0xDA:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
            starts.append(place)
        for _ in range(chance.randint(1, 3)):
            size = chance.randint(1, 300), chance.randint(1, 300)
            added = [
                frame(chance.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCB)), *size),
                segment(0xE1, frame(0xC0, *size)),
                bytes([0xFF, chance.choice((0xE0, 0xE1, 0xFE, 0xDB)), 0, chance.randrange(20)]) + frame(0xC0, *size),
                segment(chance.choice((0xE0, 0xEE, 0xFE, 0xDC, 0xDD, 0x02)), chance.randbytes(chance.randrange(20))),
                b"\xff" * chance.randint(1, 9) + b"\0" * chance.randrange(2),
                bytes([0xFF, chance.randrange(256)]),
                chance.randbytes(chance.randint(1, 6)),
            ]
            at = chance.choice(starts) if chance.random() < 0.7 else chance.randrange(2, len(content))
            content = content[:at] + chance.choice(added) + content[at:]
        yield "a strange JPEG", content


@pytest.mark.slow
def test_what_opencv_decodes_has_the_size_that_was_told():
    decoded = 0
    small = {what: content for what, content in corpus().items() if len(content) < 100_000}
    for what, content in [*small.items(), *mutations(300), *strange_jpegs(3_000)]:
        # OpenCV never gets to see a TIFF as it was sent: see test_tiff_pixels.py.
        if not content.startswith(SIGNATURES) or "scans" in what or content.startswith(TIFF_SIGNATURES):
            continue
        try:
            size = image_size(content)
        except ValueError:
            if content.startswith(PNG_SIGNATURE):  # of an animation that is cut off OpenCV decodes what is there
                continue
            size = None
        if size is not None and size[0] * size[1] > LIMITS.max_pixels:
            continue  # refused, and never decoded
        try:
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error:
            continue
        if image is not None:
            decoded += 1
            assert size == image.shape[1::-1], what
    assert decoded > 500


@pytest.mark.parametrize("what", endless_headers(1))
def test_an_endless_header_is_judged_at_once(what):
    content = endless_headers(8 << 20)[what]
    begin = time.process_time()
    try:
        judged = check_image(content, "endless", LIMITS)
    except InvalidImage as exc:
        judged = str(exc).partition(" of more than")[0]
    assert time.process_time() - begin < 1, "parsers of whole headers take seconds, or minutes"
    # What the decoder keeps, or unpacks, is refused; what it passes over is not.
    kept = any(kind in what for kind in ("segments", "EXIF", "texts", "chunks"))
    assert judged == (f"endless: a {what.split()[0]}" if kept else RGB.size)


def test_what_cameras_and_programs_write_beside_the_pixels_is_accepted():
    noise = random.Random(3)
    profile = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([k, 255]) + noise.randbytes(65_519)) for k in range(1, 256)
    )
    exif = segment(0xE1, b"Exif\0\0II*\0" + saved(RGB.resize((160, 120)), "JPEG") + noise.randbytes(50_000))
    texts = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b" " * 60_000) * 40
    previews = segment(0xE2, b"MPF\0" + noise.randbytes(80)) + segment(0xED, b"Photoshop 3.0\0") + segment(0xFE, b"hi")
    film = noise.randbytes(20 << 20)  # phones put one after the image's end
    content = JPEG[:2] + exif + texts + previews + profile + b"\xff" * 2048 + JPEG[2:] + film
    assert len(content) > 38 << 20
    assert check_image(content, "camera.jpg", LIMITS) == RGB.size
    assert np.array_equal(decode_image(content, "camera.jpg", LIMITS), decode_image(JPEG, "plain.jpg", LIMITS))


@pytest.mark.parametrize("name", [b"IDAT", b"tEXt", b"fdAT", b"IEND"])
@pytest.mark.parametrize("n_bytes", [200, 0x7FFFFFFF, 0xFFFF0000])
def test_a_chunk_that_is_longer_than_its_file_is_not_handed_to_a_decoder(name, n_bytes):
    content = saved(RGB, "PNG")[:33] + struct.pack(">I4s", n_bytes, name) + bytes(100)
    with pytest.raises(InvalidImage, match="truncated or damaged"):
        check_image(content, "long.png", LIMITS)


def test_what_follows_the_end_of_a_png_is_no_chunk():
    content = saved(RGB, "PNG") + b"\xff" * 1000
    assert decode_image(content, "a.png", LIMITS).shape[1::-1] == RGB.size


def test_a_png_of_some_texts_is_accepted():
    texts = PngInfo()
    for number in range(200):
        texts.add_text(f"key {number}", "x" * 100, zip=number < 20)
    assert decode_image(saved(RGB, "PNG", pnginfo=texts), "a.png", LIMITS).shape[1::-1] == RGB.size
