"""TIFF files written tag by tag with numpy: kinds that no library writes, and wrong headers."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

_NUMBERS = {"none": 1, "LZW": 5, "deflate": 8, "old deflate": 32946, "PackBits": 32773}
_CLEAR, _END = 256, 257

ByteOrder = Literal["<", ">"]


def tiff(
    image: npt.NDArray[Any],
    *,
    codec: str = "none",
    order: ByteOrder = "<",
    rows_each: int | None = None,
    tile: tuple[int, int] | None = None,
    predictor: int = 1,
    extra: Mapping[int, int] | None = None,
    without: Sequence[int] = (),
    segments: Sequence[bytes] | None = None,
    offsets: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
    extra_body: bytes = b"",
) -> bytes:
    """An image as a TIFF of one directory.

    Args:
        image: uint8 or uint16 [H, W, C], grey or RGB, with or without alpha.
        codec: how segments are packed: none, LZW, deflate, old deflate or PackBits.
        order: ``<`` is Intel's, ``>`` Motorola's.
        rows_each: rows of a strip; None makes one strip.
        tile: rows and columns of a tile; None makes strips.
        predictor: 2 keeps differences.
        extra: tags to add or to replace, LONG, whatever they say.
        without: tags to leave out.
        segments, offsets, counts: instead of those of the image.
        extra_body: bytes between the segments and the directory.
    """
    height, width, samples = image.shape
    bits = 8 * image.dtype.itemsize
    parts = [pack(part, codec, order, predictor) for part in _cut(image, rows_each or height, tile)]
    parts = parts if segments is None else list(segments)
    starts = list(8 + np.cumsum([0, *(len(part) for part in parts)])[:-1]) if offsets is None else list(offsets)
    lengths = [len(part) for part in parts] if counts is None else list(counts)
    tags: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * samples),
        259: ("H", [_NUMBERS[codec]]),
        262: ("H", [2 if samples > 2 else 1]),
        277: ("H", [samples]),
    }
    if tile is None:
        tags |= {273: ("I", starts), 278: ("I", [rows_each or height]), 279: ("I", lengths)}
    else:
        tags |= {322: ("I", [tile[1]]), 323: ("I", [tile[0]]), 324: ("I", starts), 325: ("I", lengths)}
    if predictor != 1:
        tags[317] = ("H", [predictor])
    if samples in (2, 4):
        tags[338] = ("H", [2])
    tags |= {tag: ("I", [value]) for tag, value in (extra or {}).items()}
    kept = {tag: entry for tag, entry in sorted(tags.items()) if tag not in without}
    return _file(kept, b"".join(parts) + extra_body, order)


def _file(tags: Mapping[int, tuple[str, Sequence[int]]], body: bytes, order: ByteOrder) -> bytes:
    directory = 8 + len(body)
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, (form, numbers) in tags.items():
        packed = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 3 if form == "H" else 4, len(numbers))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", directory + 2 + 12 * len(tags) + 4 + len(values))
            values += packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, directory)
    return head + body + entries + bytes(4) + values


def _cut(image: npt.NDArray[Any], rows: int, tile: tuple[int, int] | None) -> list[npt.NDArray[Any]]:
    height, width, _ = image.shape
    if tile is None:
        return [image[top : top + rows] for top in range(0, height, rows)]
    down, across = -(-height // tile[0]), -(-width // tile[1])
    filled = np.pad(image, ((0, down * tile[0] - height), (0, across * tile[1] - width), (0, 0)), mode="edge")
    return [
        filled[top : top + tile[0], left : left + tile[1]]
        for top in range(0, filled.shape[0], tile[0])
        for left in range(0, filled.shape[1], tile[1])
    ]


def pack(part: npt.NDArray[Any], codec: str, order: ByteOrder = "<", predictor: int = 1) -> bytes:
    """A segment, [rows, columns, C], packed."""
    if predictor == 2:
        part = part.copy()
        part[:, 1:] -= part[:, :-1].copy()
    content = part.astype(part.dtype.newbyteorder(order)).tobytes()
    if codec == "LZW":
        return lzw(content)
    if codec == "PackBits":
        return b"".join(_pack_bits(content[start : start + 128]) for start in range(0, len(content), 128))
    return zlib.compress(content) if "deflate" in codec else content


def _pack_bits(piece: bytes) -> bytes:
    if len(piece) > 1 and len(set(piece)) == 1:
        return bytes([257 - len(piece), piece[0]])
    return bytes([len(piece) - 1]) + piece


def lzw(content: bytes) -> bytes:
    """Packed as TIFF's LZW: codes of 9 to 12 bits, the highest bit first, each width one code early."""
    bits: list[str] = []
    table: dict[bytes, int] = {}

    def put(code: int) -> None:
        width = 9 + sum(258 + len(table) >= limit for limit in (512, 1024, 2048))
        bits.append(f"{code:0{width}b}")

    def code_of(known: bytes) -> int:
        return known[0] if len(known) == 1 else table[known]

    put(_CLEAR)
    known = b""
    for byte in content:
        longer = known + bytes([byte])
        if len(longer) == 1 or longer in table:
            known = longer
            continue
        put(code_of(known))
        table[longer] = 258 + len(table)
        if len(table) == 4094 - 258:
            put(_CLEAR)
            table.clear()
        known = longer[-1:]
    if known:
        put(code_of(known))
        table[b"the last one"] = 0  # as the reader counts
    put(_END)
    joined = "".join(bits)
    return int(joined.ljust(-(-len(joined) // 8) * 8, "0"), 2).to_bytes(-(-len(joined) // 8), "big")
