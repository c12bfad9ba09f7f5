"""Plots of measures, as SVG without styles: the page has the colours. Only numbers go in."""

from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 14, 36


class _Axes:
    """A frame with ticks, and the places of values in it."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], width: int = _WIDTH) -> None:
        self._x_range, self._y_range, self._width = x, y, width

    def x(self, value: float) -> float:
        low, high = self._x_range
        return round(_LEFT + (self._width - _LEFT - _RIGHT) * (value - low) / (high - low), 2)

    def y(self, value: float) -> float:
        low, high = self._y_range
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low), 2)

    def line(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)

    def svg(
        self, title: str, labels: tuple[str, str], x_ticks: Sequence[float], y_ticks: Sequence[float], content: str
    ) -> Markup:
        left, right, bottom, top = _LEFT, self._width - _RIGHT, _HEIGHT - _BOTTOM, _TOP
        drawn = [f'<text x="{self.x(tick)}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>' for tick in x_ticks]
        for tick in y_ticks:
            y = self.y(tick)
            drawn.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
            drawn.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        return Markup(  # noqa: S704  (numbers, and words of ours)
            f'<svg class="plot" viewBox="0 0 {self._width} {_HEIGHT}" role="img" aria-label="{title}">{"".join(drawn)}'
            f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>{content}'
            f'<text x="{(left + right) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{labels[0]}</text>'
            f'<text x="{left}" y="{top - 4}" text-anchor="start">{labels[1]}</text></svg>'
        )


def roc(false: Sequence[float], true: Sequence[float], at_threshold: tuple[float, float] | None) -> Markup:
    """The ROC curve of image scores, with the point of the threshold."""
    axes = _Axes((0, 1), (0, 1.02), width=300)
    content = (
        f'<polyline class="chance" points="{axes.line([(0, 0), (1, 1)])}"/>'
        f'<polyline class="curve" points="{axes.line(zip(false, true, strict=True))}"/>'
    )
    if at_threshold is not None:
        content += f'<circle class="point" cx="{axes.x(at_threshold[0])}" cy="{axes.y(at_threshold[1])}" r="4"/>'
    quarters = (0, 0.25, 0.5, 0.75, 1)
    return axes.svg("ROC curve", ("false reject rate", "share of defects found"), quarters, quarters, content)


def few_shots(points: Sequence[tuple[int, float, float | None]]) -> Markup:
    """Image AUROC over the number of training images, at equal distances.

    Args:
        points: number, mean and standard deviation, None if there is none.
    """
    low = min(mean - (deviation or 0) for _, mean, deviation in points)
    bottom = max(0.0, np.floor(low * 20) / 20 - 0.05)
    axes = _Axes((-0.4, len(points) - 0.6), (float(bottom), 1.005))
    parts = [f'<polyline class="curve" points="{axes.line((i, point[1]) for i, point in enumerate(points))}"/>']
    for i, (number, mean, deviation) in enumerate(points):
        x = axes.x(i)
        if deviation:
            parts.append(
                f'<line class="curve" x1="{x}" x2="{x}" y1="{axes.y(mean - deviation)}" '
                f'y2="{axes.y(min(1, mean + deviation))}"/>'
            )
        parts.append(f'<circle class="point" cx="{x}" cy="{axes.y(mean)}" r="3.5"/>')
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{number}</text>')
    return axes.svg(
        "Image AUROC over training images", ("training images", "image AUROC"), (), ticks(bottom, 1), "".join(parts)
    )


def ticks(low: float, high: float) -> list[float]:
    """Some five round numbers from `low` to `high`.

    >>> ticks(0.31, 1.12)
    [0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / 5
    step = 10.0 ** np.floor(np.log10(rough))
    step *= min((1, 2, 5, 10), key=lambda factor: abs(factor * step - rough))
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [round(float(i * step), 10) for i in range(first, last + 1)]
