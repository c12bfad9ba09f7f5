"""Judging an image: which numbers apply, those of the calibration, of the settings or of the request."""

import pytest

from backend.service.fit import fit
from backend.service.judge import infer
from backend.service.scoring import Scoring
from tests.factories import KEY, memory_id, service_with, write_calibration


@pytest.mark.slow
def test_configured_percentile_and_area_apply_where_calibration_has_none(features, named, tmp_path):
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    write_calibration(tmp_path, threshold=0.0, memory_id=memory_id(tmp_path))

    configured = infer(
        service_with(features, tmp_path, score_percentile=50, area_mm2_thr=1e9), KEY, named[1], Scoring(1)
    )
    default = infer(service, KEY, named[1], Scoring(1))
    assert configured.inference.score < default.inference.score, "a median lies below a 99th percentile"
    assert configured.inference.regions == []
    assert default.inference.regions != []

    write_calibration(tmp_path, threshold=0.0, memory_id=memory_id(tmp_path), score_percentile=50, area_mm2_thr=1e9)
    named_there = infer(service, KEY, named[1], Scoring(1))
    assert named_there.inference.score == configured.inference.score
    assert named_there.inference.regions == []


@pytest.mark.slow
def test_requested_percentile_is_not_judged_by_anothers_threshold(features, named, tmp_path):
    """A threshold of percentile 99 gives no decision on a score of percentile 50."""
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    write_calibration(tmp_path, threshold=0.0, memory_id=memory_id(tmp_path), score_percentile=99)
    judged = infer(service, KEY, named[1], Scoring(1))
    asked = infer(service, KEY, named[1], Scoring(1, percentile=50))
    assert (judged.decision, judged.calibration_state) == ("ng", "applied")
    assert (asked.decision, asked.calibration_state, asked.inference.regions) == (None, "none", [])
    assert asked.inference.score < judged.inference.score


@pytest.mark.slow
@pytest.mark.parametrize("values", [{"score_percentile": 150}, {"score_percentile": 0}, {"area_mm2_thr": -1}])
def test_out_of_range_numbers_in_a_stored_calibration_count_as_absent(features, named, tmp_path, values):
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    write_calibration(tmp_path, threshold=0.5, memory_id=memory_id(tmp_path))
    expected = infer(service, KEY, named[1], Scoring(1))
    write_calibration(tmp_path, threshold=0.5, memory_id=memory_id(tmp_path), **values)
    found = infer(service, KEY, named[1], Scoring(1))
    assert found.calibration_state == "applied"
    assert found.inference.score == expected.inference.score
    assert found.inference.regions == expected.inference.regions


@pytest.mark.slow
def test_a_wider_blur_lowers_the_peaks_of_the_map(features, named, tmp_path):
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    maxima = [
        infer(
            service_with(features, tmp_path, score_percentile=100, blur_sigma=sigma), KEY, named[1], Scoring(1)
        ).inference.score
        for sigma in (0, 1, 20)
    ]
    assert maxima == sorted(maxima, reverse=True)
    assert len(set(maxima)) == 3
