"""Decisions beside anomalib: which images count, and how often, at whose threshold."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.anomalib_side.decisions import Rates, Row, auroc, crossed, halves, means_of, parts_of
from benchmarks.splits import Split


def test_a_score_at_the_threshold_is_a_defect_to_us_and_not_to_anomalib():
    good, defective = np.array([0.1, 0.5, 0.7, 0.2]), np.array([0.5, 0.9])
    assert Rates.of(good, defective, 0.5, at_it=True) == Rates(0.5, 0.0)
    assert Rates.of(good, defective, 0.5, at_it=False) == Rates(0.25, 0.5)
    assert Rates(0.25, 0.5).error == 0.375


def test_auroc_is_that_of_scikit_learn():
    draw = np.random.default_rng(1)
    good, defective = draw.integers(0, 9, 12).astype(float), draw.integers(3, 12, 15).astype(float)
    expected = roc_auc_score(np.repeat([0, 1], [12, 15]), np.concatenate([good, defective]))
    assert auroc(good, defective) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "sizes"), [(8, (4, 4)), (9, (5, 4)), (1, (1, 0))])
def test_halves_are_random_and_hold_every_image_once(n, sizes):
    first, second = halves(n, 3)
    assert (len(first), len(second)) == sizes
    assert sorted([*first, *second]) == list(range(n))
    assert n < 8 or first.tolist() != sorted(first)


def test_no_half_is_judged_at_a_threshold_of_its_own():
    good, defective = np.arange(7.0), np.arange(10.0, 19.0)
    judged = []

    def choose(of_good, of_defective):
        judged.append((of_good, of_defective))
        return float(of_good.max())

    rates = crossed(good, defective, 5, choose, at_it=False)
    assert sorted(np.concatenate([judged[0][0], judged[1][0]])) == good.tolist()
    assert sorted(np.concatenate([judged[0][1], judged[1][1]])) == defective.tolist()
    rejected = sum(np.sum(there[0] > here[0].max()) for here, there in (judged, judged[::-1]))
    assert rates == Rates(pytest.approx(rejected / 7), 0.0)


def test_every_image_counts_once_where_halves_are_crossed():
    thresholds = iter([-1.0, 100.0])
    rates = crossed(np.arange(7.0), np.arange(9.0), 0, lambda *_: next(thresholds), at_it=True)
    assert rates == Rates(pytest.approx(3 / 7), pytest.approx(5 / 9))


def test_the_parts_of_a_split_share_no_image_and_are_always_the_same():
    def paths(kind, n):
        return [Path(f"{kind}{number}") for number in range(n)]

    split = Split(Path("set"), paths("train", 20), paths("good", 10), paths("bad", 12), [])
    train, good, bad = parts_of(split, 1, 12, 8)
    assert (len(train), len(good), len(bad)) == (12, 8, 8)
    assert not set(train) & set(good)
    assert {*train, *good} <= {*split.train, *split.good}
    assert set(bad) <= set(split.defective)
    assert parts_of(split, 1, 12, 8) == (train, good, bad)
    assert parts_of(split, 2, 12, 8) != (train, good, bad)
    assert [len(part) for part in parts_of(split, 0, 60, 60)] == [15, 15, 12]


def test_means_are_those_of_each_system_with_the_ways_that_it_has():
    def row(name, system, value, of_half, **rates):
        return Row(name, system, "30", value, of_half, {way: Rates(*of) for way, of in rates.items()})

    rows = [
        row("a", "ours", 0.9, None, none=(0.1, 0.2)),
        row("a", "theirs", 0.8, 0.7, none=(0.2, 0.4), half=(0.0, 0.1)),
        row("b", "ours", 1.0, None, none=(0.3, 0.0)),
        row("b", "theirs", 0.6, 0.5, none=(0.0, 0.0), half=(0.2, 0.3)),
    ]
    ours, theirs = means_of(rows, "mean")
    assert (ours.system, ours.auroc, ours.auroc_of_half) == ("ours", pytest.approx(0.95), None)
    assert ours.rates == {"none": Rates(pytest.approx(0.2), pytest.approx(0.1))}
    assert theirs.auroc_of_half == pytest.approx(0.6)
    assert theirs.rates["half"] == Rates(pytest.approx(0.1), pytest.approx(0.2))


def test_a_row_leaves_out_what_a_system_does_not_have():
    row = Row("a", "ours", "17", 0.9, None, {"no NG image": Rates(0.125, 0.25)})
    assert row.cells() == ["a", "17", "ours", "0.900", "", "12.5 / 25.0", "18.8", "", "", "", ""]
