"""Scores of each kind of image over one axis, and the movable line of the page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, get_args

import numpy as np

from backend.commands.console import count
from backend.commands.report.charts import ticks
from backend.commands.report.content import Kind, Section
from backend.scores.promise import CONFIDENCE

_LANE, _GAP, _BOTTOM = 64, 26, 40
_N_BARS = 60


class Lane(NamedTuple):
    """Scores of one kind of image.

    Attributes:
        kind: the kind.
        title: their number, in words.
        base: the baseline of the bars.
        bars: a path of SVG.
    """

    kind: Kind
    title: str
    base: int
    bars: str

    @property
    def top(self) -> int:
        """The end of the highest bar."""
        return self.base - _LANE


@dataclass(frozen=True)
class Histogram:
    """The histogram of a section: a lane for each existing kind of image.

    Attributes:
        section: the section.
        width, left, right, top: of the drawing and its margins, in its own units.
    """

    section: Section
    width: ClassVar = 900
    left: ClassVar = 14
    right: ClassVar = 14
    top: ClassVar = 44

    @cached_property
    def scores(self) -> dict[Kind, list[float]]:
        """By kind, from the top lane to the bottom one."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        found = {kind: [image.score for image in self.section.images if image.kind == kind] for kind in kinds}
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
        return self.top + len(self.scores) * (_LANE + _GAP) - _GAP + _BOTTOM

    @property
    def bottom(self) -> int:
        """The place of the axis."""
        return self.height - _BOTTOM

    def x(self, score: float) -> float:
        """The place of a score."""
        low, high = self.range
        return round(self.left + (self.width - self.left - self.right) * (score - low) / (high - low), 2)

    @property
    def ticks(self) -> list[float]:
        """Scores that the axis names."""
        return ticks(*self.range)

    @property
    def lanes(self) -> list[Lane]:
        """From top to bottom."""
        found = []
        for place, (kind, scores) in enumerate(self.scores.items()):
            title = count(len(scores), self.section.words.kinds[kind])
            by_others = ", each by a memory bank of the others" if kind == "train" else ""
            base = self.top + place * (_LANE + _GAP) + _LANE
            found.append(Lane(kind, title + by_others, base, self._bars(scores, base)))
        return found

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
        """The data that the page counts, and its words: scores by kind, types of defects, and bounds of every share.

        Bounds are exact 95 % confidence intervals in percent, by the number of counted parts.
        """
        defective = [image for image in self.section.images if image.kind == "defective"]
        return json.dumps(
            {
                "scores": {kind: sorted(scores) for kind, scores in self.scores.items()},
                "types": {
                    label: sorted(image.score for image in defective if image.label == label)
                    for label in dict.fromkeys(image.label for image in defective)
                },
                "bounds": {
                    kind: _bounds(len(self.scores[kind])) for kind in ("good", "defective") if kind in self.scores
                },
                "range": self.range,
                "marks": [[mark.name, mark.threshold] for mark in self.section.marks],
                "words": asdict(self.section.words),
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
