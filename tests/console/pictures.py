"""Pictures of every kind that browsers read, each with what tempts a browser to change its pixels."""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageCms

from harness.hostile_files import bmp, png_chunk

WIDTH, HEIGHT = 203, 149
_ORIENTATION = 0x0112


def bgr() -> np.ndarray:
    """Fine and coarse detail in colour, uint8 [149, 203, 3]."""
    rng = np.random.default_rng(7)
    coarse = cv2.resize(rng.integers(0, 256, (9, 11, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    fine = rng.integers(-40, 41, (HEIGHT, WIDTH, 3))
    return np.clip(coarse.astype(int) + fine, 0, 255).astype(np.uint8)


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged: who applies it shows other colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"????", b"bXYZ", 1)


def decode(content: bytes) -> np.ndarray:
    """As the service decodes, uint8 [H, W, 3], BGR."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None
    return np.asarray(image, np.uint8)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[_ORIENTATION] = orientation
    return tags.tobytes()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + png_chunk(name, content) + png[33:]


def _pngs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    rgb, grey = saved(picture, "PNG"), picture.convert("L")
    yield "rgb.png", rgb
    yield "grey.png", saved(grey, "PNG")
    yield "bilevel.png", saved(picture.convert("1"), "PNG")
    yield "palette.png", saved(picture.quantize(50), "PNG")
    yield "palette-4.png", saved(picture.quantize(11), "PNG", bits=4)
    yield "opaque-palette.png", saved(picture.quantize(50), "PNG", transparency=b"\xff" * 50)
    opaque = picture.copy()
    opaque.putalpha(255)
    yield "opaque.png", saved(opaque, "PNG")
    yield "opaque-grey.png", saved(opaque.convert("LA"), "PNG")
    yield "gamma.png", with_chunk(rgb, b"gAMA", struct.pack(">I", 100_000))
    yield "grey-gamma.png", with_chunk(saved(grey, "PNG"), b"gAMA", struct.pack(">I", 100_000))
    yield "profile.png", saved(picture, "PNG", icc_profile=swapped_profile())
    yield "hdr.png", with_chunk(rgb, b"cICP", bytes([9, 16, 0, 1]))
    yield "interlaced.png", interlaced_png(bgr())
    yield "turned.png", saved(picture, "PNG", exif=exif(6))


def _jpegs(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    for name, subsampling in (("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0")):
        yield f"{name}.jpg", saved(picture, "JPEG", quality=90, subsampling=subsampling)
    factors = {"440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411}
    for name, factor in factors.items():
        yield f"{name}.jpg", cv2.imencode(".jpg", bgr(), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()
    yield "grey.jpg", saved(picture.convert("L"), "JPEG")
    yield "coarse.jpg", saved(picture, "JPEG", quality=12)
    yield "progressive.jpg", saved(picture, "JPEG", progressive=True)
    yield "rgb.jpg", saved(picture, "JPEG", keep_rgb=True)
    yield "profile.jpg", saved(picture, "JPEG", icc_profile=swapped_profile())
    yield "restarts.jpg", saved(picture, "JPEG", restart_marker_rows=1)
    for orientation in range(2, 9):
        yield f"turned-{orientation}.jpg", saved(picture, "JPEG", exif=exif(orientation))


def _bmp_with_profile() -> bytes:
    """A BITMAPV5HEADER, which may carry a colour profile."""
    rows = b"".join(row.tobytes() + bytes(-3 * WIDTH % 4) for row in bgr()[::-1])
    profile, linked = swapped_profile(), 0x4D424544
    info = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 24, 0, len(rows), 0, 0, 0, 0)
    space = struct.pack("<4II36x3IIIII", 0, 0, 0, 0, linked, 0, 0, 0, 4, 124 + len(rows), len(profile), 0)
    start = 14 + 124
    return b"BM" + struct.pack("<IHHI", start + len(rows) + len(profile), 0, 0, start) + info + space + rows + profile


def _others(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "rgb.bmp", saved(picture, "BMP")
    yield "grey.bmp", saved(picture.convert("L"), "BMP")
    yield "palette.bmp", saved(picture.quantize(50), "BMP")
    yield "bilevel.bmp", saved(picture.convert("1"), "BMP")
    yield "profile.bmp", _bmp_with_profile()
    yield "lossless.webp", saved(picture, "WEBP", lossless=True)
    yield "lossy.webp", saved(picture, "WEBP", quality=80)
    yield "coarse.webp", saved(picture, "WEBP", quality=10)
    yield "profile.webp", saved(picture, "WEBP", lossless=True, icc_profile=swapped_profile())
    yield "turned.webp", saved(picture, "WEBP", quality=80, exif=exif(8))


@cache
def accepted() -> dict[str, bytes]:
    """By name, pictures that are cut."""
    picture = Image.fromarray(bgr()[..., ::-1])
    return dict([*_pngs(picture), *_jpegs(picture), *_others(picture)])


def _png_of(rows: bytes, size: tuple[int, int] = (WIDTH, HEIGHT), interlaced: int = 0) -> bytes:
    """A PNG that is whole by its chunks, with a zlib stream that somebody else made."""
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, interlaced)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def interlaced_png(picture: np.ndarray) -> bytes:
    """In the seven passes of Adam7.

    Args:
        picture: uint8 [H, W, 3], BGR.
    """
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [picture[top::down, left::across, ::-1] for left, top, across, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return _png_of(zlib.compress(rows), picture.shape[1::-1], interlaced=1)


def _damaged_pngs() -> dict[str, bytes]:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in bgr()))
    lines = 1 + 3 * WIDTH
    fewer = zlib.compress(zlib.decompress(rows)[: lines * (HEIGHT - 40)])
    changed = bytearray(rows)
    changed[-1] ^= 1  # the checksum of what is unpacked
    return {
        "cut-stream.png": _png_of(rows[:-900]),
        "fewer-rows.png": _png_of(fewer),
        "sum.png": _png_of(bytes(changed)),
    }


def deep_png() -> bytes:
    """16 bits a channel."""
    return bytes(cv2.imencode(".png", bgr().astype(np.uint16) * 257 // 16)[1])


@cache
def refused() -> dict[str, tuple[str, bytes]]:
    """By name, pictures that must not be cut: the code of the refusal, the file."""
    picture = Image.fromarray(bgr()[..., ::-1])
    see_through = picture.copy()
    see_through.putalpha(255)
    see_through.putpixel((150, 120), (10, 20, 30, 254))
    whole = {kind: saved(picture, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")}
    progressive = saved(picture, "JPEG", progressive=True)
    return {
        "transparent.png": ("transparent", saved(see_through, "PNG")),
        "transparent.webp": ("transparent", saved(see_through, "WEBP", lossless=True)),
        "hole.png": ("transparent", saved(picture.quantize(50), "PNG", transparency=3)),
        "cmyk.jpg": ("colours", saved(picture.convert("CMYK"), "JPEG")),
        "picture.gif": ("format", saved(picture.quantize(50), "GIF")),
        "picture.tif": ("format", saved(picture, "TIFF")),
        "huge.png": ("too_large", _png_of(b"", (8193, 8192))),
        "deep.jpg": ("colours", whole["JPEG"].replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")),
        "arithmetic.jpg": ("format", whole["JPEG"].replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11")),
        "text.png": ("format", b"This is a text."),
        "empty.png": ("format", b""),
        "header.png": ("unreadable", whole["PNG"][:20]),
        "header.jpg": ("unreadable", whole["JPEG"][:30]),
        **{f"half.{kind.lower()}": ("unreadable", content[: len(content) // 2]) for kind, content in whole.items()},
        **{name: ("unreadable", content) for name, content in _damaged_pngs().items()},
        "run-length.bmp": ("format", bmp(16, 1, bytes([16, 7, 0, 1]), compression=1, bits=8)),
        "closed-half.jpeg": ("unreadable", whole["JPEG"][: len(whole["JPEG"]) // 2] + b"\xff\xd9"),
        "scan-missing.jpeg": ("unreadable", progressive[: progressive.rindex(b"\xff\xc4")] + b"\xff\xd9"),
        "half-progressive.jpeg": ("unreadable", progressive[: len(progressive) // 2]),
        "closed-half-progressive.jpeg": ("unreadable", progressive[: len(progressive) // 2] + b"\xff\xd9"),
    }


def saved_grey_corner() -> bytes:
    """A whole JPEG whose last pixel is as grey as one that is missing."""
    picture = bgr()
    picture[-16:, -16:] = 128
    return saved(Image.fromarray(picture[..., ::-1]), "JPEG", quality=95, subsampling="4:4:4")
