"""Scores of a calibration that no inference gives."""

import numpy as np
import pytest

from backend.patchcore import l2_normalize
from backend.service.doubts import MOST_DISTANCE, about_scores


def test_no_two_embeddings_are_farther_apart_than_is_said():
    rows = l2_normalize(np.random.default_rng(0).normal(size=(40, 384)).astype(np.float32))
    both = np.concatenate([rows, -rows]).astype(np.float64)
    distances = np.linalg.norm(both[:, None] - both, axis=-1)
    assert distances.max() == pytest.approx(MOST_DISTANCE, abs=1e-5)


@pytest.mark.parametrize(("ok", "ng"), [([0, 0.4, 2], []), ([0.4], [2.0, 0.0])])
def test_scores_that_an_inference_can_give_are_not_doubted(ok, ng):
    assert about_scores(ok, ng) is None


@pytest.mark.parametrize(
    ("ok", "ng", "counted"),
    [
        ([90, 97.5, 0.4], [], "2 of 3 ok_scores (90 to 97.5) are"),
        ([0.4, -0.1], [0.7], "1 of 2 ok_scores (-0.1) are"),
        ([0.4], [20, 20], "2 of 2 ng_scores (20) are"),
        ([2.1], [3, 4], "1 of 1 ok_scores (2.1) and 2 of 2 ng_scores (3 to 4) are"),
    ],
)
def test_others_are_counted_with_their_range(ok, ng, counted):
    assert about_scores(ok, ng) == f"{counted} not from 0 to 2, the range of /infer: send scores of /infer"
