"""PNG files, written with ISA-L, which deflates heatmaps four times as fast as the zlib in OpenCV."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from backend.common.image_headers import PNG_SIGNATURE

_ROWS_BYTES = 1 << 20
_LEVEL = 1
_GREY, _RGB = 0, 2
_KEYWORD = b"Description\0"
_TEXT_AT = len(PNG_SIGNATURE) + 25  # behind IHDR


def encode_png(image: npt.NDArray[np.uint8], text: str | None = None) -> bytes:
    """A picture as PNG.

    Args:
        image: uint8 [H, W], grey, or [H, W, 3], BGR.
        text: description of the file, in ASCII; see `png_text`.
    """
    height, width = image.shape[:2]
    is_grey = image.ndim == 2
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if is_grey else _RGB, 0, 0, 0)  # 8 bits, not interlaced
    chunks = [(b"IHDR", header)]
    if text is not None:
        chunks.append((b"tEXt", _KEYWORD + text.encode("ascii")))
    # Of a heatmap the lines are small. Those of a colour picture would take as much memory as the picture.
    deflated = isal_zlib.compress(_lines(image[..., None]), _LEVEL) if is_grey else b"".join(_deflated(image))
    chunks += [(b"IDAT", deflated), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
        for name, content in chunks
    )


def png_text(beginning: bytes) -> str | None:
    """The description in a file of `encode_png`; None if there is none.

    Args:
        beginning: the first 512 bytes of the file, or more.
    """
    if beginning[_TEXT_AT + 4 : _TEXT_AT + 8] != b"tEXt":
        return None
    (n_bytes,) = struct.unpack_from(">I", beginning, _TEXT_AT)
    content = beginning[_TEXT_AT + 8 : _TEXT_AT + 8 + n_bytes]
    return content.removeprefix(_KEYWORD).decode("latin-1")


def _lines(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The rows to deflate for uint8 [H, W, C]: [H, 1 + W * C]."""
    height, width, n_channels = picture.shape
    lines = np.empty((height, 1 + width * n_channels), np.uint8)
    lines[:, 0] = 1  # filter Sub: differences to the pixel on the left, modulo 256
    differences = lines[:, 1:].reshape(height, width, n_channels)
    differences[:, 0] = picture[:, 0]
    np.subtract(picture[:, 1:], picture[:, :-1], out=differences[:, 1:])
    return lines


def _deflated(picture: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """A BGR picture in pieces, some rows at a time."""
    step = max(1, _ROWS_BYTES // (3 * picture.shape[1]))
    stream = isal_zlib.compressobj(_LEVEL)
    for start in range(0, picture.shape[0], step):
        yield stream.compress(_lines(picture[start : start + step, :, ::-1]))
    yield stream.flush()
