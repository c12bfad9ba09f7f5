"""Calibrations on images that look nearly the same as those of the fit: a JPEG of one, another frame of its part."""

import cv2
import pytest

from backend.disk.datasets import NewSample
from backend.disk.score_cache import ScoreCache
from backend.service import stored_scores
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored, fit_stored
from backend.service.fit import fit
from backend.utils import NamedImage
from tests.factories import KEY, service_with, smooth_parts

IF_FRESH = "if the scores are ok_scores of the fit or of parts that were not in the fit"


@pytest.fixture(scope="module")
def parts():
    return smooth_parts(6)


@pytest.fixture
def service(small_features, tmp_path):
    return service_with(small_features, tmp_path, min_ok_samples=2)


def encoded(part, extension=".png"):
    return cv2.imencode(extension, part, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def store(service, label, name, content):
    suffix = "." + name.rpartition(".")[2]
    service.datasets.add(KEY, label, [NewSample(lambda: content, suffix, {"filename": name})])


def fit_on(service, parts, *jpegs, **options):
    images = [NamedImage(f"{n}.png", lambda part=part: encoded(part)) for n, part in enumerate(parts)]
    images += [NamedImage(f"{n}.jpg", lambda n=n: encoded(parts[n], ".jpg")) for n in jpegs]
    return fit(service, KEY, images, mm_per_px=0.2, **options)


def calibrate(service):
    return calibrate_stored(service, KEY, CalibrationOptions(), default_mm_per_px=0.2, require_ng=False)


def test_a_near_copy_of_an_image_of_the_fit_is_named_and_doubted(service, parts):
    fit_on(service, parts[:3])
    store(service, "ok", "one.jpg", encoded(parts[1], ".jpg"))
    store(service, "ok", "fresh.png", encoded(parts[4]))
    for turn in ("scored", "kept"):  # the second calibration takes everything from its cache
        done = calibrate(service)
        assert "1 image looks nearly the same as one of the fit (" in done.warning, turn
        assert "(uploaded as one.jpg) and 1.png): if they show the same part" in done.warning, turn
        assert "fresh.png" not in done.warning
        assert IF_FRESH in done.calibration.promise.text, turn


def test_of_a_defective_image_only_the_warning_tells(service, parts):
    fit_on(service, parts[:3])
    store(service, "ok", "fresh.png", encoded(parts[4]))
    store(service, "ng", "two.jpg", encoded(parts[2], ".jpg"))
    done = calibrate(service)
    assert "two.jpg) and 2.png" in done.warning
    assert IF_FRESH not in done.calibration.promise.text


def test_fresh_images_and_those_of_the_fit_are_not_doubted(service, parts):
    fit_on(service, parts[:3])
    for number in (0, 3, 4):
        store(service, "ok", f"{number}.png", encoded(parts[number]))
    done = calibrate(service)
    assert "nearly the same" not in (done.warning or "")
    assert IF_FRESH not in done.calibration.promise.text


def test_a_repeated_calibration_decodes_nothing_again(service, parts, monkeypatch):
    fit_on(service, parts[:3])
    store(service, "ok", "one.jpg", encoded(parts[1], ".jpg"))
    store(service, "ok", "fresh.png", encoded(parts[4]))
    first = calibrate(service)
    monkeypatch.setattr(type(service), "decode", None)
    monkeypatch.setattr(stored_scores, "judge_pixels", None)
    again = calibrate(service)
    assert again.failed == []
    assert (again.warning, again.calibration) == (first.warning, first.calibration)


def test_scores_that_an_earlier_version_kept_are_compared_once(service, parts, monkeypatch):
    fit_on(service, parts[:3])
    store(service, "ok", "one.jpg", encoded(parts[1], ".jpg"))
    with monkeypatch.context() as earlier:
        earlier.setattr(ScoreCache, "put_original", lambda *_: None)
        first = calibrate(service)
    monkeypatch.setattr(stored_scores, "judge_pixels", None)
    assert calibrate(service).warning == first.warning


def test_a_bank_without_miniatures_is_calibrated_as_before(service, parts, monkeypatch):
    fit_on(service, parts[:3])
    store(service, "ok", "one.jpg", encoded(parts[1], ".jpg"))
    monkeypatch.setattr(type(service.store), "miniatures", lambda *_: {})
    assert "nearly the same" not in (calibrate(service).warning or "")


def test_the_fit_on_stored_images_names_them_by_what_they_came_as(service, parts):
    for number in (0, 1, 2):
        store(service, "ok", f"part{number}.png", encoded(parts[number]))
    fit_stored(service, KEY, mm_per_px=0.2, keep_all=False)
    store(service, "ok", "one.jpg", encoded(parts[1], ".jpg"))
    assert "(uploaded as part1.png))" in calibrate(service).warning


def test_near_copies_within_the_fit_are_named_where_they_are_counted(service, parts):
    fit_on(service, parts[:3], 1)
    store(service, "ok", "fresh.png", encoded(parts[4]))
    assert "nearly the same" not in (calibrate(service).warning or ""), "none of them is counted"
    store(service, "ok", "1.png", encoded(parts[1]))
    assert "(1.png and 1.jpg)" in calibrate(service).warning, "one of them is"
    store(service, "ok", "1.jpg", encoded(parts[1], ".jpg"))
    done = calibrate(service)
    assert "1 pair of images of the fit looks nearly the same (1.png and 1.jpg): if they show" in done.warning
    assert "one of the fit" not in done.warning
    assert IF_FRESH in done.calibration.promise.text


def test_grouped_near_copies_within_the_fit_are_not_doubted(service, parts):
    fit_on(service, parts[:3], 1, group_copies=True)
    store(service, "ok", "1.png", encoded(parts[1]))
    store(service, "ok", "1.jpg", encoded(parts[1], ".jpg"))
    done = calibrate(service)
    assert done.calibration.n_ok == 1
    assert "nearly the same" not in (done.warning or "")
    assert IF_FRESH not in done.calibration.promise.text
