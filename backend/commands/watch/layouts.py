"""The layout of a recipe in the form of the console: the places of its ROIs in the picture."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from backend.api.schemas.common import Identifier, MillimetresPerPixel
from backend.commands.watch.anchor import Anchor, Grey, grey
from backend.commands.watch.crop import Roi
from backend.commands.watch.pictures import LIMITS, PictureRefused, open_picture
from backend.commands.watch.placement import LayoutAnchor
from backend.common.errors import InvalidRequest
from backend.common.field_problems import problems_in_words
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey, canonical_recipe, check_recipe

FORMAT, VERSION = "roi-anomaly-console", 1


_MOST = LIMITS.max_pixels  # no picture is wider or higher


class _Size(BaseModel):
    width: Annotated[int, Field(ge=1, le=_MOST)]
    height: Annotated[int, Field(ge=1, le=_MOST)]


class _Anchor(BaseModel):
    id: Annotated[str, Field(min_length=1)]
    cx: FiniteFloat
    cy: FiniteFloat
    w: Annotated[int, Field(ge=3, le=_MOST)]
    h: Annotated[int, Field(ge=3, le=_MOST)]
    search_px: Annotated[FiniteFloat, Field(ge=0, le=4096)]
    search_deg: Annotated[FiniteFloat, Field(ge=0, le=180)]
    least_score: Annotated[FiniteFloat, Field(gt=0, le=1)]
    picture: _Size


def _true_if_missing(value: Any) -> Any:
    return True if value is None else value


class _DrawnRoi(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)  # of the ROI's numbers, too

    role_id: Identifier
    roi_id: Identifier
    model_key: Identifier
    name: str = ""
    mm_per_px: MillimetresPerPixel = 1.0
    roi: Roi | None = None
    picture: _Size | None = None
    enabled: Annotated[bool, BeforeValidator(_true_if_missing)] = True


@dataclass(frozen=True)
class DrawnRoi:
    """A ROI of a layout.

    Attributes:
        key: the model that judges it.
        name: for people.
        mm_per_px: millimetres per pixel of the pictures, if the service knows no other scale.
        roi: its place in the picture; None if it is not drawn yet.
        picture: width and height of the pictures in which it was drawn; None if unknown.
        anchor_id: of the anchor that finds its place; None if parts do not move.
    """

    key: RoiKey
    name: str
    mm_per_px: float
    roi: Roi | None
    picture: tuple[int, int] | None
    anchor_id: str | None = None

    @property
    def cut(self) -> list[str | float]:
        """Its cut, in the form that the console stores with its samples."""
        of_anchor = [] if self.anchor_id is None else [self.anchor_id]
        return [*(self.roi.cut if self.roi is not None else []), *of_anchor]


@dataclass(frozen=True)
class Layout:
    """The ROIs that are judged in each picture.

    Attributes:
        recipe: of its ROIs.
        rois: those that are enabled, in the order of the layout; at least one.
        content: its bytes.
        anchor: finds a part in its picture; None if parts do not move.
        template: grey values of the anchor's picture, float64 [h, w]; None without an anchor.
    """

    recipe: str
    rois: tuple[DrawnRoi, ...]
    content: bytes
    anchor: LayoutAnchor | None = None
    template: Grey | None = None


def read_layout(content: bytes, recipe: str | None, source: str, template_of: Callable[[str, str], bytes]) -> Layout:
    """Read a layout; unknown keys are ignored.

    Args:
        content: in the format of ``GET /layout``.
        recipe: of its ROIs; None is the default one.
        source: names it in messages.
        template_of: the anchor's picture, by recipe and name.

    Raises:
        InvalidRequest: it is not a layout of the console, has no ROI, or its anchor's picture cannot be used.
        PictureNotFound, Away: from `template_of`.
        ReservedRecipe: see `check_recipe`.
    """
    name = canonical_recipe(recipe or "") or DEFAULT_RECIPE
    check_recipe(name)
    try:
        layout = json.loads(content)
    except ValueError as exc:
        raise InvalidRequest(f"{source} is not JSON ({exc}): give a file in the format of GET /layout") from exc
    if not isinstance(layout, dict) or layout.get("format") != FORMAT or not isinstance(layout.get("rois"), list):
        raise InvalidRequest(f"{source} is not a layout of the console: its format must be {FORMAT!r}")
    if layout.get("version") != VERSION:
        raise InvalidRequest(
            f"{source} has version {layout.get('version')!r}, but this program reads {VERSION}: update it"
        )
    anchor = _anchor(layout.get("anchor"), source)
    drawn = [
        replace(_drawn(item, number, name, source), anchor_id=anchor.id if anchor else None)
        for number, item in enumerate(layout["rois"], 1)
        if _is_enabled(item)
    ]
    if not drawn:
        raise InvalidRequest(f"{source} has no ROI to judge: draw one in the console")
    template = None if anchor is None else _template(template_of(name, anchor.name), anchor, source)
    return Layout(name, tuple(drawn), content, anchor, template)


def _anchor(item: Any, source: str) -> LayoutAnchor | None:
    if item is None:
        return None
    try:
        read = _Anchor.model_validate(item)
    except ValidationError as exc:
        raise InvalidRequest(f"{source}: anchor: {problems_in_words(exc.errors())}") from exc
    width, height = read.picture.width, read.picture.height
    if Roi("rect", read.cx, read.cy, w=read.w, h=read.h).beyond(width, height) > 0:
        raise InvalidRequest(
            f"{source}: the anchor, {read.w}×{read.h} pixels around ({read.cx:g}, {read.cy:g}), reaches beyond its "
            f"reference picture of {width}×{height} pixels: draw the anchor again in the console"
        )
    search = Anchor(read.cx, read.cy, read.w, read.h, read.search_px, read.search_deg)
    return LayoutAnchor(read.id, search, read.least_score, (width, height))


def _template(content: bytes, anchor: LayoutAnchor, source: str) -> Grey:
    try:
        template = open_picture(content, anchor.name)
    except PictureRefused as exc:
        raise InvalidRequest(f"{source}: the picture of the anchor cannot be used: {exc}") from exc
    if template.size != (anchor.search.w, anchor.search.h):
        size = "×".join(map(str, template.size))
        raise InvalidRequest(
            f"{source}: the picture of the anchor has {size} pixels instead of {anchor.search.w}×{anchor.search.h}: "
            "draw the anchor again in the console"
        )
    return grey(template.pixels)


def _is_enabled(item: Any) -> bool:
    return not isinstance(item, dict) or item.get("enabled") is not False


def _drawn(item: Any, number: int, recipe: str, source: str) -> DrawnRoi:
    try:
        read = _DrawnRoi.model_validate(item)
    except ValidationError as exc:
        raise InvalidRequest(f"{source}: ROI {number}: {problems_in_words(exc.errors())}") from exc
    name = read.name or read.roi_id
    if read.roi is not None and not _has_size(read.roi):
        raise InvalidRequest(f"{source}: the ROI {name!r} has no valid size: {read.roi!r}")
    size = (read.picture.width, read.picture.height) if read.picture else None
    return DrawnRoi(RoiKey(read.role_id, read.roi_id, recipe, read.model_key), name, read.mm_per_px, read.roi, size)


def _has_size(roi: Roi) -> bool:
    sizes = [roi.w, roi.h] if roi.kind == "rect" else [roi.r]
    is_ring = roi.kind != "annulus" or 0 <= roi.r_inner < roi.r
    return all(math.isfinite(size) and size > 0 for size in sizes) and is_ring
