"""What thresholds from the leave-one-out scores of a fit promise: nearly what those of independent scores do."""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy import stats

from backend.bank.building import build_bank
from backend.calib import ThresholdOptions, calibrate
from tests.service.simulated_parts import N_FRESH, REPETITIONS, SPREAD, TOKEN_HW, parts, scores

FURTHER = [
    (0.1, 12, None, 0),
    (0.1, 40, None, 0),
    (0.5, 40, None, 0),
    (0.1, 40, 0.1, 0),
    (0.5, 40, 0.1, 0),
    (0.5, 40, None, 20),
]


def failures(n, target, n_ng, coreset_rate, *, honest=True, repetitions=REPETITIONS):
    """How often the bound of false rejects failed, as a count."""
    rng = np.random.default_rng([n, n_ng, int(10 * coreset_rate)])
    failed = 0
    for _ in range(repetitions):
        embeddings = parts(rng, n)
        bank = build_bank(
            embeddings, list(map(str, range(n))), TOKEN_HW, coreset_rate, None, nullcontext, lambda *_: None
        )
        fresh = scores(bank.memory.distances(parts(rng, N_FRESH)))
        calibration = calibrate(
            scores(bank.held_out.distances if honest else bank.memory.distances(embeddings)).tolist(),
            scores(bank.memory.distances(parts(rng, n_ng, 2 * SPREAD))).tolist() if n_ng else [],
            mm_per_px=1,
            area_mm2_thr=1,
            score_percentile=99,
            memory_id=None,
            options=ThresholdOptions(target_false_reject_rate=target),
            ok_are_fresh=True,
        )
        failed += np.mean(fresh >= calibration.threshold) > calibration.promise.false_reject_rate_at_most
    return failed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coreset_rate", "n", "target", "n_ng"),
    [
        (0.5, 12, None, 0),
        (0.1, 40, None, 20),
        *(pytest.param(*case, marks=pytest.mark.long) for case in FURTHER),
    ],
)
def test_bound_of_leave_one_out_scores_holds_as_that_of_independent_ones(coreset_rate, n, target, n_ng):
    """The bound fails about as often as stated, though leave-one-out scores are not independent."""
    most = stats.binom.ppf(0.9999, REPETITIONS, 0.05)  # 5 %, and the chance of the trials
    assert failures(n, target, n_ng, coreset_rate) <= most


@pytest.mark.slow
def test_bound_of_scores_by_the_parts_own_bank_fails_nearly_always():
    """Scores of parts by a bank that holds these parts are too low for a bound that holds."""
    assert failures(40, 0.1, 0, 0.5, honest=False, repetitions=50) > 40
