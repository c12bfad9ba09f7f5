"""Sentences about feedback give numbers that differ with digits that show it."""

import re

import pytest

from backend.calib import Calibration, ThresholdOptions
from backend.disk.calibration_inputs import CalibrationInputs, ScoredImage
from backend.service.consequences import Known, about_catching, about_new_escapes, about_threshold, told_apart


def known(threshold):
    inputs = CalibrationInputs((ScoredImage(0.5),), (ScoredImage(0.985703, "bad.png"),), ThresholdOptions())
    return Known.of(Calibration(threshold), inputs)


def test_an_escape_just_below_the_threshold_looks_lower():
    before, after = known(0.84), known(0.985711)
    assert about_threshold(before, after).startswith("The threshold changes from 0.84 to 0.98571: ")
    assert about_threshold(before, after).endswith("1 of 1 defective images escape (before: 0 of 1): bad.png (0.9857).")
    assert "rises from 0.84 to 0.98571, and" in about_new_escapes(before, after)


def test_a_threshold_that_moves_a_little_is_seen_to_move():
    told = about_threshold(known(0.84), known(0.8400001))
    assert told.startswith("The threshold changes from 0.84 to 0.8400001: ")


def test_equal_numbers_look_equal_and_all_others_do_not():
    assert told_apart(0.1 + 0.2, 0.3) != told_apart(0.3, 0.1 + 0.2)
    assert told_apart(0.3, 0.3) == "0.3"
    assert told_apart(0.61234, 0.5) == "0.6123"


@pytest.mark.parametrize(("score", "good", "expected"), [(0.69238, 0.5, "0.6923"), (0.692389, 0.69235, "0.69238")])
def test_the_threshold_that_is_named_catches_and_rejects_no_good_image(score, good, expected):
    told = Known(0.8, [good], 1, [], [])
    (named,) = re.findall(r"A threshold of (\S+) catches it", about_catching(score, told))
    assert named == expected
    assert good < float(named) <= score
