"""Calibrations that can hardly be meant are stored, and the reply says what they do."""

import pytest

from backend.calib import ThresholdOptions
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.region_calibration import RegionScores, calibrate_by_regions
from backend.service.datasets import calibrate_stored
from backend.service.doubts import about_calibration
from backend.service.fit import fit
from backend.service.image_calibration import CalibrationOptions
from tests.factories import IN_RECIPE, encoded, image_named, service_with, smooth_parts
from tests.service.stored import store

SCORES = [0.4, 0.5, 0.6]
REGIONS = [0.5, 0.6, 0.7]


def doubt(decide_by, pixel_threshold, threshold=None):
    calibration = calibrate_by_regions(
        SCORES,
        [],
        RegionScores(decide_by, REGIONS, [], pixel_threshold),
        options=ThresholdOptions(threshold=threshold),
        ok_are_fresh=True,
        mm_per_px=0.2,
        area_mm2_thr=1,
        score_percentile=99,
        memory_id=None,
    )
    return about_calibration(RoiKey("a", "b"), calibration, None, Settings(), sent_area=True).partition("; ")[0]


@pytest.mark.parametrize(("pixel_threshold", "n_rejected"), [(0, 3), (0.55, 2), (0.65, None), (0.9, None)])
def test_a_pixel_threshold_that_rejects_most_ok_images_is_told(pixel_threshold, n_rejected):
    told = doubt("region", pixel_threshold)
    expected = f"{n_rejected} of 3 OK images are rejected at the pixel threshold {pixel_threshold:.4g}: "
    assert told.startswith(expected) == (n_rejected is not None)


def test_both_thresholds_are_named_where_either_rejects():
    told = doubt("either", 0.9, 0.45)
    assert told.startswith("2 of 3 OK images are rejected at the pixel threshold 0.9 and the threshold 0.45: ")


@pytest.mark.slow
def test_an_ng_image_that_is_in_the_bank_as_good_is_named(small_features, tmp_path):
    service = service_with(small_features, tmp_path, min_ok_samples=2)
    parts = [encoded(picture) for picture in smooth_parts(5)]
    images = [image_named(f"{number}.png", picture) for number, picture in enumerate(smooth_parts(4))]
    fit(service, IN_RECIPE, images, mm_per_px=0.2, shapes=[None] * 4)
    store(service, "ok", parts[:3])
    store(service, "ng", parts[4:])

    def warning():
        return (
            calibrate_stored(service, IN_RECIPE, CalibrationOptions(), default_mm_per_px=0.2, require_ng=True).warning
            or ""
        )

    assert "in the memory bank as good" not in warning()
    store(service, "ng", parts[3:4])
    assert "1 NG image is in the memory bank as good (" in warning()
