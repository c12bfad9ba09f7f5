"""Planted defects: small, on the part, and the same for the same seed."""

import numpy as np
import pytest

from benchmarks.planted import planted


@pytest.mark.parametrize("seed", range(40))
def test_a_planted_defect_is_small_and_lies_on_the_part(seed):
    image = np.full((200, 240, 3), 250, np.uint8)
    image[60:140, 60:180] = np.random.default_rng(1).integers(90, 110, (80, 120, 3))
    found = planted(image, seed)
    changed = np.argwhere((found != image).any(axis=2))
    assert len(changed) > 0
    height, width = np.ptp(changed, axis=0) + 1
    assert max(height, width) <= 24 + 8, "with its soft edge"
    y, x = changed.mean(axis=0)
    assert 60 - 12 <= y < 140 + 12
    assert 60 - 12 <= x < 180 + 12
    assert np.array_equal(planted(image, seed), found)
