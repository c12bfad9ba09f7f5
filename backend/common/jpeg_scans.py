"""Whether a JPEG holds all of its image: one that was cut and closed again decodes, with grey where rows are missing.

libjpeg reports this only on stderr, through OpenCV. Here, the scans show which coefficients exist. Then Pillow, which
is silent, decodes the file again with more data at its end: this changes an image that lacks data. With a single scan,
this is done only if the last pixel has the grey of a missing one.
"""

import io
import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL.JpegImagePlugin import JpegImageFile

from backend.common.image_headers import JPEG_FRAMES, jpeg_segments

Pixels = npt.NDArray[np.uint8]

_RESTART_INTERVAL, _START_OF_SCAN = 0xDD, 0xDA
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})  # all but JFIF's and Adobe's, which tell colours
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_AFTER_DATA = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_COEFFICIENTS = 64
_MISSING = "a part of the image is missing, though the file is closed; it is damaged"
_MISSING_GREY = 128
_CMYK_COMPONENTS = 4
# Enough for some blocks by any table, without the byte that begins a marker.
_MORE_DATA = np.random.default_rng(0).integers(0, 0xFF, 512, np.uint8).tobytes()
_PROCESSES = {0xC3: "a lossless JPEG", 0xC9: "a JPEG with arithmetic coding", 0xCA: "a JPEG with arithmetic coding"}


@dataclass(frozen=True)
class _Frame:
    """The frame of a JPEG: its marker, bits of a sample, size, and sampling factors (h, v) by component."""

    marker: int
    bits: int
    size: tuple[int, int]
    sampling: dict[int, tuple[int, int]]

    @classmethod
    def at(cls, jpeg: bytes, marker: int, start: int) -> "_Frame":
        """The frame whose segment begins at `start`.

        Raises:
            struct.error: the file ends before.
        """
        bits, height, width, n_components = struct.unpack_from(">BHHB", jpeg, start + 2)
        components = [struct.unpack_from("BB", jpeg, start + 8 + 3 * number) for number in range(n_components)]
        return cls(marker, bits, (width, height), {name: (both >> 4, both & 15) for name, both in components})

    def n_units(self) -> int:
        """How many units in sequence a scan of all components codes."""
        across, down = 8, 8
        if len(self.sampling) > 1:
            across, down = (8 * max(factors) for factors in zip(*self.sampling.values(), strict=True))
        return -(-self.size[0] // max(across, 1)) * -(-self.size[1] // max(down, 1))


def unsupported_jpeg(jpeg: bytes) -> str | None:
    """The kind of a JPEG that the decoder does not support, in words; None if its kind is supported."""
    try:
        frame = next((_Frame.at(jpeg, *found) for found in jpeg_segments(jpeg) if found[0] in JPEG_FRAMES), None)
    except (struct.error, ValueError):
        return None
    if frame is None:
        return None
    if frame.marker not in (*_SEQUENTIAL, _PROGRESSIVE):
        return _PROCESSES.get(frame.marker, "a hierarchical JPEG")
    return None if frame.bits == 8 else f"a JPEG of {frame.bits} bits"


def missing_part(jpeg: bytes, pixels: Pixels) -> str | None:
    """What is missing in a decoded JPEG, in words; None if at most the last block is missing.

    By the standard, a progressive JPEG may omit fine detail. But a file that was cut between two scans looks the same,
    and an image without its detail has a score of its own.

    Args:
        jpeg: the file.
        pixels: what it was decoded to, uint8 [H, W, 3], BGR.
    """
    try:
        scans = _Scans(jpeg)
    except struct.error:
        return _MISSING
    if scans.frame is None:
        return _MISSING
    n_unsent, n_coarse = scans.unsent()
    if n_unsent or n_coarse:
        return (
            f"a part of the image is missing: its {scans.number} scans lack {n_unsent} of 64 coefficients, and the "
            f"last bits of {n_coarse}; the file was cut between two scans, or saved without its detail; send the "
            "whole file, or save the image again"
        )
    return _MISSING if _ends_early(jpeg, pixels, scans, scans.frame) else None


def _ends_early(jpeg: bytes, pixels: Pixels, scans: "_Scans", frame: _Frame) -> bool:
    """Whether the data ends before the last scan is complete."""
    could_be_grey = scans.number > 1 or len(frame.sampling) >= _CMYK_COMPONENTS
    if not could_be_grey and np.any(pixels[-1, -1] != _MISSING_GREY):
        return False
    found = _AFTER_DATA.search(jpeg, scans.data)
    end = len(jpeg) if found is None else found.start()
    if scans.number == 1 and scans.restart_interval:
        n_restarts = -(-frame.n_units() // scans.restart_interval) - 1
        if len(_RESTART.findall(jpeg, scans.data, end)) < n_restarts:
            return True
    head = scans.head + jpeg[scans.first : end]
    longer = _decoded(head + _MORE_DATA + jpeg[end:])
    if longer is None or np.array_equal(longer, pixels):
        return False
    as_it_is = _decoded(head + jpeg[end:])  # Pillow may round in another way than OpenCV
    return as_it_is is not None and not np.array_equal(longer, as_it_is)


class _Scans:
    """The contents of the segments of a JPEG: all of them, or up to a scan of the whole image.

    Attributes:
        head: the file up to its first scan, without metadata.
        first: where that scan begins.
        frame: the first one; None if there is none.
        restart_interval: units between two restart markers; 0 is none.
        number: of scans.
        data: where the data of the last one begin.

    Raises:
        struct.error: the file ends before a segment does.
    """

    def __init__(self, jpeg: bytes) -> None:
        self.frame: _Frame | None = None
        self.first = self.data = len(jpeg)
        self.restart_interval = self.number = 0
        self._lowest_bits: dict[int, list[int | None]] = {}
        parts = [jpeg[:2]]
        for marker, start in jpeg_segments(jpeg):
            if marker in JPEG_FRAMES and self.frame is None:
                self.frame = _Frame.at(jpeg, marker, start)
                self._lowest_bits = {name: [None] * _COEFFICIENTS for name in self.frame.sampling}
            elif marker == _RESTART_INTERVAL:
                (self.restart_interval,) = struct.unpack_from(">H", jpeg, start + 2)
            elif marker == _START_OF_SCAN and self.frame is not None:
                self.first = min(self.first, start - 2)
                if self._note_scan(jpeg, start, self.frame):
                    break
            if self.number == 0 and marker not in _METADATA:
                (n_bytes,) = struct.unpack_from(">H", jpeg, start)
                parts.append(jpeg[start - 2 : start + n_bytes])
        self.head = b"".join(parts)

    def unsent(self) -> tuple[int, int]:
        """The gaps of the least complete component: how many coefficients are missing, and how many lack last bits."""
        lacks = [(bits.count(None), sum(bool(bit) for bit in bits)) for bits in self._lowest_bits.values()]
        return max(lacks, default=(0, 0))

    def _note_scan(self, jpeg: bytes, start: int, frame: _Frame) -> bool:
        """Record the lowest bit of each coefficient in a scan; returns whether the scan is the whole image."""
        n_bytes, n_components = struct.unpack_from(">HB", jpeg, start)
        names = [name for name, _ in struct.iter_unpack("BB", jpeg[start + 3 : start + 3 + 2 * n_components])]
        first, last, bits = 0, _COEFFICIENTS - 1, 0
        if frame.marker == _PROGRESSIVE:
            first, last, bits = struct.unpack_from("BBB", jpeg, start + 3 + 2 * n_components)
        for name in names:
            if name in self._lowest_bits:
                told = self._lowest_bits[name]
                told[first : last + 1] = [bits & 15] * len(told[first : last + 1])
        self.number += 1
        self.data = start + n_bytes
        return frame.marker in _SEQUENTIAL and n_components == len(frame.sampling)


def _decoded(jpeg: bytes) -> Pixels | None:
    """A JPEG decoded by Pillow, uint8 [H, W, 3], BGR, or [H, W, 4] of CMYK; None if it fails."""
    try:
        with JpegImageFile(io.BytesIO(jpeg)) as image:
            decoded = np.asarray(image)
    except (OSError, ValueError, SyntaxError):
        return None
    # Not as a view from right to left: comparing one with OpenCV's pixels takes as long as decoding it.
    if decoded.ndim == 2:
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_GRAY2BGR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_RGB2BGR), np.uint8) if decoded.shape[2] == 3 else decoded
