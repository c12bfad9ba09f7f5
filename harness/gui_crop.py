"""The crop that the existing GUI makes of a ROI, in OpenCV: what backend/web/pixels/gui-crop.js gives byte for byte.

The GUI has OpenCV 4.11, whose ``warpAffine`` interpolates in fixed point, as 4.10 and 4.12 do. OpenCV 5 computes it in
another way, and keeps the fixed point in ``remap``: `warp_affine` asks for that.
"""

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

_STEPS, _FIXED = 32, 1024


def gui_crop(
    image: Image, roi: dict[str, Any], warp: Callable[[Image, Matrix], Image] | None = None
) -> tuple[Image, dict[str, Any] | None]:
    """Cut a ROI as the GUI does.

    Args:
        image: uint8 [H, W, 3].
        roi: as the console has it; its angle is clockwise.
        warp: turns the image by a matrix [2, 3]; None is `warp_affine`.

    Returns:
        uint8 [h, w, 3], and the mask that the GUI sends with it; None for a rect.
    """
    sides = (roi["w"], roi["h"]) if roi["kind"] == "rect" else (2 * roi["r"], 2 * roi["r"])
    left, top = roi["cx"] - sides[0] / 2, roi["cy"] - sides[1] / 2
    x, y = left + sides[0] / 2, top + sides[1] / 2
    matrix = np.asarray(cv2.getRotationMatrix2D((x, y), roi["angle_deg"], 1.0), np.float64)
    turned = (warp or warp_affine)(image, matrix)
    centre = [np.float32(row[0] * x + row[1] * y + row[2]) for row in matrix]
    size = [max(1, round(side)) for side in sides]  # Python rounds the middle to the even number, as .NET does
    starts, ends = [], []
    for middle, side, limit in zip(centre, size, turned.shape[1::-1], strict=True):
        starts.append(min(max(round(float(middle) - side * 0.5), 0), limit - 1))
        ends.append(starts[-1] + min(max(side, 1), limit - starts[-1]))
    crop = turned[starts[1] : ends[1], starts[0] : ends[0]]
    height, width = crop.shape[:2]
    shape = {"kind": roi["kind"], "cx": width / 2, "cy": height / 2, "r": min(width, height) / 2}
    if roi["kind"] == "annulus":
        scale = min(width / sides[0], height / sides[1])
        shape |= {"r": roi["r"] * scale, "r_inner": roi["r_inner"] * scale}
    return np.ascontiguousarray(crop), None if roi["kind"] == "rect" else json.loads(json.dumps(shape))


def warp_affine(image: Image, matrix: Matrix) -> Image:
    """``cv2.warpAffine`` of OpenCV 4 to the same size, linear, black outside, by whichever OpenCV is installed.

    Args:
        image: uint8 [H, W, 3].
        matrix: float64 [2, 3], from the image to the turned one.
    """
    a, b, c, d, e, f = matrix.ravel().tolist()
    scale = 1 / (a * e - b * d)
    a, b, d, e = e * scale, b * -scale, d * -scale, a * scale
    c, f = -a * c - b * f, -d * c - e * f
    height, width = image.shape[:2]
    column, row = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None]
    x, y = _steps(a * column, b * row + c), _steps(d * column, e * row + f)
    places = np.stack([x // _STEPS, y // _STEPS], -1).astype(np.int16)
    rests = (y % _STEPS * _STEPS + x % _STEPS).astype(np.uint16)
    return np.asarray(cv2.remap(image, places, rests, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)


def _steps(columns: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Their sum in steps between pixels; each is rounded by itself."""
    fixed = np.rint(columns * _FIXED).astype(np.int64) + np.rint(rows * _FIXED).astype(np.int64)
    return np.asarray((fixed + _FIXED // _STEPS // 2) // (_FIXED // _STEPS))
