"""The place of the part in a picture, by the anchor of a layout, with its confidence."""

import math
from dataclasses import dataclass, replace

from backend.commands.watch.anchor import Anchor, Grey, grey, locate, search_box
from backend.commands.watch.crop import Roi, turn_of
from backend.commands.watch.pictures import Picture, PictureRefused

# A place that is nearly as good as the best one leaves it open where the part is.
_MOST_SECOND = 0.9
# Placements are told in steps that binary numbers hold exactly, so that every computation of them cuts the same pixels.
_STEPS_PX, _STEPS_DEG = 64, 128


@dataclass(frozen=True)
class LayoutAnchor:
    """The anchor of a layout.

    Attributes:
        id: of its template, which is the layout's picture ``anchor-ID``.
        search: its rectangle in the reference picture, and how far a part may move.
        least_score: lower scores count as not found.
        picture: width and height of the reference picture.
    """

    id: str
    search: Anchor
    least_score: float
    picture: tuple[int, int]

    @property
    def name(self) -> str:
        """The name of the template among the pictures of the layout."""
        return f"anchor-{self.id}"


@dataclass(frozen=True)
class Placement:
    """The place of a part: a point P of the reference picture is at centre + (dx, dy) + rotation · (P - centre).

    Attributes:
        dx, dy: pixels.
        angle_deg: clockwise.
        score: of the anchor there, -1 to 1.
    """

    dx: float
    dy: float
    angle_deg: float
    score: float


def placement_in(picture: Picture, anchor: LayoutAnchor, template: Grey) -> Placement:
    """The place of the part in a picture.

    Args:
        picture: the picture.
        anchor: of the layout.
        template: grey values of the anchor's picture.

    Raises:
        PictureRefused: the anchor is not found, or not reliably, or the picture has another size.
    """
    width, height = picture.size
    if picture.size != anchor.picture:
        raise PictureRefused(
            "size",
            f"{picture.name} has {width} × {height} pixels; the anchor was drawn on pictures of "
            f"{anchor.picture[0]} × {anchor.picture[1]}.",
        )
    # Only where the anchor may be: a whole picture in float64 takes eight times its room.
    left, top, right, bottom = search_box(anchor.search, width, height)
    near = replace(anchor.search, cx=anchor.search.cx - left, cy=anchor.search.cy - top)
    pose, second = locate(near, template, grey(picture.pixels[top:bottom, left:right]))
    if pose.score < anchor.least_score:
        raise PictureRefused("lost", f"The anchor was not found ({pose.score:.2f}; {anchor.least_score:g} is needed).")
    if second >= _MOST_SECOND * pose.score:
        raise PictureRefused(
            "lost",
            f"The anchor was found at two places ({pose.score:.2f} and {second:.2f}), so nobody knows where the part "
            "is.",
        )
    dx, dy = (_rounded(value, _STEPS_PX) for value in (pose.dx, pose.dy))
    return Placement(dx, dy, _rounded(pose.angle_deg, _STEPS_DEG), pose.score)


def placed(roi: Roi, anchor: LayoutAnchor, placement: Placement) -> Roi:
    """A ROI of the reference picture, moved to the place of the part."""
    cos, sin = turn_of(placement.angle_deg)
    centre = anchor.search
    x, y = roi.cx - centre.cx, roi.cy - centre.cy
    return replace(
        roi,
        cx=centre.cx + placement.dx + (x * cos - y * sin),
        cy=centre.cy + placement.dy + (x * sin + y * cos),
        angle_deg=roi.angle_deg + placement.angle_deg,
    )


def _rounded(value: float, steps: int) -> float:
    return math.floor(value * steps + 0.5) / steps
