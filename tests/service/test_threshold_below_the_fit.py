"""A calibration by OK scores of another model: its threshold rejects what the model was fitted on, and it says so."""

import pytest

from backend.bank.images import BankImage, as_metadata, recorded_scores
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory
from backend.service.calibrate import calibrate
from backend.service.doubts import about_calibration, about_threshold
from tests.factories import service_with, unit_rows

KEY = RoiKey("Master1", "Pattern")
SCORES = [0.69, 0.70, 0.72, 0.77]
BLUR = Settings().blur_sigma


def images(scores=SCORES, **members):
    return [
        BankImage(f"{number}.png", f"{number:064}", 96, 96, 1, None, {"99": score}, **members)
        for number, score in enumerate(scores)
    ]


@pytest.fixture
def service(small_features, tmp_path):
    service = service_with(small_features, tmp_path)
    bank = PatchCoreMemory.build(unit_rows(20, 384, 1), small_features.token_hw, 1.0)
    service.store.save_memory(KEY, bank, {"images": as_metadata(images()), "blur_sigma": BLUR})
    return service


def warning_of(service, ok_scores, ng_scores=()):
    calibration = calibrate(service, KEY, ok_scores, list(ng_scores), mm_per_px=0.2)
    return about_calibration(KEY, calibration, service.fitted(KEY), service.settings, sent_area=False)


def test_ok_scores_of_another_model_are_told(service):
    warning = warning_of(service, [0.44, 0.44], [0.72])  # the threshold is half-way
    assert warning.startswith("4 of 4 images of the fit reach the threshold 0.58, because they score 0.69 to 0.77 ")
    assert "send ok_scores of this model" in warning


@pytest.mark.parametrize("ng_scores", [(), (0.9, 1.0)])
def test_ok_scores_of_the_fit_are_not_doubted(service, ng_scores):
    assert warning_of(service, SCORES, ng_scores) is None


def test_overlapping_scores_are_not_doubted_as_those_of_another_model(service):
    assert warning_of(service, SCORES, [0.60, 0.65]) is None, "that they overlap is said already"


@pytest.mark.parametrize(("threshold", "is_told"), [(0.68, True), (0.70, True), (0.71, False), (0.9, False)])
def test_a_threshold_that_most_images_of_the_fit_reach_is_told(threshold, is_told):
    assert (about_threshold(threshold, SCORES) is not None) == is_told


def test_scores_of_other_conditions_and_damaged_ones_tell_nothing():
    metadata = {"images": as_metadata(images()), "blur_sigma": 1.0}
    assert recorded_scores(metadata, 99, 1.0) == recorded_scores(metadata, 99.0, 1.0) == SCORES
    assert recorded_scores(metadata, 98, 1.0) == []
    assert recorded_scores(metadata, None, 1.0) == []
    assert recorded_scores(metadata, 99, 0.0) == []
    for damaged in (None, "x", [1], [{}], [{"scores": 1}], [{"scores": {"99": "high"}}]):
        assert recorded_scores({"images": damaged, "blur_sigma": 1.0}, 99, 1.0) == []


def test_copies_count_as_one_image_of_the_fit():
    same = images([0.7, 0.7], pixels_sha256="a" * 64)
    assert recorded_scores({"images": as_metadata(same), "blur_sigma": 1.0}, 99, 1.0) == [0.7]
