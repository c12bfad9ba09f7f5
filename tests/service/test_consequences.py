"""What is said of known images when a threshold moves: against plain counts."""

import numpy as np

from backend.calib import Calibration, ThresholdOptions
from backend.disk.calibration_inputs import CalibrationInputs, ScoredImage
from backend.service.consequences import (
    Known,
    about_catching,
    about_new_escapes,
    about_threshold,
    about_unlike_others,
    named_images,
)

OK, NG = np.linspace(0.3, 0.6, 30), np.linspace(0.5, 0.9, 12)


def known(threshold, ok=OK, ng=NG, not_good=()):
    inputs = CalibrationInputs(
        tuple(ScoredImage(value) for value in ok),
        tuple(ScoredImage(value, f"{number}.png") for number, value in enumerate(ng)),
        ThresholdOptions(not_good=not_good),
    )
    return Known.of(Calibration(threshold), inputs)


def test_images_are_counted_as_inferences_judge_them():
    """At the threshold an image is rejected; one that is not good counts nowhere."""
    found = known(OK[27], not_good=(28,))
    assert [position for position, _ in found.rejected] == [27, 29]
    assert len(found.good) == 29
    assert [position for position, _ in found.escaped] == list(np.flatnonzero(OK[27] > NG))
    assert found.n_rejected_at(OK[10]) == 19


def test_no_threshold_can_catch_what_scores_below_good_images():
    found = known(0.55)
    assert about_catching(OK[18], found) == "No threshold can catch it without rejecting 12 of 30 good images."
    assert about_catching(0.7, found) == "A threshold of 0.7 catches it and rejects none of 30 good images."


def test_what_a_moved_threshold_means_is_told_before_and_after():
    assert about_threshold(known(0.55), known(0.7)) == (
        "The threshold changes from 0.55 to 0.7: 0 of 30 good images are rejected (before: 5 of 30), and 6 of 12 "
        "defective images escape (before: 2 of 12): 0.png (0.5), 1.png (0.5364), 2.png (0.5727), 3.png (0.6091), 4.png "
        "(0.6455) and 1 more."
    )
    assert about_threshold(known(0.55, ng=()), known(0.55, ng=())) == (
        "The threshold stays at 0.55: 5 of 30 good images are rejected (before: 5 of 30), and no defective image is "
        "known."
    )
    assert "0 of 12 defective images escape (before: none was known)." in about_threshold(known(0.4, ng=()), known(0.4))


def test_only_defects_that_were_rejected_are_called_new_escapes():
    assert about_new_escapes(known(0.55), known(0.58)) == (
        "the threshold rises from 0.55 to 0.58, and 1 defective image that was rejected would escape: 2.png (0.5727)"
    )
    assert about_new_escapes(known(0.58), known(0.55)) is None
    assert about_new_escapes(known(0.55), known(0.56)) is None


def test_an_image_far_above_most_good_ones_is_doubted():
    assert about_unlike_others(0.61, OK) is None
    assert about_unlike_others(1.2, OK).startswith("the image scores 1.2, far above most of the other 30 good images")
    assert about_unlike_others(1.2, OK[:3]) is None, "so few tell nothing"


def test_images_without_a_name_are_named_by_position():
    images = [(3, ScoredImage(0.5)), (4, ScoredImage(0.6, "2026.png", "part7.png"))]
    assert named_images(images, 0.7) == "position 3 (0.5), 2026.png (uploaded as part7.png) (0.6)"
