"""The layout of the pixels of a TIFF, from its only directory; unsupported kinds are refused by name.

Nothing in a TIFF is trusted: every offset must be inside the file, every count must fit the size of the image, and all
segments together must not be longer than the file. Tags that do not affect pixels are not read, nor is the orientation:
pixels stay where they are stored.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from backend.common.foreign_formats import UnsupportedKind

SIGNATURES = (b"II*\0", b"MM\0*")

# Tags of the directory, by the names of TIFF 6.0.
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _SAMPLE_FORMAT = 317, 322, 323, 324, 325, 339
_TYPES = {1: "u1", 3: "u2", 4: "u4"}  # BYTE, SHORT, LONG
_ENTRY_BYTES = 12
_MAX_TAGS = 1000  # cameras write some twenty
_MAX_SEGMENTS = 1 << 16  # of some 8 KB each, or of a row
_MAX_SAMPLES = 1000  # more are named by this number
_TILE_STEP = 16  # of the sides of a tile
# Tiles are unpacked in whole, beyond the edges of the image, too. Encoders take some 256 × 256 pixels for one.
_MOST_FILLED_PIXELS = 16 << 20

_FILE_HEADER_BYTES = 8

Codec = Literal["none", "LZW", "deflate", "PackBits"]
_WITH_PREDICTOR: tuple[Codec, ...] = ("LZW", "deflate")
_CODECS: dict[int, Codec] = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
_OTHER_CODECS = {
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    6: "JPEG",
    7: "JPEG",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_OTHER_COLOURS = {
    3: "a colour palette",
    4: "a transparency mask",
    5: "CMYK colours",
    6: "YCbCr colours",
    8: "CIELab colours",
    32803: "raw sensor data",
    34892: "raw sensor data",
}
_SAMPLE_FORMATS = {2: "signed integers", 3: "floating point numbers"}
_DAMAGED = "the image header is truncated or damaged"


@dataclass(frozen=True)
class TiffLayout:
    """The layout of the pixels of a TIFF.

    Attributes:
        width, height: in pixels.
        samples: numbers per pixel: 1 or 2 are grey, 3 or 4 RGB, the last of 2 or 4 alpha.
        bits: of a number, 8 or 16.
        is_big_endian: how numbers of 16 bits are written.
        is_inverted: whether 0 is white; only of grey.
        codec: how the segments are packed.
        has_differences: whether each number is stored as the difference to the pixel on the left.
        segment_hw: rows and columns of a segment; of strips, all columns. Those at the right and the lower edge may
            reach beyond the image: strips end with it, tiles are filled up.
        is_tiled: whether the segments are tiles.
        offsets, counts: int64 [N], where each segment begins and how many bytes it has; row by row.
    """

    width: int
    height: int
    samples: int
    bits: int
    is_big_endian: bool
    is_inverted: bool
    codec: Codec
    has_differences: bool
    segment_hw: tuple[int, int]
    is_tiled: bool
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def needs_depth(self) -> bool:
        """Whether it has 16 bits with 0 as white. Then the number of black depends on how many bits are used."""
        return self.is_inverted and self.bits > 8

    @property
    def segment_row_bytes(self) -> int:
        """Of one row of a segment, unpacked."""
        return self.segment_hw[1] * self.samples * self.bits // 8

    def rows_of(self, number: int) -> int:
        """How many rows a segment has, by its position."""
        rows = self.segment_hw[0]
        return rows if self.is_tiled else min(rows, self.height - number * rows)


def tiff_size(content: bytes) -> tuple[int, int]:
    """The size of a TIFF, after a check that its kind is accepted.

    Args:
        content: bytes that begin with one of `SIGNATURES`.

    Returns:
        (width, height) in pixels.

    Raises:
        UnsupportedKind: it is of another kind.
        ValueError: the directory is truncated or damaged.
        struct.error: the file ends before its directory does.
    """
    directory = _Directory(content)
    _check_kind(directory)
    width, height = directory.number(_WIDTH), directory.number(_LENGTH)
    directory.refuse_pages()
    return width, height


def tiff_layout(content: bytes) -> TiffLayout:
    """Where the pixels of a TIFF lie.

    Args:
        content: as for `tiff_size`, and of no more pixels than may be decoded.

    Raises:
        UnsupportedKind, struct.error: as `tiff_size`.
        ValueError: the directory is truncated or damaged, or segments are outside the file, too short or too many.
    """
    directory = _Directory(content)
    bits, samples, codec, inverted = _check_kind(directory)
    width, height = directory.number(_WIDTH), directory.number(_LENGTH)
    is_tiled = directory.has(_TILE_WIDTH)
    if is_tiled:
        rows, columns = directory.number(_TILE_LENGTH), directory.number(_TILE_WIDTH)
        if rows % _TILE_STEP or columns % _TILE_STEP:
            raise ValueError(_DAMAGED)
    else:
        rows, columns = min(directory.number(_ROWS_PER_STRIP, height), height), width
    if min(rows, columns, width, height) < 1:
        raise ValueError(_DAMAGED)
    n_segments = -(-height // rows) * -(-width // columns)
    if n_segments > _MAX_SEGMENTS:
        raise ValueError(f"a TIFF of more than {_MAX_SEGMENTS} strips or tiles")
    if n_segments * rows * columns > width * height + _MOST_FILLED_PIXELS:
        raise ValueError("the tiles of the image are far larger than the image")
    layout = TiffLayout(
        width,
        height,
        samples,
        bits,
        content.startswith(b"MM"),
        inverted,
        codec,
        codec in _WITH_PREDICTOR and directory.number(_PREDICTOR, 1) == 2,
        (rows, columns),
        is_tiled,
        directory.numbers(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, n_segments),
        np.zeros(0, np.int64),
    )
    layout = replace(layout, counts=_counts(directory, layout))
    ends = layout.offsets + layout.counts
    if (
        np.any(layout.offsets < _FILE_HEADER_BYTES)
        or np.any(layout.counts < 1)
        or np.any(ends > len(content))
        or layout.counts.sum() > len(content)
    ):
        raise ValueError("the image cannot be decoded; it is truncated or damaged")
    return layout


def _counts(directory: "_Directory", layout: TiffLayout) -> npt.NDArray[np.int64]:
    """How many bytes each segment has; for unpacked segments, not more than they need."""
    n_segments = len(layout.offsets)
    tag = _TILE_COUNTS if layout.is_tiled else _STRIP_COUNTS
    if layout.codec != "none":
        return directory.numbers(tag, n_segments)
    needed = np.full(n_segments, layout.segment_hw[0] * layout.segment_row_bytes, np.int64)
    needed[-1] = layout.rows_of(n_segments - 1) * layout.segment_row_bytes
    # The oldest writers leave the tag out.
    if directory.has(tag) and np.any(directory.numbers(tag, n_segments) < needed):
        raise ValueError("the image is truncated or damaged: its strips are too short for its size")
    return needed


class _Directory:
    """The first directory of a TIFF.

    Raises:
        ValueError: it has no tag, or too many, or is not inside the file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._order = ">" if content.startswith(b"MM") else "<"
        (self._start,) = struct.unpack_from(f"{self._order}I", content, 4)
        if self._start < _FILE_HEADER_BYTES:
            raise ValueError(_DAMAGED)
        (n_tags,) = struct.unpack_from(f"{self._order}H", content, self._start)
        if not 1 <= n_tags <= _MAX_TAGS:
            raise ValueError(f"a TIFF of {n_tags} tags; from 1 to {_MAX_TAGS} are accepted" if n_tags else _DAMAGED)
        self._end = self._start + 2 + n_tags * _ENTRY_BYTES
        self._entries: dict[int, tuple[int, int, int]] = {}
        for offset in range(self._start + 2, self._end, _ENTRY_BYTES):
            tag, kind, count = struct.unpack_from(f"{self._order}HHI", content, offset)
            struct.unpack_from("4s", content, offset + 8)
            self._entries.setdefault(tag, (kind, count, offset + 8))

    def has(self, tag: int) -> bool:
        """Whether it has a tag."""
        return tag in self._entries

    def number(self, tag: int, default: int | None = None) -> int:
        """The only or the first number of a tag; the default if there is no such tag."""
        if default is not None and not self.has(tag):
            return default
        return int(self.numbers(tag, 1)[0])

    def numbers(self, tag: int, count: int) -> npt.NDArray[np.int64]:
        """The first `count` numbers of a tag, int64.

        Raises:
            ValueError: there is no such tag, it has fewer numbers or none, or they are not inside the file.
        """
        kind, there, offset = self._entries.get(tag, (0, 0, 0))
        if kind not in _TYPES or there < count:
            raise ValueError(_DAMAGED)
        dtype = np.dtype(self._order + _TYPES[kind])
        if there * dtype.itemsize > 4:
            (offset,) = struct.unpack_from(f"{self._order}I", self._content, offset)
        if offset + count * dtype.itemsize > len(self._content):
            raise ValueError(_DAMAGED)
        return np.frombuffer(self._content, dtype, count, offset).astype(np.int64)

    def count(self, tag: int) -> int:
        """How many numbers a tag has."""
        return self._entries.get(tag, (0, 0, 0))[1]

    def refuse_pages(self) -> None:
        """Refuse a second directory.

        Raises:
            UnsupportedKind: there is one.
            ValueError: its offset is impossible.
        """
        (following,) = struct.unpack_from(f"{self._order}I", self._content, self._end)
        if following == 0:
            return
        if (
            following < _FILE_HEADER_BYTES
            or following == self._start
            or following + 2 + _ENTRY_BYTES > len(self._content)
        ):
            raise ValueError(_DAMAGED)
        raise UnsupportedKind("a TIFF of several pages")


def _check_kind(directory: _Directory) -> tuple[int, int, Codec, bool]:
    """Bits, samples, codec and whether 0 is white.

    Raises:
        UnsupportedKind, ValueError: see `tiff_size`.
    """
    codec = directory.number(_COMPRESSION, 1)
    if codec not in _CODECS:
        raise UnsupportedKind(f"a TIFF with {_OTHER_CODECS.get(codec, f'unknown (number {codec})')} compression")
    samples = directory.number(_SAMPLES, 1)
    if not 1 <= samples <= _MAX_SAMPLES:
        raise ValueError(_DAMAGED)
    colours = directory.number(_PHOTOMETRIC)
    if colours not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise UnsupportedKind(f"a TIFF with {_OTHER_COLOURS.get(colours, f'unknown colours (number {colours})')}")
    bits = {1}  # where nothing is said
    if directory.has(_BITS):
        bits = set(directory.numbers(_BITS, min(samples, max(1, directory.count(_BITS)))).tolist())
    if directory.has(_SAMPLE_FORMAT):
        formats = directory.numbers(_SAMPLE_FORMAT, min(samples, max(1, directory.count(_SAMPLE_FORMAT))))
        _refuse_formats(formats.tolist())
    if len(bits) > 1 or not bits <= {8, 16}:
        raise UnsupportedKind(f"a TIFF of {' and '.join(map(str, sorted(bits)))} bits a channel")
    if samples not in ((3, 4) if colours == _RGB else (1, 2)):
        raise UnsupportedKind(f"a TIFF of {samples} channels in {'RGB' if colours == _RGB else 'grey'}")
    if samples > 1 and directory.number(_PLANAR, 1) != 1:
        raise UnsupportedKind("a TIFF with separate colour planes")
    if directory.number(_FILL_ORDER, 1) != 1:
        raise UnsupportedKind("a TIFF whose bits are in reverse order")
    if _CODECS[codec] in _WITH_PREDICTOR and (predictor := directory.number(_PREDICTOR, 1)) not in (1, 2):
        raise UnsupportedKind(f"a TIFF with predictor {predictor}")
    return bits.pop(), samples, _CODECS[codec], colours == _WHITE_IS_ZERO


def _refuse_formats(formats: Sequence[int]) -> None:
    for sample_format in formats:
        if sample_format != 1:
            raise UnsupportedKind(f"a TIFF of {_SAMPLE_FORMATS.get(sample_format, 'numbers of unknown kind')}")
