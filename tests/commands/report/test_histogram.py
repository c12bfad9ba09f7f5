"""The histogram as a browser is given it."""

import json
import re

import numpy as np
import pytest
from scipy.stats import binomtest

from backend.commands.report.histogram import Histogram
from tests.commands.report.sections import IMAGES, html, section


def test_every_kind_of_image_has_a_lane_with_all_its_scores():
    found = Histogram(section())
    assert [lane.kind for lane in found.lanes] == list(found.scores) == ["train", "good", "defective"]
    assert {kind: sorted(scores) for kind, scores in found.scores.items()} == {
        kind: sorted(image.score for image in IMAGES if image.kind == kind) for kind in found.scores
    }


def test_bars_stand_where_their_scores_lie():
    found = Histogram(section())
    (path,) = [lane.bars for lane in found.lanes if lane.kind == "good"]
    bars = [(float(left), float(right)) for left, right in re.findall(r"M([\d.]+) .*?H([\d.]+)V", path)]
    places = [found.x(score) for score in found.scores["good"]]
    assert len(bars) == len(places)
    for (left, right), place in zip(bars, sorted(places), strict=True):
        assert left - 1 <= place <= right + 2
    assert f'd="{path}"' in html(section())


def test_what_the_page_counts_is_exact():
    facts = json.loads(Histogram(section()).as_json())
    assert facts["scores"]["good"] == [0.22, 0.31, 0.47, 0.52]
    assert facts["types"] == {"bent": [0.45, 0.7], "hole": [0.35, 0.9, 0.95]}
    assert facts["marks"] == [["contract rule", 0.5], ["recommended rule", 0.4]]
    for kind, n in (("good", 4), ("defective", 5)):
        for count, bounds in enumerate(facts["bounds"][kind]):
            exact = binomtest(count, n).proportion_ci(0.95, "exact")
            assert bounds == pytest.approx([100 * exact.low, 100 * exact.high], abs=0.051)
        assert len(facts["bounds"][kind]) == n + 1


def test_thresholds_beyond_all_scores_are_on_the_axis():
    found = Histogram(section(threshold=3.0))
    assert 0 < found.x(3.0) < 900
    assert found.range[0] < 0.2


def test_a_single_score_has_an_axis():
    found = Histogram(section(threshold=None, images=[IMAGES[0]], suspicious=[], cards=[]))
    assert found.range[0] < IMAGES[0].score < found.range[1]
    shown = html(found.section)
    assert 'class="train"' in shown
    assert 'class="wrong"' not in shown
    assert np.isfinite(found.x(IMAGES[0].score))
