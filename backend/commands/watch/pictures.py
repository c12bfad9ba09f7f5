"""Picture files, decoded onto their stored pixel grid; the same pictures are refused as in the console.

The rules of the console are in backend/web/pixels. An incomplete picture is refused, even if it can be decoded, so a
growing file is not judged. A BMP or WebP whose whole length was reserved before its pixels arrived is accepted, because
these formats do not show missing pixels.
"""

import io
import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from isal import isal_zlib
from PIL import Image

from backend.commands.watch.crop import Pixels, Roi, crop
from backend.commands.watch.gui_crop import gui_crop, gui_shape
from backend.common.errors import InvalidImage, TooLarge
from backend.common.image_headers import JPEG_FRAMES, PNG_SIGNATURE, jpeg_segments, png_chunks
from backend.common.jpeg_scans import unsupported_jpeg
from backend.common.png_writer import encode_png
from backend.utils import ImageLimits, check_image, decode_image

RefusalCode = Literal[
    "unreadable", "format", "too_large", "transparent", "colours", "sixteen_bits", "outside", "size", "lost"
]

LIMITS = ImageLimits(max_bytes=256 << 20, max_pixels=65_000_000)
"""What the console opens; the service gets the crop alone."""
_BMP, _RIFF, _JPEG = b"BM", b"RIFF", b"\xff\xd8\xff"
_ENDS_EARLY = "it ends before the picture does"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; a palette's index is one
_PIECE_BYTES = 1 << 20
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_PLAIN_BMP, _BIT_FIELDS = 0, 3
_Broken = cast("type[Exception]", isal_zlib.error)  # its stub takes it for an exception itself


class PictureRefused(Exception):
    """A picture that cannot be cut; the message is a sentence for people.

    Attributes:
        code: the same for programs.
    """

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        name: of its file, for messages.
        content: of its file.
        pixels: uint8 [H, W, 3], BGR, on the stored grid, without EXIF rotation.
        bits: of a channel, as stored.
    """

    name: str
    content: bytes
    pixels: Pixels
    bits: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True)
class _Facts:
    """Facts of a header besides the size."""

    bits: int = 8
    may_be_transparent: bool = False


def open_picture(content: bytes, name: str) -> Picture:
    """Decode a picture.

    Args:
        content: of a PNG, JPEG, BMP or WebP file.
        name: of the file, for messages.

    Raises:
        PictureRefused: it is damaged, incomplete, transparent anywhere, too large, in another format, or in colours
            that decoders read differently.
    """
    try:
        facts = _facts_of(content, name)
        check_image(content, name, LIMITS)
        pixels = decode_image(content, name, LIMITS)
    except TooLarge as exc:
        raise PictureRefused("too_large", f"{exc}. Save it smaller.") from exc
    except InvalidImage as exc:
        raise PictureRefused("unreadable", f"{name} cannot be read: {str(exc).removeprefix(f'{name}: ')}.") from exc
    if facts.may_be_transparent and not _is_opaque(content):
        raise PictureRefused(
            "transparent",
            f"{name} is transparent in places, and nobody can tell which colours are meant there. "
            "Save it without an alpha channel.",
        )
    return Picture(name, content, pixels, facts.bits)


@dataclass(frozen=True)
class Crop:
    """A canonical ROI in the form for the service.

    Attributes:
        content: of an image file.
        shape: the service's mask; None if every pixel counts.
    """

    content: bytes
    shape: dict[str, Any] | None


def cut_roi(picture: Picture, roi: Roi) -> Crop:
    """The canonical ROI, crop and rotation.

    A whole picture at 0° is sent as the bytes of its file.

    Args:
        picture: the picture.
        roi: its place.

    Raises:
        PictureRefused: the ROI reaches beyond the picture, or the picture has more bits than the console keeps.
    """
    width, height = picture.size
    if roi.is_whole(width, height):
        return Crop(picture.content, gui_shape(roi, width, height) if roi.crop else roi.shape)
    if roi.crop is None and (outside := roi.beyond(width, height)) > 0:
        raise PictureRefused(
            "outside",
            f"The ROI reaches {math.ceil(outside)} pixels beyond the {width}×{height} picture {picture.name}.",
        )
    if picture.bits > 8:
        raise PictureRefused(
            "sixteen_bits",
            f"{picture.name} has {picture.bits} bits, of which the console keeps 8. Take the whole picture "
            "as the ROI, or save it with 8 bits.",
        )
    if roi.crop is not None:
        pixels, shape = gui_crop(picture.pixels, roi)
        return Crop(encode_png(pixels), shape)
    return Crop(encode_png(crop(picture.pixels, roi)), roi.shape)


def _facts_of(content: bytes, name: str) -> _Facts:
    """The facts of the header, if the picture is complete."""
    readers = {PNG_SIGNATURE: _png, _JPEG: _jpeg, _BMP: _bmp, _RIFF: _webp}
    read = next((read for signature, read in readers.items() if content.startswith(signature)), None)
    if read is None or (read is _webp and content[8:12] != b"WEBP"):
        raise PictureRefused("format", f"{name} is not a PNG, JPEG, BMP or WebP. Save it as a PNG.")
    try:
        return read(content, name)
    except PictureRefused:
        raise
    except (struct.error, IndexError, ValueError) as exc:
        reason = _ENDS_EARLY if isinstance(exc, struct.error | IndexError) else str(exc)
        raise PictureRefused("unreadable", f"{name} cannot be read: {reason}. The file is damaged.") from exc


def _png(content: bytes, name: str) -> _Facts:
    chunks = list(png_chunks(content))
    names = [chunk for chunk, _, _ in chunks]
    if names[-1] != b"IEND" or chunks[-1][1] + 4 > len(content):
        raise IndexError
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    if width * height <= LIMITS.max_pixels:  # else it is refused before anything is unpacked
        expected = _unpacked_bytes(width, height, bits * _SAMPLES.get(colour, 4), bool(interlaced))
        packed = (content[start : start + n_bytes] for chunk, start, n_bytes in chunks if chunk == b"IDAT")
        if not _unpacks_to(packed, expected):
            raise PictureRefused(
                "unreadable",
                f"{name} cannot be read: a part of it is missing or was changed. The file is damaged.",
            )
    return _Facts(bits, b"tRNS" in names or colour in (4, 6))


def _unpacked_bytes(width: int, height: int, bits_per_pixel: int, interlaced: bool) -> int:
    """Bytes of the rows of a PNG, each with one byte for its filter."""
    size = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + -(-columns * bits_per_pixel // 8))
    return size


def _unpacks_to(packed: Iterator[bytes], expected: int) -> bool:
    """Whether the parts of a zlib stream are complete and unpack to this number of bytes."""
    stream, size = isal_zlib.decompressobj(), 0
    try:
        for piece in itertools.chain(packed, [b""]):
            rest, unpacked = piece, b"more"
            while (rest or unpacked) and not stream.eof:
                unpacked = stream.decompress(rest, _PIECE_BYTES)
                rest = stream.unconsumed_tail
                size += len(unpacked)
                if size > expected:
                    return False
    except _Broken:
        return False
    return stream.eof and not stream.unused_data and size == expected


def _jpeg(content: bytes, name: str) -> _Facts:
    segments = list(jpeg_segments(content))
    frame = next((start for marker, start in segments if marker in JPEG_FRAMES), None)
    scans = [start for marker, start in segments if marker == _START_OF_SCAN]
    if frame is None or not scans or content.find(_END_OF_IMAGE, scans[-1]) < 0:
        raise IndexError
    bits, channels = content[frame + 2], content[frame + 7]
    if channels == 4 or bits != 8:
        kind = "a JPEG in CMYK colours" if channels == 4 else f"a JPEG of {bits} bits"
        raise PictureRefused(
            "colours", f"{name} is {kind}, which is decoded in different ways. Save it as a PNG in RGB."
        )
    if (other := unsupported_jpeg(content)) is not None:
        raise PictureRefused("format", f"{name} is {other}. Save it as a PNG.")
    return _Facts()


def _bmp(content: bytes, name: str) -> _Facts:
    start, header_bytes = struct.unpack_from("<II", content, 10)
    is_core = header_bytes == 12
    width, height = struct.unpack_from("<HH" if is_core else "<ii", content, 18)
    (bits,) = struct.unpack_from("<H", content, 24 if is_core else 28)
    compression = _PLAIN_BMP if is_core else struct.unpack_from("<I", content, 30)[0]
    if compression not in (_PLAIN_BMP, _BIT_FIELDS):
        raise PictureRefused("format", f"{name} is a compressed BMP. Save it as a PNG.")
    if start + -(-width * bits // 32) * 4 * abs(height) > len(content):
        raise IndexError
    return _Facts(may_be_transparent=not is_core and bits in (16, 32))


def _webp(content: bytes, _name: str) -> _Facts:
    (n_bytes,) = struct.unpack_from("<I", content, 4)
    if 8 + n_bytes > len(content):
        raise IndexError
    kind = content[12:16]
    if kind == b"VP8X":
        return _Facts(may_be_transparent=bool(content[20] & 0x10))
    return _Facts(may_be_transparent=kind == b"VP8L" and bool(content[24] & 0x10))


def _is_opaque(content: bytes) -> bool:
    """Whether alpha has its maximum everywhere, in a picture that OpenCV could decode."""
    with Image.open(io.BytesIO(content)) as image:
        if not image.has_transparency_data:
            return True
        low, _ = image.convert("RGBA").getchannel("A").getextrema()
        return low == 255
