"""The pixels of a TIFF as they are stored, whatever its orientation tag says.

OpenCV always rotates an image by that tag, and treats damaged rows of 8-bit images as black. Therefore it sees neither:
it unpacks LZW and PackBits from a file that is made here, as grey numbers of 16 bits, because it checks every row of
these. The meaning of each number is computed here.
"""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backend.common.tiff_headers import TiffLayout

_DAMAGED = "the image cannot be decoded; it is truncated or damaged"
_OPENCV_CODECS = {"LZW": 5, "PackBits": 32773}
# OpenCV decodes no image that is wider.
_MOST_COLUMNS = 1 << 20
_TOO_LONG_ROWS = f"a packed TIFF of more than {_MOST_COLUMNS} bytes a row; send it without compression"
_LZW_CLEAR = 256
_LZW_BITS = 9
# Until then codes have 9 bits.
_LZW_LITERALS = 250


def tiff_pixels(content: bytes, layout: TiffLayout) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decode a TIFF.

    Args:
        content: the file.
        layout: what `tiff_layout` says about it.

    Returns:
        uint8 or uint16 [H, W, C], grey or RGB; then alpha, if there is one. 0 is black, unless `layout.needs_depth`:
            then the numbers are as stored, and 0 is white.

    Raises:
        ValueError: it is truncated or damaged.
    """
    rows = _unpacked(content, layout)
    numbers = rows if layout.bits == 8 else rows.view(">u2" if layout.is_big_endian else "<u2")
    numbers = numbers.reshape(len(rows), -1, layout.samples)[: layout.height, : layout.width]
    if layout.has_differences:
        numbers = _summed(numbers, layout.segment_hw[1])
    if layout.is_inverted and not layout.needs_depth:  # and grey
        numbers = np.concatenate([~numbers[..., :1], numbers[..., 1:]], axis=2)
    return np.asarray(numbers, np.uint8) if layout.bits == 8 else np.asarray(numbers, np.uint16)


def _summed(differences: npt.NDArray[Any], columns: int) -> npt.NDArray[Any]:
    """The sums of differences to the pixel on the left, within each segment, modulo 2 to the power of their bits."""
    dtype = np.dtype(f"u{differences.dtype.itemsize}")
    summed = np.empty(differences.shape, dtype)
    for left in range(0, differences.shape[1], columns):
        part = slice(left, left + columns)
        np.cumsum(differences[:, part], axis=1, dtype=dtype, out=summed[:, part])
    return summed


def _unpacked(content: bytes, layout: TiffLayout) -> npt.NDArray[np.uint8]:
    """All rows as bytes, uint8 [rows, bytes of a row]; rows of tiles with their padding."""
    row_bytes = layout.segment_row_bytes
    if layout.codec in _OPENCV_CODECS:
        return _unpacked_by_opencv(content, layout)
    across = -(-layout.width // layout.segment_hw[1])
    height = -(-len(layout.offsets) // across) * layout.segment_hw[0] if layout.is_tiled else layout.height
    rows = np.empty((height, across * row_bytes), np.uint8)
    for number, (offset, count) in enumerate(zip(layout.offsets.tolist(), layout.counts.tolist(), strict=True)):
        n_rows = layout.rows_of(number)
        segment = memoryview(content)[offset : offset + count]
        unpacked = segment if layout.codec == "none" else _inflated(segment, n_rows * row_bytes)
        top, left = number // across * layout.segment_hw[0], number % across * row_bytes
        rows[top : top + n_rows, left : left + row_bytes] = np.frombuffer(unpacked, np.uint8).reshape(n_rows, -1)
    return rows


def _inflated(segment: memoryview, n_bytes: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(segment, n_bytes)
        stream.decompress(stream.unconsumed_tail, 1)  # whose end has the checksum
    except zlib.error:
        raise ValueError(_DAMAGED) from None
    if len(unpacked) < n_bytes:
        raise ValueError(_DAMAGED)
    return unpacked


def _unpacked_by_opencv(content: bytes, layout: TiffLayout) -> npt.NDArray[np.uint8]:
    row_bytes, (segment_rows, _) = layout.segment_row_bytes, layout.segment_hw
    across = -(-layout.width // layout.segment_hw[1])
    # Two bytes make one number: where a row has an odd number of bytes, two rows make one, and a strip of an odd number
    # of rows gets one more before its first.
    is_odd = bool(row_bytes % 2)
    columns = row_bytes if is_odd else across * row_bytes // 2
    if columns > _MOST_COLUMNS:  # before anything as long as a row is made
        raise ValueError(_TOO_LONG_ROWS)
    before = _row_before(layout.codec, row_bytes) if is_odd else b""
    segments, is_filled = [], []
    for number, (offset, count) in enumerate(zip(layout.offsets.tolist(), layout.counts.tolist(), strict=True)):
        segment = content[offset : offset + count]
        is_filled.append(is_odd and bool(layout.rows_of(number) % 2))
        if is_filled[-1]:
            _check_start(segment, layout.codec)
            segment = before + segment
        segments.append(segment)
    down = -(-len(segments) // across)
    last_rows = layout.rows_of(len(segments) - 1)
    rows = (down - 1) * (segment_rows + is_filled[0]) + last_rows + is_filled[-1]
    rows_each = segment_rows + is_filled[0]
    if is_odd:
        rows, rows_each = rows // 2, rows_each // 2
    if rows > _MOST_COLUMNS:
        raise ValueError(_TOO_LONG_ROWS)
    tile_columns = row_bytes // 2 if layout.is_tiled else None
    file = _grey_tiff(segments, (rows, columns), rows_each, tile_columns, _OPENCV_CODECS[layout.codec])
    try:
        decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        raise ValueError(_DAMAGED) from None
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape != (rows, columns):
        raise ValueError(_DAMAGED)
    unpacked = decoded.astype("<u2", copy=False).view(np.uint8).reshape(-1, across * row_bytes)
    if not any(is_filled):
        return unpacked
    starts = [number * 2 * rows_each for number, filled in enumerate(is_filled) if filled]
    return np.delete(unpacked, starts, axis=0)


def _check_start(segment: bytes, codec: str) -> None:
    """Check that a packed row can be put before a packed segment.

    Raises:
        ValueError: it does not begin as LZW must.
    """
    if codec == "LZW" and (segment[:1] != b"\x80" or segment[1:2] > b"\x7f"):
        raise ValueError(_DAMAGED)


def _row_before(codec: str, row_bytes: int) -> bytes:
    """A packed row of zeros, to put before a packed segment."""
    if codec == "PackBits":
        runs, rest = divmod(row_bytes, 128)
        return b"\x81\0" * runs + (bytes([257 - rest & 255, 0]) if rest else b"")
    codes: list[int] = []
    for start in range(0, row_bytes, _LZW_LITERALS):
        codes += [_LZW_CLEAR, *[0] * min(_LZW_LITERALS, row_bytes - start)]
    codes += [_LZW_CLEAR] * (-len(codes) % 8)  # so that the segment begins at a byte
    bits = np.array(codes)[:, None] >> np.arange(_LZW_BITS)[::-1] & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def _grey_tiff(
    segments: list[bytes], size: tuple[int, int], rows_each: int, tile_columns: int | None, compression: int
) -> bytes:
    """A TIFF with one directory that declares packed segments as grey numbers of 16 bits, in Intel's order.

    Args:
        segments: strips, or tiles row by row.
        size: (rows, columns) of the image.
        rows_each: of a segment.
        tile_columns: of a tile; None makes strips.
        compression: the number of the codec.
    """
    counts = np.array([len(segment) for segment in segments], np.int64)
    offsets = 8 + np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows, columns = size
    tags: list[tuple[int, npt.NDArray[np.int64]]] = [
        (tag, np.array([value]))
        for tag, value in ((256, columns), (257, rows), (258, 16), (259, compression), (262, 1), (277, 1))
    ]
    if tile_columns is None:
        tags += [(273, offsets), (278, np.array([rows_each])), (279, counts)]
    else:
        tags += [(322, np.array([tile_columns])), (323, np.array([rows_each])), (324, offsets), (325, counts)]
    body = b"".join(segments)
    directory = 8 + len(body)
    entries, values = struct.pack("<H", len(tags)), b""
    first_value = directory + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags, key=lambda entry: entry[0]):
        packed = numbers.astype("<u4").tobytes()
        if len(numbers) == 1:
            entries += struct.pack("<HHI", tag, 4, 1) + packed
        else:
            entries += struct.pack("<HHII", tag, 4, len(numbers), first_value + len(values))
            values += packed
    return struct.pack("<2sHI", b"II", 42, directory) + body + entries + bytes(4) + values
