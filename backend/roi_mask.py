"""ROI masks in canonical coordinates: rect, circle, annulus. A mask selects pixels; it never moves them.

Coordinates are continuous and in pixels of the uploaded image: pixel (column j, row i) covers [j, j+1) × [i, i+1) and
belongs to a shape when its centre (j + ½, i + ½) does. So a circle with ``cx = W/2`` is symmetric in the image.
"""

import json
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, model_validator

from backend.common.error_text import about_unknown
from backend.common.errors import InvalidShape
from backend.common.field_problems import problems_in_words
from backend.common.json_members import refuse_repeated

_Coordinate = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
_Length = Annotated[FiniteFloat, Field(gt=0, le=1e6)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class Rect(_Shape):
    """``x``, ``y``: left top corner; ``w``, ``h``: size."""

    kind: Literal["rect"]
    x: _Coordinate
    y: _Coordinate
    w: _Length
    h: _Length


class Circle(_Shape):
    """``cx``, ``cy``: centre; ``r``: radius."""

    kind: Literal["circle"]
    cx: _Coordinate
    cy: _Coordinate
    r: _Length


class Annulus(_Shape):
    """``cx``, ``cy``: centre; ``r``: outer and ``r_inner``: inner radius."""

    kind: Literal["annulus"]
    cx: _Coordinate
    cy: _Coordinate
    r: _Length
    r_inner: Annotated[FiniteFloat, Field(ge=0, le=1e6)]

    @model_validator(mode="after")
    def _inner_is_smaller(self) -> "Annulus":
        if self.r_inner >= self.r:
            raise ValueError("r_inner must be smaller than r")
        return self


# Distances are computed in blocks of 256 KiB of float64, which stay in a core's cache: less than half of the time
# that whole arrays take at five megapixels.
_BLOCK_PIXELS = 1 << 15

Shape = Rect | Circle | Annulus
_shape_adapter: TypeAdapter[Shape | None] = TypeAdapter(Annotated[Shape, Field(discriminator="kind")] | None)


def parse_shape(text: str | None) -> Shape | None:
    """Read a shape in the format of the GUI.

    Args:
        text: JSON such as ``{"kind": "circle", "cx": 64, "cy": 64, "r": 60}``; empty, ``null`` or None is no mask.

    Raises:
        InvalidShape: not JSON, an unknown kind, or a number that is missing or out of range.
    """
    if text is None or not text.strip():
        return None
    try:
        return _shape_adapter.validate_json(text)
    except ValidationError as exc:
        raise InvalidShape(f"shape: {problems_in_words(exc.errors()[:1])}") from exc


def requested_shape(text: str | None) -> tuple[Shape | None, str | None]:
    """Read the shape of a request, and name its members without an effect.

    Clients may write the members of all kinds into every shape; null and 0 do not count there.

    Args:
        text: as for `parse_shape`.

    Returns:
        shape: None is no mask.
        doubt: names the members with a value but no effect; None if there are none.

    Raises:
        InvalidShape: see `parse_shape`.
        InvalidRequest: a member occurs several times with different values.
    """
    shape = parse_shape(text)
    if text is None or shape is None:
        return None, None
    refuse_repeated(text)
    unused = [name for name, value in json.loads(text).items() if value and name not in type(shape).model_fields]
    kinds: dict[str, list[str]] = {}
    for kind in (Rect, Circle, Annulus):
        for name in kind.model_fields:
            kinds.setdefault(name, []).append(kind.__name__.lower())
    doubts = [f"{name} has no effect: it belongs to {' and '.join(kinds[name])}" for name in unused if name in kinds]
    if unknown := [name for name in unused if name not in kinds]:
        doubts.append(about_unknown(unknown, list(kinds)))
    return shape, f"shape {shape.kind}: {', '.join(doubts)}" if doubts else None


def build_mask(shape: Shape | None, image_hw: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """The pixels that count.

    Args:
        shape: None selects every pixel.
        image_hw: image size (rows, columns).

    Returns:
        bool [rows, columns], or None if every pixel counts.

    Raises:
        InvalidShape: the shape selects no pixel of the image.
    """
    if shape is None:
        return None
    y, x = (np.arange(size) + 0.5 for size in image_hw)
    if isinstance(shape, Rect):
        in_rows, in_columns = (y >= shape.y) & (y < shape.y + shape.h), (x >= shape.x) & (x < shape.x + shape.w)
        mask = in_rows[:, None] & in_columns
    else:
        squared_y, squared_x = (y[:, None] - shape.cy) ** 2, (x - shape.cx) ** 2
        mask = np.empty(image_hw, np.bool_)
        step = max(1, _BLOCK_PIXELS // image_hw[1])
        for start in range(0, image_hw[0], step):
            rows = slice(start, start + step)
            squared = squared_x + squared_y[rows]
            mask[rows] = squared <= shape.r**2
            if isinstance(shape, Annulus):
                mask[rows] &= squared >= shape.r_inner**2
    if mask.all():
        return None
    if not mask.any():
        raise InvalidShape(f"shape {shape.kind} selects no pixel of the {image_hw[1]}x{image_hw[0]} image")
    return np.asarray(mask)
