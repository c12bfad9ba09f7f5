"""Feedback on an image that counts already: it keeps its score, and the reply says where that is not what it scores."""

import cv2
import pytest

from backend.roi_mask import Circle
from backend.service.calibrate import calibrate
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored
from backend.service.feedback import give_feedback
from backend.service.fit import fit
from tests.factories import IN_RECIPE, KEY, encoded, image_named, smooth_parts
from tests.service.stored import store

WITHIN = Circle(kind="circle", cx=48, cy=48, r=20)


@pytest.fixture(scope="module")
def features(small_features):
    return small_features


@pytest.fixture(scope="module")
def pictures():
    """Parts that differ a little, uint8 [96, 96, 3]."""
    first = smooth_parts(1)[0]
    return [cv2.addWeighted(first, 0.8, other, 0.2, 0) for other in smooth_parts(8)]


def counted(service, key, label):
    inputs = service.store.calibration_inputs(service.fitted(key))
    return [image.score for image in getattr(inputs, label)]


def test_a_bad_image_with_another_mask_keeps_its_score_and_says_so(service, pictures):
    images = [image_named(f"{number}.png", picture) for number, picture in enumerate(pictures)]
    scores = fit(service, KEY, images[:6], mm_per_px=0.2).ok_scores
    calibrate(service, KEY, scores, [], mm_per_px=0.2)
    first = give_feedback(service, KEY, images[7], "bad")
    again = give_feedback(service, KEY, images[7], "bad")
    within = give_feedback(service, KEY, images[7], "bad", shape=WITHIN)
    assert abs(within.score - first.score) > 1e-3
    assert counted(service, KEY, "ng") == [first.score]
    assert "still counts" not in again.warning
    assert f"still counts with its earlier score {first.score:.4g}, not with {within.score:.4g}" in within.warning


def test_a_good_image_with_another_mask_keeps_its_score_and_says_so(service, pictures):
    images = [image_named(f"{number}.png", picture) for number, picture in enumerate(pictures)]
    scores = fit(service, KEY, images[:6], mm_per_px=0.2).ok_scores
    calibrate(service, KEY, scores, [], mm_per_px=0.2)
    first = give_feedback(service, KEY, images[7], "good")
    again = give_feedback(service, KEY, images[7], "good")
    within = give_feedback(service, KEY, images[7], "good", shape=WITHIN)
    assert counted(service, KEY, "ok") == [*scores, first.score]
    assert "another mask" not in again.warning
    assert f"fitted with another mask, and still counts with its score for that mask, {first.score:.4g}" in (
        within.warning
    )


def test_a_held_out_image_that_joins_within_another_mask_says_so(service, pictures):
    contents = [encoded(picture) for picture in pictures]
    images = [image_named(f"{number}.png", picture) for number, picture in enumerate(pictures)]
    fit(service, IN_RECIPE, images[:6], mm_per_px=0.2)
    store(service, "ok", contents[6:])
    calibrate_stored(service, IN_RECIPE, CalibrationOptions(), default_mm_per_px=0.2, require_ng=False)
    held_out = counted(service, IN_RECIPE, "ok")
    same = give_feedback(service, IN_RECIPE, images[7], "good", dry_run=True)
    within = give_feedback(service, IN_RECIPE, images[7], "good", shape=WITHIN)
    assert counted(service, IN_RECIPE, "ok") == held_out
    assert same.score in held_out
    assert "still counts" not in (same.warning or "")
    assert f", not with {within.score:.4g}" in within.warning
