import json
import random

import numpy as np
import pytest

from backend.common.roi_key import RoiKey
from backend.scores.drift_statistics import NOT_KNOWN, CalibrationScores, RoiDrift, percentiles_of

KEY = RoiKey("Master1", "Pattern")
THRESHOLD = 0.6
OK = np.random.default_rng(0).normal(0.45, 0.05, 73).tolist()


def starting(known: CalibrationScores, threshold: float = THRESHOLD) -> RoiDrift:
    return RoiDrift.starting(KEY, "a bank and a calibration", threshold, known)


def stored(drift: RoiDrift) -> dict:
    return json.loads(drift.model_dump_json(exclude_none=True))


def test_the_reference_is_told_with_every_digit_of_the_ok_scores():
    drift = RoiDrift.model_validate(stored(starting(CalibrationScores.of(OK, THRESHOLD))))
    below = [score for score in OK if score < THRESHOLD]
    assert drift.reference_summary == tuple(np.percentile(below, (5, 50, 95)))
    assert sum(drift.reference.values()) == len(below)


def test_a_file_of_an_earlier_version_tells_the_reference_within_its_steps():
    old = stored(starting(CalibrationScores.of(OK, THRESHOLD)))
    del old["reference_percentiles"], old["stretch_parts"], old["stretch_rejected"]
    drift = RoiDrift.model_validate(old)
    exact = np.percentile([score for score in OK if score < THRESHOLD], (5, 50, 95))
    assert drift.reference_summary == pytest.approx(tuple(exact), abs=1 / 4096)
    assert drift.reference_summary != tuple(exact)


def test_percentiles_of_counted_scores_are_those_of_numpy():
    for n in (1, 2, 60, 999):
        values = np.round(np.random.default_rng(n).uniform(0, 2, n) * 2048) / 2048
        counted = {int(step): int(n) for step, n in zip(*np.unique(values * 2048, return_counts=True), strict=True)}
        found = percentiles_of(counted, (5, 50, 95))
        assert found == pytest.approx(tuple(np.percentile(values, (5, 50, 95))), abs=1e-12)


def test_no_ok_score_below_the_threshold_gives_no_reference():
    assert CalibrationScores.of([], THRESHOLD) == NOT_KNOWN
    rejected = CalibrationScores.of([0.7, 0.8], THRESHOLD)
    assert (rejected.steps, rejected.rejected, rejected.percentiles) == ({}, 2, None)
    assert starting(rejected).reference_summary is None


def test_the_reason_counts_the_stretch_in_which_parts_were_rejected():
    drift = starting(CalibrationScores.of([0.4] * 60, THRESHOLD))
    drift.add([0.4] * 70, 0.1, random.Random(0))
    drift.add([0.9] * 20, 0.1, random.Random(0))
    assert drift.alarm == "rejects"
    n_rejects = drift.alarm_part - 70
    assert f"more than 16 % of the parts are rejected ({n_rejects} of the {n_rejects} up to the alarm)" in drift.reason(
        0.1
    )
    reason = drift.reason(0.1)
    drift.add([0.4] * 200, 0.1, random.Random(0))
    assert drift.reason(0.1) == reason, "what came later is no part of it"


@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
def test_the_reason_never_claims_more_than_was_rejected(share):
    rng, lots = np.random.default_rng(3), random.Random(3)
    drift = starting(CalibrationScores.of([0.4] * 60, THRESHOLD))
    while drift.alarm is None:
        drift.add([0.9 if rng.random() < share else 0.4], 0.1, lots)
    assert drift.alarm == "rejects"
    assert drift.stretch_rejected / drift.stretch_parts > drift.tolerated(0.1)


def test_alarm_of_an_earlier_version_is_told_without_unknown_numbers():
    drift = starting(CalibrationScores.of([0.4] * 60, THRESHOLD))
    drift.add([0.9] * 20, 0.1, random.Random(0))
    old = stored(drift)
    del old["stretch_parts"], old["stretch_rejected"]
    assert "16 % of the parts are rejected: check lamp" in RoiDrift.model_validate(old).reason(0.1)


def test_recent_scores_stay_on_their_side_of_the_threshold():
    drift = starting(NOT_KNOWN, 0.5512)
    drift.add([0.5511999, 0.5512, 0.1234567], 0.1, random.Random(0))
    assert drift.n_rejected == 1
    assert drift.recent == [0.5511999, 0.5512, 0.123457]
