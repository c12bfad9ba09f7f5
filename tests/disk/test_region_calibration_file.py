"""The file of a calibration by which regions decide."""

import json

import pytest

from backend.calib import ThresholdOptions
from backend.common.errors import StorageError
from backend.region_calibration import RegionScores, calibrate_by_regions
from backend.storage import ModelStore
from tests.factories import KEY, load, write_calibration

OK = [0.30, 0.31, 0.32, 0.33, 0.34, 0.35, 0.9]
REGIONS = [0.5, 0.51, 0.52, 0.53, 0.9, 0.55, 0.56]


@pytest.fixture
def calibration(fitted_folder, tmp_path):
    made = calibrate_by_regions(
        OK,
        [0.5, 0.6],
        RegionScores("either", REGIONS, [0.54, 0.8]),
        mm_per_px=0.2,
        area_mm2_thr=4.0,
        score_percentile=99.5,
        memory_id=load(tmp_path).memory_id,
        blur_sigma=1.0,
        options=ThresholdOptions(rule="recommended"),
    )
    ModelStore(tmp_path).save_calibration(KEY, made)
    return made


def stored(tmp_path):
    return json.loads((tmp_path / "Master1" / "Pattern" / "calib.json").read_text(encoding="utf-8"))


def test_it_reads_back(calibration, tmp_path):
    assert (calibration.unusual, calibration.pixel_unusual) == ((6,), (4,))
    found = load(tmp_path)
    assert found.calibration == calibration
    assert found.calibration.promise == calibration.promise
    assert found.calibration_state == "applied"


def test_versions_that_know_no_regions_find_no_threshold_in_it(calibration, tmp_path):
    """They log that there is none and decide nothing, instead of deciding by the score alone."""
    values = stored(tmp_path)
    assert "threshold" not in values
    assert values["score_threshold"] == calibration.threshold
    assert values["decide_by"] == "either"


@pytest.mark.usefixtures("calibration")
@pytest.mark.parametrize(
    "change",
    [{"pixel_threshold": None}, {"score_threshold": "0.5"}, {"area_mm2_thr": -1}, {"decide_by": "moon"}],
    ids=["no pixel threshold", "a text", "no area", "unknown"],
)
def test_what_does_not_say_how_regions_decide_is_refused(tmp_path, change):
    write_calibration(tmp_path, **{**stored(tmp_path), **change})
    with pytest.raises(StorageError, match=r"calib\.json says that regions decide, but not how"):
        load(tmp_path)


@pytest.mark.usefixtures("calibration")
def test_a_threshold_beside_it_changes_nothing(calibration, tmp_path):
    write_calibration(tmp_path, **stored(tmp_path), threshold=0.01)
    assert load(tmp_path).calibration == calibration
