"""The image with the basis of its decision: colour from the threshold on, regions, and their areas."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.common.arrays import Bgr
from backend.infer import THRESHOLD_GREY, Region
from backend.utils import BLOCK_PIXELS

# BGR. Sky blue and violet are seen on grey, brown, yellow, red, green, blue and copper parts with any kind of colour
# vision: they and what lies between them change CIELAB by 9 and more, where orange changes yellow by 5 at the same
# opacity, and vermilion changes red by 6.
_SKY_BLUE, _VIOLET, _YELLOW, _BLACK = (233, 180, 86), (255, 0, 150), (66, 228, 240), (0, 0, 0)
# Values of `to_threshold_heatmap`, how much of the colour is seen there, and which it is. Below the threshold there is
# none: good parts of the recommended profile are often near it everywhere.
_AT = (THRESHOLD_GREY, THRESHOLD_GREY * 3 // 2)
_OPACITY_AT = (0.4, 0.65)
_COLOUR_AT = (_SKY_BLUE, _VIOLET)
OPACITY: npt.NDArray[np.float32] = np.interp(np.arange(256), _AT, _OPACITY_AT, left=0).astype(np.float32)
"""How much of the colour is seen at each value of `to_threshold_heatmap`: float32 [256], 0 below 128."""
COLOUR: npt.NDArray[np.float32] = np.stack(
    [np.interp(np.arange(256), _AT, channel) for channel in np.transpose(_COLOUR_AT)], axis=1
).astype(np.float32)
"""The colour at each value of `to_threshold_heatmap`: float32 [256, 3], BGR."""

# As /explain tells of so many. More would hide the part.
_MOST_LABELS = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 21  # height of a capital letter of the font at scale 1
_LEAST_CAPITAL, _MOST_CAPITAL = 9, 60
_RAISED = 0.6  # size of the raised 2
_MOST_COORDINATE = 1 << 15  # beyond, OpenCV does not draw

Box = tuple[int, int, int, int]


def draw_overlay(image: Bgr, heatmap: npt.NDArray[np.uint8], regions: Sequence[Region]) -> Bgr:
    """Colour an image at and above the threshold, outline its regions, and write their areas beside them.

    Pixels below the threshold stay unchanged, except under outlines and labels.

    Args:
        image: uint8 [H, W, 3], BGR; it is not changed.
        heatmap: uint8 [H, W], of `to_threshold_heatmap`.
        regions: by falling area; the first eight get labels, if there is room.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    drawn = image.copy()
    tint(drawn, heatmap)
    height, width = heatmap.shape
    if max(height, width) < _MOST_COORDINATE:
        unit = max(1, round(min(height, width) / 400))
        outlines = [np.array(region.contour, np.int32) for region in regions]
        cv2.polylines(drawn, outlines, isClosed=True, color=_BLACK, thickness=unit + 2 * math.ceil(unit / 2))
        cv2.polylines(drawn, outlines, isClosed=True, color=_YELLOW, thickness=unit, lineType=cv2.LINE_AA)
        _write_areas(drawn, regions[:_MOST_LABELS], 2 * unit)
    return drawn


def tint(picture: Bgr, heatmap: npt.NDArray[np.uint8]) -> None:
    """Blend the colours into a picture, in place.

    Args:
        picture: uint8 [H, W, 3], BGR.
        heatmap: uint8 [H, W], of `to_threshold_heatmap`.
    """
    step = max(1, BLOCK_PIXELS // heatmap.shape[1])
    for start in range(0, heatmap.shape[0], step):
        rows = slice(start, start + step)
        places = heatmap[rows] >= THRESHOLD_GREY
        grey = heatmap[rows][places]
        opacity = OPACITY[grey][:, None]
        picture[rows][places] = np.rint(picture[rows][places] * (1 - opacity) + COLOUR[grey] * opacity)


@dataclass(frozen=True)
class _Label:
    """The label of an area: a box with a number, mm and a raised 2.

    Attributes:
        text: without the raised 2.
        scale: of the font.
        line: thickness of its lines.
        capital: height of a capital letter, in pixels.
    """

    text: str
    scale: float
    line: int
    capital: int

    @classmethod
    def of(cls, area_mm2: float, image_hw: tuple[int, int]) -> "_Label":
        capital = min(max(_LEAST_CAPITAL, round(min(image_hw) * 0.03)), _MOST_CAPITAL)
        return cls(f"{area_text(area_mm2)} mm", capital / _CAPITAL, max(1, round(capital / 10)), capital)

    @property
    def _padding(self) -> int:
        return max(2, self.capital // 3)

    @property
    def _text_width(self) -> int:
        return cv2.getTextSize(self.text, _FONT, self.scale, self.line)[0][0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the box, in pixels."""
        raised = cv2.getTextSize("2", _FONT, self.scale * _RAISED, self.line)[0][0]
        return self._text_width + raised + 2 * self._padding, self.capital + 3 * self._padding

    def draw(self, picture: Bgr, x: int, y: int) -> None:
        """The label with the upper left corner of its box at (x, y)."""
        width, height = self.size
        picture[y : y + height, x : x + width] = _BLACK
        baseline = y + height - self._padding
        raised = (x + self._padding + self._text_width, baseline - round(self.capital * _RAISED))
        for text, place, scale in (
            (self.text, (x + self._padding, baseline), self.scale),
            ("2", raised, self.scale * _RAISED),
        ):
            cv2.putText(picture, text, place, _FONT, scale, _YELLOW, self.line, cv2.LINE_AA)


def area_text(area_mm2: float) -> str:
    """An area in mm², with two digits, or with all digits before the point.

    >>> area_text(3.2416), area_text(0.00412), area_text(127.6), area_text(2.5e9)
    ('3.2', '0.0041', '128', '2.5e+09')
    """
    if not 1e-4 <= area_mm2 < 1e6:
        return f"{area_mm2:.1e}"
    return f"{area_mm2:.0f}" if area_mm2 >= 9.95 else f"{area_mm2:.{1 - math.floor(math.log10(area_mm2))}f}"


def _write_areas(picture: Bgr, regions: Sequence[Region], gap: int) -> None:
    """Write each area beside its region, inside the picture and not over another label; without room, leave it out."""
    image_hw = (picture.shape[0], picture.shape[1])
    boxes = [(region.x, region.y, region.w, region.h) for region in regions]
    taken: list[Box] = []
    for region in regions:
        label = _Label.of(region.area_mm2, image_hw)
        places = [
            place
            for place in _places(region, label.size, image_hw, gap)
            if not any(_shared(place, other) for other in taken)
        ]
        if places:
            chosen = min(places, key=lambda place: sum(_shared(place, box) for box in boxes))
            label.draw(picture, *chosen[:2])
            taken.append(chosen)


def _places(region: Region, size: tuple[int, int], image_hw: tuple[int, int], gap: int) -> list[Box]:
    """Possible places of a label, the best first: above the region, below, to its right, to its left, in it."""
    (width, height), (rows, columns) = size, image_hw
    if width > columns or height > rows:
        return []
    x, y = min(region.x, columns - width), min(region.y, rows - height)
    corners = [
        (x, region.y - height - gap),
        (x, region.y + region.h + gap),
        (region.x + region.w + gap, y),
        (region.x - width - gap, y),
        (x, y),
    ]
    inside = [(left, top) for left, top in corners if 0 <= left <= columns - width and 0 <= top <= rows - height]
    return [(left, top, width, height) for left, top in inside]


def _shared(one: Box, other: Box) -> int:
    """Pixels that two boxes share."""
    width, height = (
        min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1)
    )
    return max(width, 0) * max(height, 0)
