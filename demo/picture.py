"""The picture: a dozen inspected cells with overlay and score, and all scores beneath."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from backend.api.schemas.inspection import InferReply
from demo.cells import CITATION, LICENCE, SOURCE, Cell

# Pixels, as every position below, from the top left corner.
_WIDTH, _HEIGHT = 1600, 1644
_LEFT, _SIDE, _STEP = 40, 240, 256  # left edge, side of a cell, distance between cells
_DPI = 100
_PER_CLASS = 6

_TEXT, _MUTED, _TRACK = "#1c2430", "#5b6675", "#e3e7ec"
_COLOURS = {"ok": "#0b7285", "ng": "#c2570c"}
_WRONG = "#c4122f"


@dataclass(frozen=True)
class Inspected:
    """A test cell and what the service said of it.

    Attributes:
        cell: the image.
        reply: score, threshold, decision, regions, overlay.
        ms: milliseconds from request to reply.
    """

    cell: Cell
    reply: InferReply
    ms: float

    @property
    def verdict(self) -> str:
        """The decision, and how it is wrong if it is."""
        if self.reply.decision == "ng":
            return "NG" if self.cell.defective else "NG, false reject"
        return "OK, escape" if self.cell.defective else "OK"

    @property
    def right(self) -> bool:
        """Whether the decision agrees with the label."""
        return self.cell.defective == (self.reply.decision == "ng")

    @property
    def colour(self) -> str:
        """Colour of the decision."""
        return _COLOURS[self.reply.decision or "ok"]


def draw(inspected: Sequence[Inspected], threshold: float, path: Path) -> None:
    """Write the picture as PNG.

    Args:
        inspected: all test cells; six of each class are shown, evenly spaced over its ranking by score.
        threshold: image scores and distances at or above it are defects.
        path: the file, in an existing folder.
    """
    figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI), dpi=_DPI)
    _write(figure, _LEFT, 58, "Solar cells, inspected", size=22, weight="bold")
    legend = (
        "Upper image: electroluminescence. Lower image: its overlay, with colour where the distance is at or above the "
        "threshold, and the area of each region.\n"
        "Bar: score against the threshold (black). The score is a high percentile of the distances: a small region "
        "alone does not make a cell NG. Red: wrong decisions."
    )
    _write(figure, _LEFT, 114, legend, colour=_MUTED, linespacing=1.5)
    bar_end = max(threshold, *(item.reply.score for item in inspected))
    shown = []
    for top, defective, heading in ((136, False, "Good cells"), (744, True, "Defective cells")):
        ranked = sorted((item for item in inspected if item.cell.defective == defective), key=lambda x: x.reply.score)
        ranks = np.linspace(0, len(ranked) - 1, min(_PER_CLASS, len(ranked))).round().astype(int)
        note = f"{len(ranks)} of {len(ranked)}, evenly spaced in their order of score"
        _write(figure, _LEFT, top + 20, heading, size=14, weight="bold")
        _write(figure, _LEFT + _STEP, top + 20, note, colour=_MUTED)
        for column, rank in enumerate(ranks):
            _draw_cell(figure, _LEFT + column * _STEP, top + 28, ranked[rank], threshold, bar_end)
            shown.append(ranked[rank])
    _draw_scores(figure, 1360, inspected, shown, threshold)
    _write(
        figure,
        _LEFT,
        _HEIGHT - 28,
        f"{SOURCE}. {LICENCE}. This picture is adapted from them and under the same licence.\n" + "\n".join(CITATION),
        size=9,
        colour=_MUTED,
        linespacing=1.5,
    )
    rendered = io.BytesIO()
    figure.savefig(rendered, format="png")
    # Neither transparency nor the lowest bit can be seen; without them the file is a third smaller.
    Image.open(rendered).convert("RGB").point(lambda value: value | 1).save(path, optimize=True)


def _draw_cell(figure: Figure, left: int, top: int, item: Inspected, threshold: float, bar_end: float) -> None:
    score, colour = item.reply.score, item.colour
    badge = {"boxstyle": "round,pad=0.25", "facecolor": _WRONG, "edgecolor": "none"}
    style = {"colour": colour} if item.right else {"colour": "white", "bbox": badge}
    _write(figure, left if item.right else left + 5, top + 24, item.verdict, size=13, weight="bold", **style)
    _write(figure, left + _SIDE, top + 24, f"{score:.3f}", size=13, ha="right", colour=colour)

    image = np.asarray(Image.open(io.BytesIO(item.cell.png)).convert("L"))
    plain = _axes(figure, left, top + 34, _SIDE, _SIDE)
    plain.imshow(image, cmap="gray", vmin=0, vmax=255)
    overlay = Image.open(io.BytesIO(base64.b64decode(item.reply.overlay_png_base64 or "")))
    _axes(figure, left, top + 40 + _SIDE, _SIDE, _SIDE).imshow(np.asarray(overlay))

    bar = _axes(figure, left, top + 52 + 2 * _SIDE, _SIDE, 14)
    bar.set(xlim=(0, bar_end), ylim=(0, 1))
    bar.barh(0.5, bar_end, height=1, color=_TRACK)
    bar.barh(0.5, score, height=1, color=colour)
    bar.plot([threshold, threshold], [-0.4, 1.4], color=_TEXT, linewidth=2, clip_on=False)


def _draw_scores(
    figure: Figure, top: int, inspected: Sequence[Inspected], shown: Sequence[Inspected], threshold: float
) -> None:
    _write(figure, _LEFT, top + 20, f"All {len(inspected)} test cells", size=14, weight="bold")
    _write(figure, _LEFT + _STEP, top + 20, "by score; ringed: those above; crosses: wrong decisions", colour=_MUTED)
    axes = figure.add_axes(_box(_LEFT + 100, top + 54, _WIDTH - 2 * _LEFT - 100, 90))
    for item in inspected:
        row = 0 if item.cell.defective else 1
        marker, colour = ("o", item.colour) if item.right else ("X", _WRONG)
        axes.scatter(item.reply.score, row, s=80, marker=marker, color=colour, alpha=0.6, linewidth=0)
        if item in shown:
            axes.scatter(item.reply.score, row, s=190, facecolor="none", edgecolor=_TEXT)
    axes.axvline(threshold, color=_TEXT, linewidth=2)
    axes.text(threshold, 1.62, f"threshold {threshold:.3f}", ha="center", va="bottom", color=_TEXT, fontsize=11)
    axes.set(ylim=(-0.6, 1.6), yticks=(0, 1), yticklabels=("defective", "good"))
    axes.tick_params(length=0, labelsize=11, colors=_MUTED)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f5f7f9")


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    axes = figure.add_axes(_box(left, top, width, height))
    axes.set_axis_off()
    return axes


def _box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    return left / _WIDTH, 1 - (top + height) / _HEIGHT, width / _WIDTH, height / _HEIGHT


def _write(
    figure: Figure, left: float, baseline: float, text: str, *, size: float = 11, colour: str = _TEXT, **style: Any
) -> None:
    figure.text(left / _WIDTH, 1 - baseline / _HEIGHT, text, fontsize=size, color=colour, **style)
