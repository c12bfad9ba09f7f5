"""``calibrate --decide-by`` and what ``infer`` then records."""

import csv
import json

import pytest

from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.commands.parts import CIRCLE, ROI, records

pytestmark = pytest.mark.slow
REGIONS = ("--decide-by", "region", "--area-mm2-thr", "1")


@pytest.fixture
def fitted(run, features, block_features, monkeypatch):
    """A bank of the recommended profile of three of the four parts."""

    def opened(settings):
        return InspectionService(settings, features, ModelStore(settings.models_dir), recommended=block_features)

    monkeypatch.setattr(InspectionService, "open", opened)
    assert run("fit", *ROI, "parts/1.png", "parts/2.jpg", "parts/a/1.png", "--profile", "recommended")[0] == 0
    return run


def calibration(outcome):
    status, out, err = outcome
    assert status == 0, err
    return json.loads(out)


@pytest.mark.parametrize("shape", [(), ("--shape", CIRCLE)], ids=["whole", "masked"])
def test_the_images_of_the_fit_calibrate_their_regions(fitted, shape):
    """Within any mask, as their maps are kept; with a fresh image beside them, too."""
    found = calibration(fitted("calibrate", *ROI, *REGIONS, *shape))
    assert (found["decide_by"], found["n_ok"]) == ("region", 3)
    assert "false_reject_rate_at_most" in found["promise"]
    more = calibration(fitted("calibrate", *ROI, *REGIONS, *shape, "--ok", "parts"))
    assert more["n_ok"] == 4
    assert more["pixel_threshold"] == pytest.approx(found["pixel_threshold"], abs=0.01)


def test_infer_records_what_decided_and_why(fitted, work):
    found = calibration(fitted("calibrate", *ROI, *REGIONS, "--pixel-threshold", "0.1"))
    status, out, _ = fitted("infer", *ROI, "parts/a/10.bmp")
    (record,) = records(out)
    assert (status, record["decision"]) == (0, "ng")
    assert (record["decide_by"], record["pixel_threshold"]) == ("region", found["pixel_threshold"])
    assert "reaches the pixel threshold 0.10" in record["why"]
    assert fitted("infer", *ROI, "parts", "--out", "out.csv")[0] == 0
    with (work / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["decide_by"] for row in rows] == ["region"] * 4
    assert all(row["why"] for row in rows)


def test_a_bank_without_maps_needs_images_that_it_has_not_seen(run):
    status, _, err = run("calibrate", *ROI, *REGIONS)
    assert status == 2
    assert "keeps no distance maps of its images by the others; only those of profile=recommended do" in err
    assert calibration(run("calibrate", *ROI, *REGIONS, "--ok", "parts"))["n_ok"] == 4


def test_an_image_of_a_fit_without_maps_is_refused_before_the_network(run):
    assert run("fit", *ROI, "parts/1.png", "parts/2.jpg")[0] == 0
    status, _, err = run("calibrate", *ROI, *REGIONS, "--ok", "parts")
    assert status == 2
    assert "1.png was in the fit, but the memory bank keeps no distance map of it by the bank of the others" in err


def test_scores_of_a_file_know_no_regions(run):
    status, _, err = run("calibrate", *ROI, *REGIONS, "--ok", "parts", "--scores", "scores.csv")
    assert status == 2
    assert "--decide-by region cannot be given with --scores" in err
