"""Feedback on a model of the recommended profile: the honest score is that of the bank before the image joins."""

import pytest

from backend.bank.images import recorded_images
from backend.common.config import Settings
from backend.service.calibrate import calibrate
from backend.service.feedback import give_feedback
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from tests.factories import KEY, image_named, smooth_parts

pytestmark = pytest.mark.slow


@pytest.fixture
def service(small_features, block_features, tmp_path):
    settings = Settings(models_dir=tmp_path)
    return InspectionService(settings, small_features, ModelStore(tmp_path), recommended=block_features)


def test_the_honest_score_of_the_recommended_profile_is_that_of_infer(service):
    """Both the calibration and the bank keep it; the bank after it gives a lower one."""
    parts = [image_named(f"{number}.png", picture) for number, picture in enumerate(smooth_parts(7))]
    ok = fit(service, KEY, parts[:6], mm_per_px=0.2, profile="recommended").ok_scores
    calibrate(service, KEY, ok, [], mm_per_px=0.2)
    honest = infer(service, KEY, parts[6], Scoring(0.2)).inference.score

    told = give_feedback(service, KEY, parts[6], "good")

    after = service.fitted(KEY)
    assert told.score == service.store.calibration_inputs(after).ok[-1].score == honest
    assert recorded_images(after.metadata)[-1].score(99.5) == pytest.approx(honest, abs=1e-5)
    assert told.score_after == infer(service, KEY, parts[6], Scoring(0.2)).inference.score < honest
    assert (after.profile, after.calibration_state, after.calibration.score_percentile) == (
        "recommended",
        "applied",
        99.5,
    )
