"""What the hour before the console calls growth."""

import math

import pytest

from soak.console import Sample, Seen, grown, slope_per_hour


def seen(heap_mb: float = 4.0, resident_mb: float = 900.0, nodes: float = 2000.0) -> Seen:
    """An hour in which each of the measures rises by so much, on top of a start that is not counted."""
    start = [Sample(5.0 * k, 100 * k, 3.0, 500.0, 700.0) for k in range(6)]
    hour = [
        Sample(30 + 36.0 * k, 600 + k, 4 + heap_mb * k / 100, 900 + resident_mb * k / 100, 2000 + nodes * k / 100)
        for k in range(100)
    ]
    return Seen(start + hour)


def test_what_stays_flat_once_it_is_warm_has_not_grown() -> None:
    flat = seen(0.0, 0.0, 0.0)
    assert grown(flat) == []
    assert slope_per_hour(flat, "heap_mb") == pytest.approx(0)


@pytest.mark.parametrize(
    ("rising", "told"),
    [
        ({"heap_mb": 4.0}, "heap of JavaScript"),
        ({"resident_mb": 200.0}, "processes of pages"),
        ({"nodes": 600.0}, "nodes"),
    ],
)
def test_what_rises_has_grown_and_the_slope_tells_by_how_much(rising: dict[str, float], told: str) -> None:
    flat = {"heap_mb": 0.0, "resident_mb": 0.0, "nodes": 0.0}
    hour = seen(**flat | rising)
    (text,) = grown(hour)
    assert text.startswith(told)
    ((name, by),) = rising.items()
    assert slope_per_hour(hour, name) == pytest.approx(by)


def test_a_run_that_is_too_short_tells_nothing_of_growth() -> None:
    short = Seen(seen().samples[:20])
    assert grown(short) == []
    assert math.isnan(slope_per_hour(short, "heap_mb"))
