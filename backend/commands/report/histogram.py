"""Scores of each kind of image over one axis, and the line that the page lets people move. Only numbers go in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from markupsafe import Markup

from backend.commands.report.charts import ticks
from backend.commands.report.content import Kind, Section
from backend.scores.promise import CONFIDENCE

WIDTH = 900
LEFT, RIGHT = 14, 14
_TOP, _LANE, _GAP, _BOTTOM = 44, 64, 26, 40
_N_BARS = 60
_NAMES: dict[Kind, str] = {
    "train": "training images, each by a memory bank of the others",
    "good": "good parts",
    "defective": "defective parts",
    "part": "parts",
}


@dataclass(frozen=True)
class Histogram:
    """The histogram of a section: a lane for each kind of image that there is.

    Attributes:
        section: whose.
    """

    section: Section

    @cached_property
    def lanes(self) -> dict[Kind, list[float]]:
        """Scores by kind, from the top lane to the bottom one."""
        found: dict[Kind, list[float]] = {
            kind: [image.score for image in self.section.images if image.kind == kind] for kind in _NAMES
        }
        return {kind: scores for kind, scores in found.items() if scores}

    @cached_property
    def range(self) -> tuple[float, float]:
        """The axis: all scores and thresholds, and some room."""
        values = [image.score for image in self.section.images] + [mark.threshold for mark in self.section.marks]
        low, high = min(values), max(values)
        margin = (high - low) * 0.04 or 0.01
        return low - margin, high + margin

    @property
    def height(self) -> int:
        """Of the drawing, in its own units."""
        return _TOP + len(self.lanes) * (_LANE + _GAP) - _GAP + _BOTTOM

    @property
    def bottom(self) -> int:
        """Where the axis lies."""
        return self.height - _BOTTOM

    def x(self, score: float) -> float:
        """Where a score lies."""
        low, high = self.range
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (score - low) / (high - low), 2)

    def drawn(self, number: int) -> Markup:
        """Axis, lanes and named thresholds; bars once in the colour of their kind, and once in that of a wrong one.

        Args:
            number: of the section on the page, for what clips the wrong ones.
        """
        parts = [
            f'<text x="{self.x(tick)}" y="{self.bottom + 16}" text-anchor="middle">{tick:g}</text>'
            f'<line class="grid" x1="{self.x(tick)}" x2="{self.x(tick)}" y1="{_TOP}" y2="{self.bottom}"/>'
            for tick in ticks(*self.range)
        ]
        parts += [
            f'<line class="mark" x1="{self.x(mark.threshold)}" x2="{self.x(mark.threshold)}" y1="{_TOP}" '
            f'y2="{self.bottom}"/>'
            for mark in self.section.marks
        ]
        for place, (kind, scores) in enumerate(self.lanes.items()):
            base = _TOP + place * (_LANE + _GAP) + _LANE
            bars = self._bars(scores, base)
            parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
            parts.append(f'<path class="{kind}" d="{bars}"/>')
            if kind in ("good", "defective") and self.section.threshold is not None:
                side = "above" if kind == "good" else "below"
                parts.append(f'<path class="wrong" clip-path="url(#{side}-{number})" d="{bars}"/>')
            parts.append(f'<text class="lane" x="{LEFT}" y="{base - _LANE - 5}">{len(scores)} {_NAMES[kind]}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{self.height - 6}" text-anchor="middle">image score</text>')
        return Markup("".join(parts))  # noqa: S704  (numbers, and words of ours)

    def _bars(self, scores: Sequence[float], base: int) -> str:
        """The bars of a lane as one path; the highest fills the lane."""
        edges = np.linspace(*self.range, _N_BARS + 1)
        heights = np.histogram(scores, edges)[0]
        scaled = _LANE * heights / heights.max()
        return "".join(
            f"M{self.x(float(start))} {base}V{base - height:.2f}H{self.x(float(end)) - 1:.2f}V{base}Z"
            for start, end, height in zip(edges[:-1], edges[1:], scaled, strict=True)
            if height
        )

    def as_json(self) -> str:
        """What the page counts: scores by kind, labels of the defective ones, and bounds of every share.

        Bounds are exact 95 % confidence intervals in percent, by how many of the parts are counted.
        """
        defective = [image for image in self.section.images if image.kind == "defective"]
        return json.dumps(
            {
                "scores": {kind: sorted(scores) for kind, scores in self.lanes.items()},
                "types": {
                    label: sorted(image.score for image in defective if image.label == label)
                    for label in dict.fromkeys(image.label for image in defective)
                },
                "bounds": {
                    kind: _bounds(len(self.lanes[kind])) for kind in ("good", "defective") if kind in self.lanes
                },
                "range": self.range,
                "marks": [[mark.name, mark.threshold] for mark in self.section.marks],
            }
        )


def _bounds(n: int) -> list[list[float]]:
    """Clopper and Pearson's interval of each count of `n`, in percent."""
    from scipy.special import betaincinv  # half a second to import, for nobody else

    count, tail = np.arange(n + 1), (1 - CONFIDENCE) / 2
    low, high = np.zeros(n + 1), np.ones(n + 1)
    low[1:] = betaincinv(count[1:], n - count[1:] + 1, tail)
    high[:-1] = betaincinv(count[:-1] + 1, n - count[:-1], 1 - tail)
    return [[round(100 * float(a), 1), round(100 * float(b), 1)] for a, b in zip(low, high, strict=True)]
