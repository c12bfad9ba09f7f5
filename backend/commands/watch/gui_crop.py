"""The crop of a ROI in the existing GUI, in OpenCV: byte for byte the same as backend/web/pixels/gui-crop.js.

The GUI has OpenCV 4.11, whose ``warpAffine`` interpolates in fixed point, like 4.10 and 4.12. OpenCV 5 computes it
differently, but still has the fixed point in ``remap``: `warp_affine` uses that.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backend.commands.watch.crop import Pixels, Roi

Matrix = npt.NDArray[np.float64]
Box = tuple[range, range]
"""Columns and rows of a picture."""

_STEPS, _FIXED = 32, 1024


def gui_crop(image: Pixels, roi: Roi) -> tuple[Pixels, dict[str, Any] | None]:
    """Cut a ROI as the GUI does: at borders the crop becomes smaller or moves inside.

    Args:
        image: uint8 [H, W, 3].
        roi: in pixels of the image.

    Returns:
        uint8 [h, w, 3], and the mask that the GUI sends with it; None for a rect.
    """
    sides = _sides(roi)
    x, y = roi.cx - sides[0] / 2 + sides[0] / 2, roi.cy - sides[1] / 2 + sides[1] / 2  # by the left top corner
    matrix = np.asarray(cv2.getRotationMatrix2D((x, y), roi.angle_deg, 1.0), np.float64)
    centre = [float(np.float32(row[0] * x + row[1] * y + row[2])) for row in matrix]
    size = [max(1, round(side)) for side in sides]  # Python rounds the middle to the even number, as .NET does
    spans = []
    for middle, side, limit in zip(centre, size, image.shape[1::-1], strict=True):
        start = min(max(round(middle - side * 0.5), 0), limit - 1)
        spans.append(range(start, start + min(side, limit - start)))
    cut = warp_affine(image, matrix, (spans[0], spans[1]))
    return cut, gui_shape(roi, cut.shape[1], cut.shape[0])


def _sides(roi: Roi) -> tuple[float, float]:
    """Width and height before they are rounded."""
    if roi.kind == "rect":
        return max(1.0, roi.w), max(1.0, roi.h)
    side = 2 * max(roi.r, 0.5)
    return side, side


def gui_shape(roi: Roi, width: int, height: int) -> dict[str, Any] | None:
    """The mask that the GUI sends with a crop of this size: the largest circle in it; an annulus shrinks with it."""
    if roi.kind == "rect":
        return None
    shape = {"kind": roi.kind, "cx": width / 2, "cy": height / 2, "r": min(width, height) / 2}
    if roi.kind == "annulus":
        sides = _sides(roi)
        scale = min(width / sides[0], height / sides[1])
        shape |= {"r": sides[0] / 2 * scale, "r_inner": min(max(roi.r_inner, 0), roi.r) * scale}
    return shape


def warp_affine(image: Pixels, matrix: Matrix, box: Box | None = None) -> Pixels:
    """``cv2.warpAffine`` of OpenCV 4, linear, black outside, with any installed OpenCV.

    Args:
        image: uint8 [H, W, 3].
        matrix: float64 [2, 3], from the image to the rotated one.
        box: the pixels of the rotated image; None has the size of the image.

    Returns:
        uint8 [rows, columns, 3] of the box.
    """
    a, b, c, d, e, f = matrix.ravel().tolist()
    scale = 1 / (a * e - b * d)
    a, b, d, e = e * scale, b * -scale, d * -scale, a * scale
    c, f = -a * c - b * f, -d * c - e * f
    columns, rows = box or (range(image.shape[1]), range(image.shape[0]))
    column, row = np.asarray(columns, np.float64), np.asarray(rows, np.float64)[:, None]
    x, y = _steps(a * column, b * row + c), _steps(d * column, e * row + f)
    # What lies further away than 16 bits tell is black, too.
    places = np.stack([x // _STEPS, y // _STEPS], -1).clip(-(2**15), 2**15 - 1).astype(np.int16)
    rests = (y % _STEPS * _STEPS + x % _STEPS).astype(np.uint16)
    turned = cv2.remap(image, places, rests, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(turned, np.uint8)


def _steps(columns: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Their sum in steps between pixels; each is rounded separately."""
    fixed = np.rint(columns * _FIXED).astype(np.int64) + np.rint(rows * _FIXED).astype(np.int64)
    return np.asarray((fixed + _FIXED // _STEPS // 2) // (_FIXED // _STEPS))
