"""Whether a PNG has more pixel data than its header says: a decoder unpacks all of it, and discards the rest.

A megabyte of deflated zeros unpacks to a thousand megabytes, which takes a core one second at each decoding.
"""

import struct
from collections.abc import Iterator
from typing import cast

from isal import isal_zlib

from backend.common.image_headers import png_chunks

# Below, a decoder has done with what is too much in seconds; above, unpacking twice is worth it.
_LOOKED_AT_FROM_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20
_Broken = cast("type[Exception]", isal_zlib.error)  # its stub takes it for an exception itself
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type


def unpacks_too_far(png: bytes) -> bool:
    """Whether the pixels of a PNG unpack to more than twice what its header says.

    An interlaced image takes a little more than its rows do, and never twice as much.

    Args:
        png: bytes whose header `image_size` could read. The decoder reports other errors.
    """
    if len(png) < _LOOKED_AT_FROM_BYTES:
        return False
    width, height, depth, colour = struct.unpack_from(">IIBB", png, 16)
    row_bytes = 1 + (width * depth * _CHANNELS.get(colour, 4) + 7) // 8
    room = 2 * height * row_bytes + _PIECE_BYTES
    stream = isal_zlib.decompressobj()
    try:
        for piece in _pixel_data(png):
            while piece and not stream.eof:
                room -= len(stream.decompress(piece, _PIECE_BYTES))
                if room < 0:
                    return True
                piece = stream.unconsumed_tail
    except _Broken:
        return False
    return False


def _pixel_data(png: bytes) -> Iterator[bytes]:
    for name, start, n_bytes in png_chunks(png):
        if name == b"IDAT":
            end = start + n_bytes
            yield from (png[offset : min(offset + _PIECE_BYTES, end)] for offset in range(start, end, _PIECE_BYTES))
