"""Image bytes ↔ arrays, percentiles, millimetres ↔ pixels. Nothing here knows about models or requests."""

import base64
import io
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from backend.errors import InvalidImage, TooLarge, UnsupportedImage

# The limit is MAX_PIXELS; Pillow's own would warn or refuse at other sizes.
Image.MAX_IMAGE_PIXELS = None

# What OpenCV says about damaged images, the error says; its own lines on stderr carry paths of its build.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# OpenCV applies the orientation tag of a TIFF whatever it is told, so TIFF would break "never modify geometry".
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF")
TEMPORARY_PREFIX = ".tmp-"
_ACCEPTED = "send a PNG, JPEG, BMP or WebP image"


@dataclass(frozen=True)
class NamedImage:
    """An encoded image that is read when it is needed.

    Attributes:
        name: file name, for messages.
        read: gives its bytes; may be called more than once.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ImageLimits:
    """Limits that are checked before an image is decoded."""

    max_bytes: int
    max_pixels: int


def check_image(content: bytes, name: str, limits: ImageLimits) -> tuple[int, int]:
    """Check format (by content, not by name) and size from the header alone.

    Args:
        content: the uploaded bytes.
        name: file name, for messages.

    Returns:
        (width, height) in pixels.

    Raises:
        InvalidImage: empty, or the header is damaged.
        UnsupportedImage: not an accepted image format.
        TooLarge: more bytes or pixels than allowed.
    """
    if not content:
        raise InvalidImage(f"{name}: the file is empty; {_ACCEPTED}")
    if len(content) > limits.max_bytes:
        raise TooLarge(f"{name}: {len(content)} bytes, at most {limits.max_bytes} are accepted")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
    except Exception as exc:  # header parsers raise whatever the bytes lead them to: SyntaxError, struct.error, …
        if isinstance(exc, UnidentifiedImageError) and not content.startswith(_SIGNATURES):
            raise UnsupportedImage(f"{name}: this is not an accepted image; {_ACCEPTED}") from exc
        raise InvalidImage(f"{name}: the image header is truncated or damaged; {_ACCEPTED}") from exc
    if width * height > limits.max_pixels:
        raise TooLarge(f"{name}: {width}x{height} pixels, at most {limits.max_pixels} are accepted")
    return width, height


def decode_image(content: bytes, name: str, limits: ImageLimits) -> npt.NDArray[np.uint8]:
    """Decode an image onto its own pixel grid: orientation tags are ignored, alpha is dropped, 16 bits become 8.

    Args:
        content: PNG, JPEG, BMP or WebP bytes.
        name: file name, for messages.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        InvalidImage: empty, truncated or damaged.
        UnsupportedImage: not an accepted image format.
        TooLarge: more bytes or pixels than allowed.
    """
    width, height = check_image(content, name, limits)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as exc:
        raise InvalidImage(f"{name}: the image cannot be decoded; it is damaged") from exc
    if image is None or image.shape[:2] != (height, width):
        raise InvalidImage(f"{name}: the image cannot be decoded; it is truncated or damaged")
    return np.asarray(image, dtype=np.uint8)


def encode_png_base64(image: npt.NDArray[np.uint8]) -> str:
    """PNG of a uint8 [H, W] grey or [H, W, 3] BGR image, as base64 text."""
    encoded, png = cv2.imencode(".png", image)
    assert encoded, "OpenCV encodes every uint8 image"
    return base64.b64encode(png.tobytes()).decode("ascii")


def percentile(values: npt.NDArray[np.float32], *percentiles: float) -> list[float]:
    """Percentiles with linear interpolation between order statistics, as ``numpy.percentile``.

    Args:
        values: float32, any shape, at least one.
        percentiles: each 0..100.
    """
    return [float(value) for value in np.percentile(values, percentiles)]


def mm2_to_px2(area_mm2: float, mm_per_px: float) -> float:
    """Square millimetres → square pixels at `mm_per_px` millimetres per pixel."""
    return area_mm2 / mm_per_px**2


def px2_to_mm2(area_px: float, mm_per_px: float) -> float:
    """Square pixels → square millimetres at `mm_per_px` millimetres per pixel."""
    return area_px * mm_per_px**2


def write_atomic(files: Mapping[Path, bytes]) -> None:
    """Replace files of one folder so that a reader or a crash sees all of a file's old content or all of its new.

    Writes all of them beside the old ones (``.tmp-…``) and syncs them, then renames one after the other and syncs the
    folder. So a full disk replaces nothing, and the last file is the one that commits the others.

    Raises:
        OSError: a file could not be written or renamed; those after it were not replaced.
    """
    temporaries = {path: path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}") for path in files}
    try:
        for path, temporary in temporaries.items():
            with temporary.open("xb") as file:
                file.write(files[path])
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # Windows cannot open folders, and journals renames by itself
        folder = os.open(next(iter(files)).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
