"""What the hour before the console calls growth."""

import math
from dataclasses import replace

import numpy as np
import pytest

from soak.console import Sample, Seen, course, grown, slope_per_hour

FLAT = {"heap_mb": 0.0, "detached_nodes": 0.0, "pages_mb": 0.0, "others_mb": 0.0}
WARM = {"heap_mb": 4.0, "detached_nodes": 200.0, "pages_mb": 400.0, "others_mb": 150.0}


def seen(**rising: float) -> Seen:
    """An hour in which each of the measures rises by so much, on top of a start that is not counted."""
    start = [Sample(5.0 * k, 100 * k, 3.0, 700.0, 200.0, 100.0) for k in range(6)]
    by = FLAT | rising
    hour = [
        Sample(30 + 36.0 * k, 600 + k, **{name: value + by[name] * k / 100 for name, value in WARM.items()})
        for k in range(100)
    ]
    return Seen(start + hour)


def test_what_stays_flat_once_it_is_warm_has_not_grown() -> None:
    flat = seen()
    assert grown(flat) == []
    assert slope_per_hour(flat, "heap_mb") == pytest.approx(0)


@pytest.mark.parametrize(
    ("rising", "told"),
    [
        ({"heap_mb": 4.0}, "heap of JavaScript"),
        ({"pages_mb": 120.0}, "processes of pages"),
        ({"others_mb": 40.0}, "other processes"),
        ({"detached_nodes": 900.0}, "detached nodes"),
    ],
)
def test_what_rises_has_grown_and_the_slope_tells_by_how_much(rising: dict[str, float], told: str) -> None:
    hour = seen(**rising)
    (text,) = grown(hour)
    assert text.startswith(told)
    ((name, by),) = rising.items()
    assert slope_per_hour(hour, name) == pytest.approx(by)


def test_what_processes_take_in_the_first_third_is_no_growth() -> None:
    hour = seen()
    early = [replace(sample, pages_mb=250.0) if sample.at_s < 1000 else sample for sample in hour.samples]
    assert grown(Seen(early)) == []
    late = [replace(sample, pages_mb=250.0) if sample.at_s < 2500 else sample for sample in hour.samples]
    assert len(grown(Seen(late))) == 1


def test_the_course_shows_growth_sixth_by_sixth() -> None:
    medians = course(seen(pages_mb=60.0))
    assert medians["heap_mb"] == [4.0] * 6
    steps = np.diff(medians["pages_mb"])
    assert len(steps) == 5
    assert steps == pytest.approx([10.0] * 5, abs=0.5)
    assert course(Seen()) == {name: [] for name in medians}


def test_a_run_that_is_too_short_tells_nothing_of_growth() -> None:
    short = Seen(seen().samples[:20])
    assert grown(short) == []
    assert math.isnan(slope_per_hour(short, "heap_mb"))
