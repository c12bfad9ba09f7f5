"""The commands tell images apart by their pixels, and name images that look nearly the same."""

import json

import cv2
import pytest

from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

pytestmark = pytest.mark.slow

ROI = ("Master1", "Pattern", "--mm-per-px", "0.2")


@pytest.fixture
def run(small_features, images, tmp_path, monkeypatch, command_line):
    """Runs a command in a folder with png/ and bmp/ of the same parts, and jpg/; gives what it printed as JSON."""
    for folder, options in (("png", []), ("bmp", []), ("jpg", [cv2.IMWRITE_JPEG_QUALITY, 90])):
        (tmp_path / folder).mkdir()
        for number, image in enumerate(images[:4]):
            small = cv2.resize(image, (200, 160), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(tmp_path / folder / f"{number}.{folder}"), small, options)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        InspectionService,
        "open",
        lambda settings: InspectionService(settings, small_features, ModelStore(settings.models_dir)),
    )

    def command(*arguments):
        status, out, err = command_line(*arguments)
        assert status == 0, err
        return json.loads(out)

    return command


def test_calibration_on_copies_of_fitted_images_is_that_on_the_images(run):
    honest = run("fit", *ROI, "png", "--all-scores")["ok_scores"]
    on_images = run("calibrate", *ROI, "--ok", "png")
    on_copies = run("calibrate", *ROI, "--ok", "bmp")
    assert on_copies == on_images
    assert on_copies["ok_mean"] == pytest.approx(sum(honest.values()) / 4, abs=1e-9)
    assert run("calibrate", *ROI, "--ok", "png", "bmp")["n_ok"] == 4


def test_calibration_that_goes_on_from_a_file_tells_copies_too(run):
    run("fit", *ROI, "png/0.png", "png/1.png")
    first = run("calibrate", *ROI, "--ok", "bmp", "png/2.png", "--scores", "scores.csv")
    assert first["n_ok"] == 4
    assert run("calibrate", *ROI, "--ok", "bmp", "png/2.png", "--scores", "scores.csv") == first


def test_fit_warns_of_near_copies_until_they_are_sent_once(run):
    assert "warning" not in run("fit", *ROI, "png")
    printed = run("fit", *ROI, "png", "jpg/1.jpg", "--all-scores")
    assert "1 pair of images looks nearly the same (png/1.png and jpg/1.jpg)" in printed["warning"]
    grouped = run("fit", *ROI, "png", "jpg/1.jpg", "--all-scores", "--group-copies")
    assert "count once" in grouped["warning"]
    assert grouped["ok_scores"]["png/1.png"] > printed["ok_scores"]["png/1.png"]
