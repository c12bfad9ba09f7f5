"""What decisions by regions promise from the honest maps of a fit: nearly what independent scores do."""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy import stats

from backend.bank.building import build_bank
from backend.calib import ThresholdOptions
from backend.region_calibration import RegionScores, calibrate_by_regions
from tests.service.simulated_parts import N_FRESH, REPETITIONS, SPREAD, TOKEN_HW, parts, scores

FURTHER = [
    ("either", 12, {}, 0),
    ("region", 40, {"rule": "recommended"}, 0),
    ("either", 40, {"rule": "recommended"}, 0),
    ("region", 40, {"rule": "recommended"}, 10),
    ("region", 40, {"target_false_reject_rate": 0.1}, 0),
    ("either", 40, {"target_false_reject_rate": 0.1}, 0),
]


def region_scores(distances):
    """The level that two of nine patches reach: some share of the part."""
    return np.sort(np.reshape(distances, (-1, 9)), axis=1)[:, -2].astype(np.float32).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decide_by", "n", "options", "n_ng"),
    [
        ("region", 12, {}, 0),
        ("either", 40, {"rule": "recommended"}, 10),
        *(pytest.param(*case, marks=pytest.mark.long) for case in FURTHER),
    ],
)
def test_bound_from_honest_maps_holds_as_that_of_independent_scores(decide_by, n, options, n_ng):
    rng, failed = np.random.default_rng([n, n_ng, len(decide_by)]), 0
    for _ in range(REPETITIONS):
        bank = build_bank(parts(rng, n), list(map(str, range(n))), TOKEN_HW, 0.3, None, nullcontext, lambda *_: None)
        honest = bank.held_out.distances
        fresh = bank.memory.distances(parts(rng, N_FRESH))
        ng = bank.memory.distances(parts(rng, n_ng, 2 * SPREAD)) if n_ng else np.empty((0, 9), np.float32)
        calibration = calibrate_by_regions(
            scores(honest).tolist(),
            scores(ng).tolist() if n_ng else [],
            RegionScores(decide_by, region_scores(honest).tolist(), region_scores(ng).tolist()),
            mm_per_px=1,
            area_mm2_thr=1,
            score_percentile=99,
            memory_id=None,
            options=ThresholdOptions(**options),
            ok_are_fresh=True,
        )
        by_region = region_scores(fresh) >= calibration.pixel_threshold
        rejected = by_region | ((scores(fresh) >= calibration.threshold) & (decide_by == "either"))
        failed += np.mean(rejected) > calibration.promise.false_reject_rate_at_most
    assert failed <= stats.binom.ppf(0.9999, REPETITIONS, 0.05)
