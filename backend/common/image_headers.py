"""The size of an image, from its header alone, in bounded time and memory for any file. For TIFF: `tiff_headers`.

Parsers of whole headers keep and join all the metadata that they meet: a few megabytes of it could take minutes. Here,
only the data that determines the size is read, by the rules of OpenCV's decoders, so that the decoded size is always
this size.
"""

import re
import struct
from collections.abc import Iterator

from backend.common.foreign_formats import UnsupportedKind, format_name
from backend.common.tiff_headers import SIGNATURES as TIFF_SIGNATURES
from backend.common.tiff_headers import tiff_size

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Segments of a JPEG and chunks of a WebP: cameras write up to some hundred, and a thousand of 64 KiB are all that a
# file of 64 MiB can hold. The decoder keeps a hundred bytes for each, which itself may have four.
_MAX_SEGMENTS = 4096
# Each scan of a progressive JPEG passes over the whole image again, and takes a hundred bytes where it changes nothing:
# a file within the limits could keep a core busy for hours. Encoders write some ten.
_MAX_SCANS = 100
# Of a PNG, each in a few kilobytes: the decoder unpacks up to eight megabytes of one, and throws them away.
_MAX_PACKED_TEXTS = 30
# Of a PNG: encoders write one for every 8 KiB, some for every KiB.
_MAX_CHUNKS = 1 << 16
# What comes before a segment, in compressed data or out of place, is passed over as the decoder does.
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_DAMAGED = "the image header is truncated or damaged"
# Of a BMP: how channels lie in the bits of a pixel (red, green, blue), and where nothing else can be meant.
_BIT_FIELDS, _ALPHA_BIT_FIELDS = 3, 6
_BLUE_FIRST, _RED_FIRST = (0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000)
_MASKS_OF_16_BITS = ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F))
_BYTE_MASKS = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
_HEADERS_WITHOUT_ALPHA = (40, 52)  # their lengths; in longer ones OpenCV looks for the masks
# Of a BMP: lengths of headers, and what there is and is not read, by the number of the compression or of the bits.
_OLDEST_HEADER, _SHORTEST_HEADER, _PLAIN_HEADER, _OS2_HEADER = 12, 36, 40, 64
_READ_COMPRESSIONS = (0, 1, 2, _BIT_FIELDS, _ALPHA_BIT_FIELDS)
_OTHER_COMPRESSIONS = {
    4: "JPEG compression",
    5: "PNG compression",
    11: "CMYK colours",
    12: "CMYK colours",
    13: "CMYK colours",
}
_OS2_COMPRESSIONS = {(3, 1): "Huffman compression", (4, 24): "run-length compression of 24 bits"}
_OTHER_BITS = (2, 64)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
ACCEPTED = "PNG, JPEG, BMP, TIFF or WebP"


def image_suffix(content: bytes) -> str:
    r"""File extension of an accepted image, by its first bytes.

    >>> image_suffix(b"\xff\xd8\xff...")
    '.jpg'

    Raises:
        StopIteration: the bytes begin with none of `SIGNATURES`.
    """
    return next(suffix for signature, (suffix, _) in _FORMATS.items() if content.startswith(signature))


def image_size(content: bytes) -> tuple[int, int]:
    """The size of an image.

    Args:
        content: bytes that begin with one of `SIGNATURES`.

    Returns:
        (width, height) in pixels, each at least 1.

    Raises:
        UnsupportedKind: its format is accepted, but not its kind of this format.
        ValueError: the header is truncated or damaged, or asks for more work than that of an image; the message says
            which.
    """
    size_of = next(size_of for signature, (_, size_of) in _FORMATS.items() if content.startswith(signature))
    try:
        width, height = size_of(content)
    except struct.error:
        raise ValueError(_DAMAGED) from None
    if width < 1 or height < 1:
        raise ValueError(_DAMAGED)
    return width, height


def png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a PNG up to its end: name, start of the content and number of bytes.

    Raises:
        ValueError: there are too many, or the content of one is incomplete. OpenCV allocates the stated size of a
            chunk, up to 4 GB, before it reads it.
    """
    offset = len(PNG_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if offset + 8 > len(png):
            return
        n_bytes, name = struct.unpack_from(">I4s", png, offset)
        if n_bytes > len(png) - offset - 8:
            raise ValueError("the image cannot be decoded; it is truncated or damaged")
        yield name, offset + 8, n_bytes
        if name == b"IEND":
            return
        offset += 12 + n_bytes
    raise ValueError(f"a PNG of more than {_MAX_CHUNKS} chunks")


def _size_of_png(content: bytes) -> tuple[int, int]:
    n_bytes, name, width, height = struct.unpack_from(">I4sII", content, 8)
    if (n_bytes, name) != (13, b"IHDR"):
        raise ValueError(_DAMAGED)
    if sum(name in (b"zTXt", b"iTXt") for name, _, _ in png_chunks(content)) > _MAX_PACKED_TEXTS:
        raise ValueError(f"a PNG of more than {_MAX_PACKED_TEXTS} packed texts")
    return width, height


def jpeg_segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """The segments of a JPEG up to its end: marker, and the position of its length.

    Raises:
        ValueError: there are too many segments or scans.
        struct.error: the file ends within the length of one.
    """
    offset, n_segments, n_scans = 2, 0, 0
    while (found := _SEGMENT.search(jpeg, offset)) is not None:
        marker, start = jpeg[found.end() - 1], found.end()
        if marker in (_START_OF_IMAGE, _END_OF_IMAGE):
            break
        n_segments += 1
        n_scans += marker == _START_OF_SCAN
        if n_scans > _MAX_SCANS:
            raise ValueError(f"a JPEG of more than {_MAX_SCANS} scans")
        if n_segments > _MAX_SEGMENTS:
            raise ValueError(f"a JPEG of more than {_MAX_SEGMENTS} segments")
        yield marker, start
        (n_bytes,) = struct.unpack_from(">H", jpeg, start)
        offset = start + max(n_bytes, 2)


def _size_of_jpeg(content: bytes) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    for marker, start in jpeg_segments(content):
        if marker in JPEG_FRAMES and size is None:
            height, width = struct.unpack_from(">HH", content, start + 3)
            size = width, height
    if size is None:
        raise ValueError(_DAMAGED)
    return size


def _size_of_bmp(content: bytes) -> tuple[int, int]:
    (header_bytes,) = struct.unpack_from("<I", content, 14)
    if header_bytes == _OLDEST_HEADER:
        width, height = struct.unpack_from("<HH", content, 18)
    else:
        width, height = struct.unpack_from("<ii", content, 18)
        _check_bmp_kind(content, header_bytes)
        _check_bmp_masks(content)
    return width, abs(height)  # negative: the top row comes first


def _check_bmp_kind(bmp: bytes, header_bytes: int) -> None:
    """Refuse kinds that OpenCV would call damaged."""
    if _OLDEST_HEADER < header_bytes < _SHORTEST_HEADER:
        raise UnsupportedKind(f"a BMP with a header of {header_bytes} bytes")
    bits, compression = struct.unpack_from("<HI", bmp, 28)
    if header_bytes == _OS2_HEADER and (compression, bits) in _OS2_COMPRESSIONS:
        raise UnsupportedKind(f"a BMP with {_OS2_COMPRESSIONS[compression, bits]}")
    if compression not in _READ_COMPRESSIONS:
        kind = _OTHER_COMPRESSIONS.get(compression, f"unknown compression (number {compression})")
        raise UnsupportedKind(f"a BMP with {kind}")
    if bits in _OTHER_BITS:
        raise UnsupportedKind(f"a BMP of {bits} bits")


def as_opencv_reads(bmp: bytes) -> bytes:
    """The same pixels in a BMP for OpenCV, which has no bit fields with alpha, or of 16 bits in long headers.

    Args:
        bmp: bytes whose header `image_size` could read.
    """
    if bmp[14] == _OLDEST_HEADER or _bmp_masks(bmp) is None:
        return bmp
    start, header_bytes = struct.unpack_from("<II", bmp, 10)
    (bits,) = struct.unpack_from("<H", bmp, 28)
    bit_fields = struct.pack("<I", _BIT_FIELDS)
    if bits == 16 and header_bytes > _PLAIN_HEADER:
        # Masks stand at the same place behind the short header as within the long ones.
        files, info = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 66), struct.pack("<I", _PLAIN_HEADER)
        return files + info + bmp[18:30] + bit_fields + bmp[34:66] + bmp[start:]
    return bmp[:30] + bit_fields + bmp[34:]


def has_red_first(bmp: bytes) -> bool:
    """Whether a BMP stores red and blue in reverse order, in a header in which OpenCV does not read the masks.

    Args:
        bmp: bytes whose header `image_size` could read.
    """
    return bmp[14] in _HEADERS_WITHOUT_ALPHA and _bmp_masks(bmp) == _RED_FIRST


def _check_bmp_masks(bmp: bytes) -> None:
    """Refuse channels that OpenCV would confuse."""
    masks = _bmp_masks(bmp)
    (bits,) = struct.unpack_from("<H", bmp, 28)
    if (
        masks is None
        or (bits == 16 and masks in _MASKS_OF_16_BITS)
        or (bits == 32 and masks in (_BLUE_FIRST, _RED_FIRST))
    ):
        return
    if bits == 32 and bmp[14] not in _HEADERS_WITHOUT_ALPHA and all(mask in _BYTE_MASKS for mask in masks):
        return
    names = ", ".join(f"{colour} {mask:#x}" for colour, mask in zip(("red", "green", "blue"), masks, strict=True))
    raise UnsupportedKind(f"a BMP of {bits} bits with the masks {names}")


def _bmp_masks(bmp: bytes) -> tuple[int, int, int] | None:
    """Which bits are red, green and blue; None if the file does not state it."""
    (compression,) = struct.unpack_from("<I", bmp, 30)
    return struct.unpack_from("<III", bmp, 54) if compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) else None


def _size_of_webp(content: bytes) -> tuple[int, int]:
    n_bytes, form, kind = struct.unpack_from("<I4s4s", content, 4)
    if form != b"WEBP":
        raise UnsupportedKind(format_name(content))
    offset, end = 12, min(len(content), 8 + n_bytes)
    for _ in range(_MAX_SEGMENTS):
        if offset + 8 > end:
            break
        (n_bytes,) = struct.unpack_from("<I", content, offset + 4)
        offset += 8 + n_bytes + n_bytes % 2
    else:
        raise ValueError(f"a WebP of more than {_MAX_SEGMENTS} chunks")
    if kind == b"VP8X":
        width, more_width, height, more_height = struct.unpack_from("<HBHB", content, 24)
        return 1 + width + (more_width << 16), 1 + height + (more_height << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(_DAMAGED)


_FORMATS = {
    PNG_SIGNATURE: (".png", _size_of_png),
    b"\xff\xd8\xff": (".jpg", _size_of_jpeg),
    b"BM": (".bmp", _size_of_bmp),
    b"RIFF": (".webp", _size_of_webp),
    **dict.fromkeys(TIFF_SIGNATURES, (".tif", tiff_size)),
}
SIGNATURES = tuple(_FORMATS)
