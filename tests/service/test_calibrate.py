"""Calibrating from scores: of which memory bank and of which blur they must be."""

import pytest

from backend.common.config import Settings
from backend.common.errors import Conflict
from backend.common.roi_key import RoiKey
from backend.service.calibrate import calibrate
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from tests.factories import KEY, memory_id, service_with, write_calibration


@pytest.mark.slow
def test_scores_of_another_memory_bank_never_become_a_threshold(features, named, tmp_path):
    """A client that names the bank which scored is refused if the ROI was fitted anew or never fitted."""
    service = service_with(features, tmp_path)
    scored_by = fit(service, KEY, named[:1], mm_per_px=1).memory_id
    score = infer(service, KEY, named[2], Scoring(1))
    assert score.fitted.memory_id == scored_by

    fitted_anew = fit(service, KEY, named[:2], mm_per_px=1).memory_id
    assert fitted_anew != scored_by
    with pytest.raises(Conflict, match="fitted anew since it was scored"):
        calibrate(service, KEY, [score.inference.score], [], mm_per_px=1, memory_id=scored_by)
    assert service.state(KEY).fitted.calibration_state == "none"

    calibrate(service, KEY, [0.5], [], mm_per_px=1, memory_id=fitted_anew)
    assert service.state(KEY).fitted.calibration_state == "applied"
    never_fitted = RoiKey("Master1", "Other")
    with pytest.raises(Conflict):
        calibrate(service, never_fitted, [0.5], [], mm_per_px=1, memory_id=fitted_anew)


@pytest.mark.slow
def test_a_threshold_of_scores_of_another_blur_is_not_applied(features, named, tmp_path):
    def service(sigma):
        return InspectionService(
            Settings(models_dir=tmp_path, blur_sigma=sigma), features, ModelStore(tmp_path, blur_sigma=sigma)
        )

    fit(service(1), KEY, named[:1], mm_per_px=1)
    calibrate(service(1), KEY, [0.5], [], mm_per_px=1)
    states = [infer(service(sigma), KEY, named[1], Scoring(1)).calibration_state for sigma in (1, 3, 1)]
    assert states == ["applied", "stale", "applied"]
    assert [service(sigma).store.count_stale() for sigma in (1, 3)] == [0, 1]

    write_calibration(tmp_path, threshold=0.5, memory_id=memory_id(tmp_path))  # of a version that recorded no blur
    assert service(3).state(KEY).fitted.calibration_state == "applied"
