"""Decisions by regions through the use cases: fit, calibrate from images, infer."""

import json

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.calib import ThresholdOptions, choose_threshold
from backend.common.config import Settings
from backend.common.errors import Conflict, InvalidRequest
from backend.infer import find_regions, image_scores, region_score, to_image_grid
from backend.roi_mask import build_mask, parse_shape
from backend.service import stored_scores
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored, fit_stored, infer_stored
from backend.service.explain import explain
from backend.service.feedback import give_feedback
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.known_scores import known_scores
from backend.service.pictures import NO_PICTURES, picture_threshold
from backend.service.roll_back import roll_back
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import IN_RECIPE, load, snapshot
from tests.service.stored import CIRCLE, store

AREA = 4.0  # mm², of 0.2 mm pixels: 100 pixels
pytestmark = pytest.mark.slow


@pytest.fixture
def service(small_features, block_features, tmp_path):
    settings = Settings(models_dir=tmp_path, min_ok_samples=2)
    return InspectionService(settings, small_features, ModelStore(tmp_path), recommended=block_features)


@pytest.fixture
def fitted(service, pngs):
    """Three stored OK images, which a bank of the recommended profile was fitted on."""
    store(service, "ok", pngs[:3])
    fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False, profile="recommended")
    return service


def calibrate(service, decide_by, *, require_ng=False, area_mm2_thr=AREA, **options):
    options = CalibrationOptions(area_mm2_thr=area_mm2_thr, decide_by=decide_by, **options)
    return calibrate_stored(service, IN_RECIPE, options, default_mm_per_px=0.2, require_ng=require_ng)


def map_of(service, content):
    """The distance map of an image, beside the service."""
    features, fitted = service.features_of("recommended"), service.fitted(IN_RECIPE)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    distances = fitted.memory.distances(features.extract(image)[0]).reshape(features.token_hw)
    return to_image_grid(distances, image.shape[:2], service.settings.blur_sigma)


def honest_map(service, number):
    maps = service.store.honest_maps(service.fitted(IN_RECIPE))
    return to_image_grid(maps[number], (200, 200), service.settings.blur_sigma)


def judged(service, content, **scoring):
    return infer(service, IN_RECIPE, NamedImage("x.png", lambda: content), Scoring(0.2, **scoring))


def test_images_of_the_fit_are_scored_by_their_honest_maps(fitted, pngs):
    store(fitted, "ok", pngs[3:4])
    done = calibrate(fitted, "region")
    regions = [region_score(honest_map(fitted, number), None, AREA, 0.2) for number in range(3)]
    fresh = region_score(map_of(fitted, pngs[3]), None, AREA, 0.2)
    assert done.calibration.pixel_threshold == pytest.approx(choose_threshold([*regions, fresh]), rel=1e-5)
    assert (done.calibration.n_ok, done.failed) == (4, [])
    assert done.calibration.promise.false_reject_rate_at_most is not None
    assert load(fitted.settings.models_dir, IN_RECIPE).calibration == done.calibration


def test_within_another_mask_than_the_fits_both_scores_follow_from_the_map(fitted, pngs):
    (fitted.datasets.folder(IN_RECIPE) / "ok" / f"{fitted.datasets.samples(IN_RECIPE, 'ok')[0].name}.json").write_text(
        json.dumps({"shape_json": CIRCLE})
    )
    done = calibrate(fitted, "either", threshold=ThresholdOptions(rule="contract"))
    circle = parse_shape(CIRCLE)
    first = region_score(honest_map(fitted, 0), build_mask(circle, (200, 200)), AREA, 0.2)
    others = [region_score(honest_map(fitted, number), None, AREA, 0.2) for number in (1, 2)]
    assert done.calibration.pixel_threshold == pytest.approx(choose_threshold([first, *others]), rel=1e-6)
    maps = fitted.store.honest_maps(fitted.fitted(IN_RECIPE))
    images = recorded_images(fitted.fitted(IN_RECIPE).metadata)
    scores = [image_scores(maps[0], (200, 200), circle, 1.0, [99.5])[0], images[1].score(99.5), images[2].score(99.5)]
    assert done.calibration.threshold == choose_threshold(scores)
    assert done.warning is None


@pytest.mark.parametrize("decide_by", ["region", "either"])
def test_a_decision_follows_what_decides(fitted, pngs, decide_by):
    """At thresholds beside what an image scores, by the score and by its regions."""
    distance_map = map_of(fitted, pngs[4])
    level = region_score(distance_map, None, AREA, 0.2)
    score = judged(fitted, pngs[4]).inference.score
    for by_score in (True, False):
        for by_region in (True, False):
            given = ThresholdOptions(threshold=score + (0 if by_score else 1e-6))
            pixel_threshold = level if by_region else float(np.nextafter(np.float32(level), np.float32(2)))
            calibrate(fitted, decide_by, threshold=given, pixel_threshold=pixel_threshold)
            result = judged(fitted, pngs[4])
            expected = by_region or (decide_by == "either" and by_score)
            assert result.decision == ("ng" if expected else "ok")
            assert bool(result.inference.regions) == by_region
            assert result.inference.regions == find_regions(distance_map, None, pixel_threshold, AREA, 0.2)
            assert "pixel threshold" in result.why


def test_all_calls_judge_alike(fitted, pngs):
    store(fitted, "ng", pngs[4:5])
    calibrate(fitted, "region", require_ng=True)
    result = judged(fitted, pngs[4])
    image = NamedImage("x.png", lambda: pngs[4])
    explained = explain(fitted, IN_RECIPE, image, mm_per_px=0.2, shape=None, point=None, with_pictures=False).result
    items = []
    infer_stored(fitted, IN_RECIPE, ["ng"], default_mm_per_px=0.2, wanted=NO_PICTURES, on_judged=items.append)
    for other in (explained, items[0].result):
        assert (other.decision, other.why, other.inference) == (result.decision, result.why, result.inference)


def test_why_is_said_of_any_calibration_where_it_is_asked_for(fitted, pngs):
    assert judged(fitted, pngs[4]).why is None
    assert judged(fitted, pngs[4], with_why=True).why == "The ROI has no threshold: calibrate it."
    calibrate(fitted, "score")
    assert judged(fitted, pngs[4]).why is None
    assert "the threshold" in judged(fitted, pngs[4], with_why=True).why


def test_a_bank_of_an_earlier_version_says_what_it_lacks(fitted, pngs):
    path = next(fitted.settings.models_dir.rglob("memory.npz"))
    with np.load(path) as file:
        kept = {name: array for name, array in file.items() if not name.startswith("honest_map")}
    np.savez(path, **kept)
    before = snapshot(fitted.settings.models_dir)
    with pytest.raises(
        InvalidRequest, match=r"keeps no distance map of it by the bank of the others.*profile=recommended"
    ):
        calibrate(fitted, "region")
    after = snapshot(fitted.settings.models_dir)
    assert [name for name in before if "calib" in name] == [name for name in after if "calib" in name] == []
    assert calibrate(fitted, "score").calibration.decide_by is None


def test_fresh_images_calibrate_the_regions_of_a_contracts_bank(service, pngs):
    """Those of the fit are named, and do not count."""
    store(service, "ok", pngs[:2])
    fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    store(service, "ok", pngs[2:4])
    done = calibrate(service, "region")
    assert (done.calibration.n_ok, len(done.failed)) == (2, 2)
    assert done.calibration.promise.false_reject_rate_at_most is not None
    assert all("profile=recommended" in item.error for item in done.failed)


def test_repeated_calibrations_need_the_network_only_for_what_is_new(fitted, pngs, monkeypatch):
    """Scores of regions are kept with the area that they are of; those by the score alone need them not."""
    store(fitted, "ng", pngs[3:5])
    first = calibrate(fitted, "region", require_ng=True)
    judge, n_judged = stored_scores.judge_pixels, []
    monkeypatch.setattr(
        stored_scores, "judge_pixels", lambda *given, **options: n_judged.append(1) or judge(*given, **options)
    )
    assert calibrate(fitted, "region", require_ng=True).calibration == first.calibration
    assert calibrate(fitted, "score", require_ng=True).calibration.threshold == first.calibration.threshold
    assert n_judged == []
    other = calibrate(fitted, "region", require_ng=True, area_mm2_thr=8.0)
    assert len(n_judged) == 2
    assert other.calibration.pixel_threshold < first.calibration.pixel_threshold


def test_an_area_larger_than_the_roi_is_refused(fitted):
    with pytest.raises(
        InvalidRequest, match=r"area_mm2_thr 2000 mm² is larger than the ROI \(200 × 200 pixels of 0.2 mm"
    ):
        calibrate(fitted, "region", area_mm2_thr=2000.0)


def test_a_region_that_stands_out_is_named(fitted):
    done = calibrate(fitted, "region", threshold=ThresholdOptions(rule="recommended"))
    assert done.calibration.pixel_why.startswith("about 2.5 % of good parts score above")
    assert [image.position for image in done.pixel_unusual] == list(done.calibration.pixel_unusual or ())


def test_pictures_have_the_scale_of_the_pixel_threshold(fitted):
    """On which a pixel of a region is of the colour that says so."""
    calibration = calibrate(fitted, "region").calibration
    assert picture_threshold(calibration) == calibration.pixel_threshold != calibration.threshold


def test_scores_alone_are_kept_for_feedback_only_where_they_decide(fitted):
    """From them it would calibrate by the score what regions decide."""
    folder = next(fitted.settings.models_dir.rglob("memory.npz")).parent
    calibrate(fitted, "either")
    assert list(folder.glob("calib.*.scores.json")) == []
    calibrate(fitted, "score")
    assert len(list(folder.glob("calib.*.scores.json"))) == 1


def test_rolling_back_puts_back_what_decided(fitted, pngs):
    calibrate(fitted, "region")
    by_region = judged(fitted, pngs[4])
    calibrate(fitted, "score")
    by_score = judged(fitted, pngs[4])
    roll_back(fitted, IN_RECIPE, None)
    again = judged(fitted, pngs[4])
    for name in ("inference", "calibration", "decision", "why"):
        assert getattr(again, name) == getattr(by_region, name)
    assert by_score.calibration.decide_by is None


def test_a_choice_of_the_percentile_is_not_for_regions(fitted, pngs):
    store(fitted, "ng", pngs[4:5])
    with pytest.raises(InvalidRequest, match="choose_percentile and decide_by=region cannot be combined"):
        calibrate(fitted, "region", choose=True)


def test_that_a_single_pixel_decides_is_told(fitted):
    done = calibrate(fitted, "either", area_mm2_thr=0.0)
    assert "a single pixel at or above the pixel threshold rejects a part" in done.warning
    assert done.calibration.pixel_threshold <= max(honest_map(fitted, number).max() for number in range(3))
    assert calibrate(fitted, "score", area_mm2_thr=0.0).warning is None


def test_feedback_says_that_regions_decide(fitted, pngs):
    calibrate(fitted, "either")
    before = snapshot(fitted.settings.models_dir)
    with pytest.raises(Conflict, match=r"regions decide for .* \(decide_by=either\), but feedback uses"):
        give_feedback(fitted, IN_RECIPE, NamedImage("x.png", lambda: pngs[4]), "good")
    assert snapshot(fitted.settings.models_dir) == before


def test_scores_that_regions_were_calibrated_with_are_known(fitted, pngs):
    store(fitted, "ng", pngs[4:5])
    calibrate(fitted, "region", require_ng=True)
    (known,) = known_scores(fitted, IN_RECIPE, ["ng"], 0, 10).images
    assert known.score == judged(fitted, pngs[4]).inference.score
