"""Reading a file and cutting out its ROIs, while the previous part is judged."""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from backend.commands.console import on_a_terminal
from backend.commands.watch.arrivals import Arrival, identity_of
from backend.commands.watch.layouts import DrawnRoi, Layout
from backend.commands.watch.pictures import LIMITS, Crop, Picture, PictureRefused, cut_roi, open_picture
from backend.commands.watch.placement import LayoutAnchor, Placement, placed, placement_in

# Of these a picture may still lack something that comes later.
_MAY_PASS = frozenset({"unreadable", "format"})

State = Literal["ready", "unfinished", "changed"]


@dataclass(frozen=True)
class Prepared:
    """A part that can be judged.

    Attributes:
        arrival: its file.
        layout: its layout.
        state: unfinished: it cannot be read yet; changed: it was replaced or deleted.
        ms: duration in milliseconds.
        sha256: of the file; None if it could not be read.
        problem: why none of its ROIs can be judged.
        crops: by position of the ROI, the crop, or why it cannot be cut.
        placement: where the part is; None without an anchor.
    """

    arrival: Arrival
    layout: Layout
    state: State
    sha256: str | None = None
    problem: str | None = None
    crops: tuple[Crop | PictureRefused, ...] = ()
    placement: Placement | None = None
    ms: float = 0


def prepare(folder: Path, arrival: Arrival, layout: Layout) -> Prepared:
    """Read a file and cut out its ROIs.

    Args:
        folder: in which the file is.
        arrival: the file.
        layout: the places of its ROIs.
    """
    began = time.perf_counter()
    prepared = _prepared(folder / arrival.path, on_a_terminal(arrival.path), arrival, layout)
    return replace(prepared, ms=(time.perf_counter() - began) * 1000)


def _prepared(path: Path, name: str, arrival: Arrival, layout: Layout) -> Prepared:
    if arrival.identity[0] > LIMITS.max_bytes:
        problem = f"{name} has {arrival.identity[0] >> 20} MiB; at most {LIMITS.max_bytes >> 20} are possible."
        return Prepared(arrival, layout, "ready", problem=problem)
    try:
        content = path.read_bytes()
        if identity_of(path) != arrival.identity or len(content) != arrival.identity[0]:
            return Prepared(arrival, layout, "changed")
    except FileNotFoundError:
        return Prepared(arrival, layout, "changed")
    except OSError as exc:
        return Prepared(arrival, layout, "unfinished", problem=f"{name} cannot be read ({exc.strerror}).")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = open_picture(content, name)
    except PictureRefused as exc:
        state: State = "unfinished" if exc.code in _MAY_PASS else "ready"
        return Prepared(arrival, layout, state, sha256, str(exc))
    placement = None
    if layout.anchor is not None and layout.template is not None:
        try:
            placement = placement_in(picture, layout.anchor, layout.template)
        except PictureRefused as exc:
            return Prepared(arrival, layout, "ready", sha256, str(exc))
    crops = tuple(_cut(picture, drawn, layout.anchor, placement) for drawn in layout.rois)
    return Prepared(arrival, layout, "ready", sha256, crops=crops, placement=placement)


def _cut(
    picture: Picture, drawn: DrawnRoi, anchor: LayoutAnchor | None, placement: Placement | None
) -> Crop | PictureRefused:
    width, height = picture.size
    if drawn.roi is None:
        return PictureRefused("size", "The ROI is not drawn yet. Draw it in the console.")
    if drawn.picture is not None and drawn.picture != picture.size:
        return PictureRefused(
            "size",
            f"{picture.name} has {width} × {height} pixels; the ROI was drawn on pictures of "
            f"{drawn.picture[0]} × {drawn.picture[1]}.",
        )
    try:
        if anchor is not None and placement is not None:
            return cut_roi(picture, placed(drawn.roi, anchor, placement))
        return cut_roi(picture, drawn.roi)
    except PictureRefused as exc:
        return exc
