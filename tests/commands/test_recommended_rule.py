"""``calibrate --rule recommended`` and what goes with it, on the command line."""

import json

import pytest

from tests.commands.parts import ROI


@pytest.fixture
def fitted(run):
    assert run("fit", *ROI, "parts", "--any-folder")[0] == 0


def calibration(outcome):
    status, out, err = outcome
    assert status == 0, err
    return json.loads(out)


@pytest.mark.usefixtures("fitted")
def test_a_threshold_by_the_recommended_rule_says_why(run):
    found = calibration(run("calibrate", *ROI, "--rule", "recommended"))
    assert found["rule"] == "recommended"
    assert "of good parts score above" in found["why"]
    assert "rule" not in calibration(run("calibrate", *ROI))


@pytest.mark.usefixtures("fitted")
def test_a_threshold_by_hand_is_marked(run):
    found = calibration(run("calibrate", *ROI, "--threshold", "0.5"))
    assert (found["threshold"], found["rule"]) == (0.5, "manual")


@pytest.mark.usefixtures("fitted")
def test_a_kept_image_that_was_not_scored_is_refused(run):
    status, _, err = run("calibrate", *ROI, "--rule", "recommended", "--keep", "nowhere.png")
    assert status == 2
    assert "keep names 'nowhere.png', but no OK image that was scored has this name" in err
