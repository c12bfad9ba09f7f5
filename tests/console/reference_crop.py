"""The crop of a ROI in NumPy, float64: what backend/web/pixels/warp.js must give byte for byte, written without it.

Pixel (j, i) covers [j, j+1) × [i, i+1). A ROI's centre is in these coordinates, its angle clockwise. Every step is a
sum, a product or a floor, so that each machine computes the same bits: sine and cosine are Taylor series therefore.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Roi:
    """As the console has it: `w`, `h` count for a rect, `r` for circle and annulus, `r_inner` for an annulus."""

    kind: str
    cx: float
    cy: float
    w: float = 0
    h: float = 0
    r: float = 0
    r_inner: float = 0
    angle_deg: float = 0

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


def turn_of(degrees: float) -> tuple[float, float]:
    """Cosine and sine to 1e-15, of sums and products alone; exact at multiples of 90°."""
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


def decode(content: bytes) -> npt.NDArray[np.uint8]:
    """As the service decodes, uint8 [H, W, 3], BGR."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None
    return np.asarray(image, np.uint8)


def crop(image: npt.NDArray[np.uint8], roi: Roi) -> npt.NDArray[np.uint8]:
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
    v = (np.arange(height) + 0.5 - height / 2)[:, None]
    x = (roi.cx + u * cos) - v * sin - 0.5
    y = (roi.cy + u * sin) + v * cos - 0.5
    left, above = np.floor(x), np.floor(y)
    fx, fy = (x - left)[..., None], (y - above)[..., None]
    columns = [np.clip(left + step, 0, image.shape[1] - 1).astype(int) for step in (0, 1)]
    rows = [np.clip(above + step, 0, image.shape[0] - 1).astype(int) for step in (0, 1)]
    taps = image.astype(np.float64)
    lines = [taps[row, columns[0]] + fx * (taps[row, columns[1]] - taps[row, columns[0]]) for row in rows]
    return np.floor(lines[0] + fy * (lines[1] - lines[0]) + 0.5).astype(np.uint8)
