"""How many of their 16 bits images use: a fit determines it, its bank records it, and every image is read with it.

Cameras of 10, 12 and 14 bits write numbers up to 1023, 4095 and 16383 into files of 16 bits. The upper 8 of these 16
bits are nearly black, and a stain in them is invisible. A PNG may state its depth (``sBIT``). Its numbers should then
be scaled up to 16 bits, but few programs do this: the largest number shows it.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backend.common.arrays import Bgr
from backend.common.errors import DamagedMemory, InvalidImage, InvalidRequest
from backend.common.image_headers import PNG_SIGNATURE, png_chunks
from backend.common.tiff_headers import SIGNATURES as TIFF_SIGNATURES
from backend.common.tiff_headers import tiff_layout
from backend.utils import CAMERA_DEPTHS, ImageLimits, NamedImage, decode_image, decode_wide, pixels_sha256

_FIELD = "bit_depth"
FULL = 16
_PNG_DEPTH_AT = 24
_SHOWN = 8  # bits of what the network sees
# An image that reaches no third of what another one does is of another depth rather than of a darker part: one of two
# bits less reaches a fourth.
_DARKER = 3
NOT_SETTLED = (
    "the image has 16 bits, but the memory bank does not record how many of them are used, so only the upper 8 were "
    "compared: fit anew to record it"
)


@dataclass(frozen=True)
class BitDepth:
    """How the 16-bit images of a ROI are read.

    Attributes:
        bits: how many of their 16 bits are used, 8..16.
        brightest: the largest number in the images of the fit.
    """

    bits: int
    brightest: int

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "BitDepth | None":
        """The record of a memory bank; None if it was fitted on images of 8 bits, or by an earlier version.

        Raises:
            DamagedMemory: the record is invalid.
        """
        recorded = metadata.get(_FIELD)
        if recorded is None:
            return None
        try:
            depth = cls(int(recorded["bits"]), int(recorded["brightest"]))
        except (KeyError, TypeError, ValueError, OverflowError) as exc:
            raise DamagedMemory("the bit depth in the stored memory is damaged: refit this ROI") from exc
        if not (_SHOWN <= depth.bits <= FULL and 0 <= depth.brightest < 1 << FULL):
            raise DamagedMemory("the bit depth in the stored memory is damaged: refit this ROI")
        return depth

    def as_metadata(self) -> dict[str, Any]:
        """JSON values for the metadata of a memory bank."""
        return {_FIELD: asdict(self)}


@dataclass(frozen=True)
class Wide:
    """A 16-bit image.

    Attributes:
        name: name of its file.
        brightest: its largest number, which is its darkest if 0 is white.
        declared: number of used bits according to its file, 8..16; None if the file does not state it.
    """

    name: str
    brightest: int
    declared: int | None

    def __str__(self) -> str:
        said = "" if self.declared is None else f" and says {self.declared} bits (sBIT)"
        return f"{self.name} reaches {self.brightest}{said}"

    def is_scaled(self) -> bool:
        """Whether its numbers exceed the stated depth: they are scaled up to 16 bits, as they should be."""
        return self.declared is not None and self.brightest >= 1 << self.declared

    def is_dark(self, depth: BitDepth) -> bool:
        """Whether it probably has fewer bits than others."""
        return 0 < _DARKER * self.brightest <= depth.brightest and _camera_depth(self.brightest) < depth.bits


def settle(
    images: Sequence[NamedImage],
    limits: ImageLimits,
    hold: Callable[[NamedImage], AbstractContextManager[None]],
    base: BitDepth | None = None,
) -> BitDepth | None:
    """How the images of a fit are read; only those of 16 bits are decoded.

    Args:
        images: of the fit.
        limits: for every image.
        hold: held while an image is decoded.
        base: depth of the memory bank that is appended to.

    Returns:
        None if no image has 16 bits.

    Raises:
        InvalidRequest: they use different numbers of bits; the message has the numbers.
        InvalidImage: one cannot be decoded, or has more bits than the base.
    """
    wide = list(wide_images(images, limits, hold))
    if base is not None:
        for image in wide:
            if _bits_of(image, base) == base.bits and image.declared is None and image.is_dark(base):
                raise InvalidRequest(
                    f"{image}, but the images of the memory bank reach {base.brightest}: it probably has fewer than "
                    f"{base.bits} bits; append images of one bit depth (a PNG can state it in sBIT), or fit anew"
                )
        return base
    return agreed_depth(wide)


def agreed_depth(wide: Sequence[Wide]) -> BitDepth | None:
    """How the 16-bit images of a fit are read that does not append.

    Args:
        wide: as `wide_images` gives them, of all images.

    Returns:
        None if there are none.

    Raises:
        InvalidRequest: they use different numbers of bits; the message has the numbers.
    """
    if not wide:
        return None
    declared, silent = ([image for image in wide if (image.declared is None) == is_silent] for is_silent in (0, 1))
    brightest = max(image.brightest for image in wide)
    if declared:
        for image in declared:
            if image.declared != declared[0].declared:
                _refuse(declared[0], image)
        bits = FULL if any(image.is_scaled() for image in declared) else declared[0].declared or FULL
    else:
        bits = _camera_depth(brightest)
    depth = BitDepth(bits, brightest)
    for image in silent:
        if image.brightest >= 1 << bits:
            _refuse(declared[0], image)
        if image.is_dark(depth):
            _refuse(image, max(wide, key=lambda other: other.brightest))
    return depth


def decode(content: bytes, name: str, limits: ImageLimits, depth: BitDepth | None) -> tuple[Bgr, str | None]:
    """Decode an image as the images of a memory bank were read.

    Args:
        content, name: as for `decode_image`.
        depth: recorded with the bank; None reads the upper 8 of 16 bits.

    Returns:
        pixels: uint8 [H, W, 3], BGR.
        warning: what is doubtful about its depth.

    Raises:
        InvalidImage: its numbers are larger than the bit depth of the bank allows.
        InvalidImage, UnsupportedImage, TooLarge: see `decode_image`.
    """
    if depth is None or not _is_wide(content):
        pixels = decode_image(content, name, limits)
        return pixels, NOT_SETTLED if unsettled(content, depth) else None
    numbers, is_inverted = decode_wide(content, name, limits)
    image = Wide(name, int(numbers.max()), _declared_bits(content))
    bits = _bits_of(image, depth)
    warning = None
    if bits == depth.bits and image.declared is None and image.is_dark(depth):
        warning = (
            f"the image reaches {image.brightest}, but those of the fit reach {depth.brightest}: if it has fewer "
            f"than {depth.bits} bits, its score is meaningless"
        )
    if is_inverted:
        numbers = np.uint16((1 << bits) - 1) - numbers
    return (numbers >> (bits - _SHOWN)).astype(np.uint8), warning


def unsettled(content: bytes, depth: BitDepth | None) -> bool:
    """Whether an image has 16 bits, but the bank does not record how they are read.

    Args:
        content: of an image; a damaged one has no 16 bits.
        depth: recorded with the bank.
    """
    return depth is None and _is_wide(content)


def whole_pixels_sha256(content: bytes, name: str, limits: ImageLimits) -> str:
    """Identity of an image without a depth from a bank: see `pixels_sha256`; images of 16 bits count with all bits.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `decode_image`.
    """
    pixels = decode_image(content, name, limits)
    if not _is_wide(content):
        return pixels_sha256(pixels)
    numbers, is_inverted = decode_wide(content, name, limits)
    return pixels_sha256(~numbers if is_inverted else numbers)


def _bits_of(image: Wide, depth: BitDepth) -> int:
    """How many bits of an image are used, according to the image and the bank."""
    if depth.bits == FULL:
        return FULL
    if image.declared is not None:
        return FULL if image.is_scaled() else image.declared
    if image.brightest >= 1 << depth.bits:
        raise InvalidImage(
            f"{image.name}: the image reaches {image.brightest}, but the memory bank was fitted on images of "
            f"{depth.bits} bits (0 to {(1 << depth.bits) - 1}); send images of that bit depth, or fit anew on images "
            "like this one"
        )
    return depth.bits


def _refuse(one: Wide, other: Wide) -> None:
    raise InvalidRequest(
        f"the 16-bit images of the fit use different numbers of bits: {one}, {other}; send images of one bit depth "
        "(a PNG can state it in sBIT)"
    )


def wide_images(
    images: Sequence[NamedImage], limits: ImageLimits, hold: Callable[[NamedImage], AbstractContextManager[None]]
) -> Iterator[Wide]:
    """Decode those of some images that have 16 bits; see `settle`."""
    for image in images:
        content = image.read()
        if _is_wide(content):
            with hold(image):
                brightest = int(decode_wide(content, image.title, limits)[0].max())
            yield Wide(image.title, brightest, _declared_bits(content))


def _is_wide(content: bytes) -> bool:
    """Whether bytes are an image of 16 bits; False for damaged ones, which decoding reports."""
    if content.startswith(PNG_SIGNATURE):
        return content[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == bytes([FULL])
    try:
        return content.startswith(TIFF_SIGNATURES) and tiff_layout(content).bits == FULL
    except (ValueError, struct.error):
        return False


def _declared_bits(content: bytes) -> int | None:
    """The largest number of bits that a PNG states for a colour; None if it states none, or an impossible one."""
    if not content.startswith(PNG_SIGNATURE):
        return None
    n_colours = 3 if content[25] & 2 else 1
    for name, start, n_bytes in png_chunks(content):
        if name == b"sBIT" and n_bytes >= n_colours:
            bits = max(struct.unpack_from(f"{n_colours}B", content, start))
            return bits if _SHOWN <= bits <= FULL else None
        if name == b"IDAT":
            break
    return None


def _camera_depth(brightest: int) -> int:
    """The smallest bit depth of cameras that a number fits into."""
    return next(bits for bits in CAMERA_DEPTHS if brightest < 1 << bits)
