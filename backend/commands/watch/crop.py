"""The crop of a ROI in NumPy, float64: byte for byte the same as backend/web/pixels/warp.js of the console.

Pixel (j, i) covers [j, j+1) × [i, i+1). A ROI's centre is in these coordinates, its angle clockwise. Every step is a
sum, a product or a floor, so that each machine computes the same bits. Therefore sine and cosine are Taylor series.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# Rows are warped in blocks whose numbers stay in a core's cache.
_BLOCK_PIXELS = 1 << 14


@dataclass(frozen=True)
class Roi:
    """A ROI as in the console: `w`, `h` count for a rect, `r` for circle and annulus, `r_inner` for an annulus.

    Attributes:
        crop: ``gui``: the pixels are those of the existing GUI (`gui_crop`), not those of the console.
    """

    kind: Literal["rect", "circle", "annulus"]
    cx: float
    cy: float
    w: float = 0
    h: float = 0
    r: float = 0
    r_inner: float = 0
    angle_deg: float = 0
    crop: Literal["gui"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the crop in whole pixels."""
        sides = (self.w, self.h) if self.kind == "rect" else (2 * self.r, 2 * self.r)
        width, height = (max(1, math.floor(side + 0.5)) for side in sides)
        return width, height

    @property
    def shape(self) -> dict[str, Any] | None:
        """The service's mask."""
        if self.kind == "rect":
            return None
        width, height = self.size
        circle = {"kind": self.kind, "cx": width / 2, "cy": height / 2, "r": self.r}
        return circle | ({"r_inner": self.r_inner} if self.kind == "annulus" else {})

    def is_whole(self, width: int, height: int) -> bool:
        """Whether the crop is a whole picture of this size, pixel for pixel."""
        return (
            math.fmod(self.angle_deg, 360) == 0
            and self.size == (width, height)
            and (self.cx, self.cy) == (width / 2, height / 2)
        )

    def beyond(self, width: int, height: int) -> float:
        """How far the ROI reaches beyond a picture of this size, in pixels; 0 if it lies inside.

        For a rect, the centres of the crop's outermost pixels count; for a circle and an annulus, the circle, because
        the corners around it are masked.
        """
        x = y = self.r - 0.5
        if self.kind == "rect":
            cos, sin = map(abs, turn_of(self.angle_deg))
            u, v = ((side - 1) / 2 for side in self.size)
            x, y = u * cos + v * sin, u * sin + v * cos
        return max(0.0, x - self.cx, y - self.cy, self.cx + x - width, self.cy + y - height)

    @property
    def cut(self) -> list[str | float]:
        """The cut, in the form that the console stores with its samples."""
        sides = (self.w, self.h) if self.kind == "rect" else (self.r, self.r_inner)
        way = [] if self.crop is None else [self.crop]
        return [self.kind, self.cx, self.cy, *sides, self.angle_deg, *way]


def turn_of(degrees: float) -> tuple[float, float]:
    """Cosine and sine to 1e-15, only with sums and products; exact at multiples of 90°."""
    within = math.fmod(degrees, 360)
    quarters = math.floor(within / 90 + 0.5)
    x = (within - 90 * quarters) * (math.pi / 180)
    sine = cosine = 0.0
    for power in range(16, -1, -1):
        term = (-1) ** (power // 2) / math.factorial(power)
        if power % 2:
            sine = sine * (x * x) + term
        else:
            cosine = cosine * (x * x) + term
    sine = x * sine
    turned = [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)]
    return turned[quarters % 4]


def crop(image: Pixels, roi: Roi) -> Pixels:
    """Crop and rotation.

    Args:
        image: uint8 [H, W, 3].
        roi: in pixels of the image.

    Returns:
        uint8 [height, width, 3] of `Roi.size`.
    """
    cos, sin = turn_of(roi.angle_deg)
    width, height = roi.size
    u = np.arange(width) + 0.5 - width / 2
    cut = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, rows):
        v = (np.arange(top, min(top + rows, height)) + 0.5 - height / 2)[:, None]
        x = (roi.cx + u * cos) - v * sin - 0.5
        y = (roi.cy + u * sin) + v * cos - 0.5
        cut[top : top + rows] = _bilinear(image, x, y)
    return cut


def _bilinear(image: Pixels, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Pixels:
    """The image between its pixels.

    Args:
        image: uint8 [H, W, 3].
        x, y: float64 [N, M], counted from the centre of the first pixel.

    Returns:
        uint8 [N, M, 3].
    """
    height, width = image.shape[:2]
    left, above = np.floor(x), np.floor(y)
    fx, fy = x - left, y - above
    columns = [np.clip(left + step, 0, width - 1).astype(np.intp) for step in (0, 1)]
    lines = [np.clip(above + step, 0, height - 1).astype(np.intp) * width for step in (0, 1)]
    pixels = image.reshape(-1, 3)
    if not (fx.any() or fy.any()):
        return np.asarray(pixels[lines[0] + columns[0]], np.uint8)
    fx, fy = fx[..., None], fy[..., None]
    upper, lower = (_between(pixels, line + columns[0], line + columns[1], fx) for line in lines)
    return np.floor(upper + fy * (lower - upper) + 0.5).astype(np.uint8)


def _between(
    pixels: Pixels, left: npt.NDArray[np.intp], right: npt.NDArray[np.intp], fx: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Each pixel between two neighbours of its row, float64 [N, M, 3]."""
    first = pixels[left].astype(np.float64)
    return first + fx * (pixels[right] - first)
