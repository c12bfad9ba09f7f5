"""What can hardly be meant is said on stderr by the commands, and done all the same."""

import json

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

ROI = ("Master1", "Pattern", "--mm-per-px", "0.2")


@pytest.fixture
def run(features, tmp_path, monkeypatch, command_line):
    """Commands in a folder with images of 200 × 200 pixels in good/, and others of 500 × 500 in large/."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for folder, side in (("good", 200), ("large", 500)):
        (tmp_path / folder).mkdir()
        for seed in range(2):
            pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{seed}.png"), pixels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        InspectionService,
        "open",
        lambda settings: InspectionService(settings, features, ModelStore(settings.models_dir)),
    )
    return command_line


def warnings(err):
    return [line.removeprefix("warning: ") for line in err.splitlines() if line.startswith("warning: ")]


def test_commands_without_peculiarities_warn_of_nothing(run):
    for command in (("fit", *ROI, "good"), ("infer", *ROI, "good")):
        status, _, err = run(*command)
        assert (status, warnings(err)) == (0, [])


def test_a_fit_of_one_image_says_why_it_has_no_scores(run):
    status, out, err = run("fit", *ROI, "good/0.png")
    assert status == 0
    (warning,) = warnings(err)
    assert warning.startswith("no ok_scores: 1 image has no others")
    assert json.loads(out)["warning"] == warning


def test_a_calibration_says_what_it_doubts_on_stderr_and_in_its_result(run):
    assert run("fit", *ROI, "good")[0] == 0
    status, out, err = run("calibrate", *ROI, "--ok", "good", "--score-percentile", "0.99", "--area-mm2-thr", "2000")
    assert status == 0
    (warning,) = warnings(err)
    assert "score_percentile 0.99 is read as percent" in warning
    assert "area_mm2_thr 2000 mm² is larger than the whole ROI, 1600 mm² (200 × 200 pixels of 0.2 mm)" in warning
    assert json.loads(out)["warning"] == warning


def test_an_inference_says_once_what_is_so_for_many_images(run):
    assert run("fit", *ROI, "good")[0] == 0
    status, out, err = run("infer", *ROI, "large")
    assert (status, len(out.splitlines())) == (0, 2)
    (warning,) = warnings(err)
    assert warning.startswith("large/0.png: the image has 500 × 500 pixels, but those of the fit have 200 × 200")


def test_commands_name_misspelt_settings(run, monkeypatch):
    monkeypatch.setenv("SCORE_PERCENTIL", "98")
    _, _, err = run("fit", *ROI, "good")
    assert "setting.unknown" in err
    assert "name=SCORE_PERCENTIL " in err
