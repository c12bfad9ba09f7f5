"""Scores that stand out."""

import numpy as np

from backend.scores.outliers import outliers


def test_outliers_are_those_far_above_the_others():
    scores = np.random.default_rng(0).normal(0.5, 0.02, 40)
    assert outliers(scores) == []
    assert outliers([*scores, 0.7]) == [40]
    assert outliers([*scores, 0.3]) == []  # far below is no defect
    assert outliers([0.5, 0.5, 0.9, 0.5]) == []  # too few to tell
    assert outliers([0.5, 0.5, 0.9, 0.5, 0.5]) == [2]


def test_scores_that_hardly_differ_are_no_outliers():
    assert outliers([0.5, 0.5, 0.5, 0.500001, 0.49]) == []
    assert outliers([0.5, 0.5, 0.5, 0.5, 0.5, 0.54]) == []
