"""A fit that is too large to score all of its images: a random sample is scored, and stands for all."""

import cv2
import numpy as np
import pytest

from backend.bank import block_bank, building, leave_one_out_sample
from backend.bank.images import recorded_images
from backend.common.config import Settings
from backend.common.errors import InvalidRequest
from backend.common.profiles import RECOMMENDED_PERCENTILE
from backend.infer import image_scores
from backend.roi_mask import Circle
from backend.service import stored_scores
from backend.service.bank_report import bank_report
from backend.service.datasets import calibrate_stored, fit_stored
from backend.service.fit import fit
from backend.service.image_calibration import CalibrationOptions
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import IN_RECIPE, KEY, encoded, image_named, service_with, smooth_parts
from tests.service.stored import store

N, N_SAMPLED = 8, 4


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


@pytest.fixture
def service(features, tmp_path):
    return service_with(features, tmp_path, min_ok_samples=2)


@pytest.fixture(scope="module")
def images():
    return smooth_parts(N)


@pytest.fixture(scope="module")
def named(images):
    return [image_named(f"{number}.png", image) for number, image in enumerate(images)]


@pytest.fixture
def too_large(monkeypatch):
    """Every fit is too large, and four images are scored."""
    monkeypatch.setattr(building, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(block_bank, "MOST_PRODUCTS", 1)
    monkeypatch.setattr(leave_one_out_sample, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", N_SAMPLED)


def calibrate(service, **more):
    return calibrate_stored(service, IN_RECIPE, CalibrationOptions(**more), default_mm_per_px=0.2, require_ng=False)


@pytest.mark.slow
def test_a_sample_scores_what_its_images_score_in_a_fit_of_all(service, named, tmp_path, features, request):
    every = fit(service_with(features, tmp_path / "all"), KEY, named, mm_per_px=0.2)
    request.getfixturevalue("too_large")
    large = fit(service, KEY, named, mm_per_px=0.2)
    assert large.ok_scores is None
    assert len(large.ok_scores_sample) == N_SAMPLED
    for image in large.ok_scores_sample:
        assert image.filename == f"{image.index}.png"
        assert image.score == pytest.approx(every.ok_scores[image.index], abs=2e-3), "its radius is a bound"
    assert "a random sample of 4 of the 8 images was scored (ok_scores_sample)" in large.unscored
    assert (large.n_embeddings, large.coreset_size) == (every.n_embeddings, every.coreset_size)


def test_the_memory_says_which_images_are_in_the_sample(service, named, too_large):
    large = fit(service, KEY, named, mm_per_px=0.2)
    images = recorded_images(service.fitted(KEY).metadata)
    sampled = [number for number, image in enumerate(images) if image.sampled]
    assert sampled == [image.index for image in large.ok_scores_sample]
    assert all((image.sampled is True) == bool(image.scores) == (image.n_unique is not None) for image in images)
    assert [entry.image.score(99) is not None for entry in bank_report(service, KEY).entries] == [
        image.sampled for image in images
    ]


def test_a_fit_that_scores_all_images_says_nothing_of_a_sample(service, named):
    result = fit(service, KEY, named, mm_per_px=0.2)
    assert (len(result.ok_scores), result.ok_scores_sample, result.unscored) == (N, None, None)
    assert not any("sampled" in image for image in service.fitted(KEY).metadata["images"])


@pytest.fixture
def of_blocks(features, block_features, tmp_path):
    """A service that has the recommended profile, too."""
    settings = Settings(models_dir=tmp_path, min_ok_samples=2)
    return InspectionService(settings, features, ModelStore(tmp_path), recommended=block_features)


@pytest.mark.slow
def test_the_recommended_profile_scores_a_sample_and_keeps_its_maps(of_blocks, named, too_large):
    large = fit(of_blocks, KEY, named, mm_per_px=0.2, profile="recommended")
    assert len(large.ok_scores_sample) == N_SAMPLED
    fitted = of_blocks.fitted(KEY)
    maps = of_blocks.store.honest_maps(fitted)
    assert list(maps) == [image.index for image in large.ok_scores_sample]
    for image in large.ok_scores_sample:
        score = image_scores(maps[image.index], (96, 96), None, 1.0, [RECOMMENDED_PERCENTILE])[0]
        assert image.score == pytest.approx(score, abs=1e-6)


@pytest.mark.slow
def test_decisions_by_regions_rest_on_the_sample_too(of_blocks, images, too_large):
    store(of_blocks, "ok", [encoded(image) for image in images])
    fit_stored(of_blocks, IN_RECIPE, mm_per_px=0.2, keep_all=False, profile="recommended")
    done = calibrate(of_blocks, decide_by="region", area_mm2_thr=1.0)
    assert done.calibration.n_ok == N_SAMPLED
    assert "4 images of the fit do not count" in done.warning


@pytest.mark.slow
def test_a_suspicious_image_of_the_sample_is_named(service, images, too_large, monkeypatch):
    monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", N - 1)
    alike = [cv2.convertScaleAbs(images[0], alpha=1 + number / 50) for number in range(N)]
    drawn = set(leave_one_out_sample.choose_sample(np.arange(N), 64, 16).tolist())
    number = min(drawn)
    cv2.circle(alike[number], (48, 48), 20, (0, 0, 255), cv2.FILLED)
    result = fit(service, KEY, [image_named(f"{n}.png", image) for n, image in enumerate(alike)], mm_per_px=0.2)
    assert [image.filename for image in result.suspicious] == [f"{number}.png"]


def test_images_that_are_sent_again_have_the_scores_that_are_known(service, named, too_large):
    large = fit(service, KEY, named, mm_per_px=0.2)
    again = fit(service, KEY, named, mm_per_px=0.2, append=True)
    assert again.ok_scores is None
    assert again.ok_scores_sample == large.ok_scores_sample
    assert "4 of 8 images are from an earlier fit" in again.unscored
    assert again.unscored.endswith("ok_scores_sample has the scores that are known")


def test_a_small_append_to_a_large_fit_scores_all_that_it_adds(service, named, too_large, monkeypatch):
    fit(service, KEY, named[:6], mm_per_px=0.2)
    monkeypatch.setattr(building, "MOST_PRODUCTS", 10**10)
    added = fit(service, KEY, named[6:], mm_per_px=0.2, append=True)
    assert len(added.ok_scores) == 2
    sampled = [image.sampled for image in recorded_images(service.fitted(KEY).metadata)]
    assert (sampled.count(True), sampled.count(False), sampled[6:]) == (4, 2, [None] * 2)


@pytest.mark.slow
def test_a_calibration_takes_the_sample_for_all_images_of_the_fit(service, images, too_large, monkeypatch):
    store(service, "ok", [encoded(image) for image in images])
    large = fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    monkeypatch.setattr(stored_scores, "judge_pixels", lambda *_a, **_k: pytest.fail("an image was inferred"))
    done = calibrate(service)
    scores = [image.score for image in large.ok_scores_sample]
    assert done.calibration.n_ok == N_SAMPLED
    assert done.calibration.threshold == float(np.percentile(scores, 99))
    assert (
        "4 images of the fit do not count: a random sample of 4 of the 8 images of the fit was scored by the memory "
        "bank of the "
        "others, and represents all"
    ) in done.warning
    assert "lower than those of new parts" not in done.warning
    assert "if the scores" not in done.calibration.promise.text


@pytest.mark.slow
def test_images_that_were_not_in_a_large_fit_count_beside_its_sample(service, images, too_large):
    store(service, "ok", [encoded(image) for image in images[:6]])
    fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    store(service, "ok", [encoded(image) for image in images[6:]])
    done = calibrate(service)
    assert done.calibration.n_ok == N_SAMPLED + 2
    assert "2 images of the fit do not count" in done.warning


@pytest.mark.slow
def test_a_calibration_without_an_image_of_the_sample_is_refused(service, images, too_large):
    fitted = fit(service, IN_RECIPE, [image_named(f"{n}.png", i) for n, i in enumerate(images)], mm_per_px=0.2)
    sampled = {image.index for image in fitted.ok_scores_sample}
    store(service, "ok", [encoded(image) for number, image in enumerate(images) if number not in sampled])
    with pytest.raises(
        InvalidRequest, match="4 images of the fit do not count: a random sample of 4 of the 8 images of the fit"
    ):
        calibrate(service)
    assert service.fitted(IN_RECIPE).calibration is None


@pytest.mark.slow
def test_within_another_mask_the_bank_itself_scores_and_the_reply_warns(service, images, too_large):
    """No score of the sample can be used then, so that it stands for nothing."""
    fit(service, IN_RECIPE, [image_named(f"{n}.png", i) for n, i in enumerate(images)], mm_per_px=0.2)
    circle = Circle(kind="circle", cx=48, cy=48, r=30).model_dump_json()
    store(service, "ok", [encoded(image) for image in images], shape_json=circle)
    done = calibrate(service)
    assert done.calibration.n_ok == N
    assert "lower than those of new parts" in done.warning
    assert "do not count" not in done.warning
