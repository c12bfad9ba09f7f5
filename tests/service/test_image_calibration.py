"""A calibration from stored images, beside that from the scores of single inferences."""

import math

import pytest

from backend.bank.images import recorded_images
from backend.calib import ThresholdOptions, choose_threshold
from backend.common.config import Settings
from backend.common.errors import Busy, Conflict, InvalidRequest, MemoryNotFound
from backend.patchcore import PatchCoreMemory
from backend.service import stored_scores
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored, fit_stored
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import IN_RECIPE, service_with
from tests.service.stored import CIRCLE, score, store


@pytest.fixture
def service(features, tmp_path):
    return service_with(features, tmp_path, min_ok_samples=2)


def calibrate(service, *, require_ng=True, **options):
    options = CalibrationOptions(**options)
    return calibrate_stored(service, IN_RECIPE, options, default_mm_per_px=0.2, require_ng=require_ng)


@pytest.mark.slow
def test_an_image_of_the_fit_is_calibrated_by_its_score_by_the_others(fitted_on_its_own, pngs, monkeypatch):
    service = fitted_on_its_own
    honest = [image.score(99) for image in recorded_images(service.fitted(IN_RECIPE).metadata)]
    naive = [score(service, png) for png in pngs[:2]]
    assert min(honest) > max(naive)
    done = calibrate(service, require_ng=False)
    assert done.calibration.threshold == choose_threshold(honest)
    assert done.warning is None
    assert done.calibration.promise.false_reject_rate_at_most is not None
    store(service, "ok", pngs[2:3])
    with_a_fresh_one = calibrate(service, require_ng=False)
    assert with_a_fresh_one.calibration.threshold == choose_threshold([*honest, score(service, pngs[2], None, 99)])


@pytest.mark.slow
def test_where_the_honest_score_is_not_known_the_reply_warns(fitted_on_its_own, pngs, features):
    store_ = fitted_on_its_own.store
    other = InspectionService(
        Settings(models_dir=fitted_on_its_own.settings.models_dir, min_ok_samples=2, blur_sigma=3), features, store_
    )
    done = calibrate(other, require_ng=False)
    assert "not in the fit" in done.warning
    assert done.calibration.promise.false_reject_rate_at_most is None
    assert done.calibration.threshold == choose_threshold([score(other, png, None, 99) for png in pngs[:2]])


@pytest.mark.slow
def test_promise_has_a_condition_where_fitted_images_are_unknown(fitted_on_its_own, pngs):
    """The model does not say which images were in its fit, so the promise states the condition under which it holds."""
    service = fitted_on_its_own
    found = service.fitted(IN_RECIPE)
    kept = {name: value for name, value in found.metadata.items() if name not in ("images", "source")}
    service.store.save_memory(IN_RECIPE, PatchCoreMemory(found.memory.embeddings, found.memory.token_hw), kept)
    done = calibrate(service, require_ng=False)
    assert (
        "if the scores are ok_scores of the fit or of parts that were not in the fit" in done.calibration.promise.text
    )
    assert done.warning is None or "not in the fit" not in done.warning


@pytest.mark.slow
def test_copies_of_an_image_count_once(fitted, pngs):
    once = calibrate(fitted, require_ng=False).calibration
    store(fitted, "ok", [pngs[0], pngs[1], pngs[1]])
    again = calibrate(fitted, require_ng=False).calibration
    assert (again.n_ok, again.threshold, again.promise) == (2, once.threshold, once.promise)


@pytest.mark.slow
def test_another_mask_than_the_fits_is_another_score(service, pngs):
    names = store(service, "ok", pngs[:2], shape_json=CIRCLE)
    fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    honest = [image.score(99) for image in recorded_images(service.fitted(IN_RECIPE).metadata)]
    assert calibrate(service, require_ng=False).calibration.threshold == choose_threshold(honest)
    (service.datasets.folder(IN_RECIPE) / "ok" / f"{names[0]}.json").write_text("{}")
    done = calibrate(service, require_ng=False)
    assert done.calibration.threshold == choose_threshold([score(service, pngs[0], None, 99), honest[1]])
    assert "not in the fit" in done.warning


@pytest.mark.slow
def test_calibration_equals_that_of_scores_from_single_inferences(fitted, pngs):
    """A data set is calibrated to the threshold that the scores of its images give when each is inferred alone."""
    store(fitted, "ok", pngs[2:3], shape_json=CIRCLE)
    store(fitted, "ng", pngs[3:5])
    ok = [score(fitted, pngs[0]), score(fitted, pngs[1]), score(fitted, pngs[2], CIRCLE)]
    ng = [score(fitted, png) for png in pngs[3:5]]
    done = calibrate(fitted)
    assert done.calibration.threshold == choose_threshold(ok, ng)
    assert (done.calibration.n_ok, done.calibration.n_ng, done.failed) == (3, 2, [])
    assert done.calibration.memory_id == fitted.store.memory_id(IN_RECIPE)
    median = calibrate(fitted, score_percentile=50, area_mm2_thr=7.0)
    assert median.calibration.threshold == choose_threshold(
        [score(fitted, pngs[0], None, 50), score(fitted, pngs[1], None, 50), score(fitted, pngs[2], CIRCLE, 50)],
        [score(fitted, png, None, 50) for png in pngs[3:5]],
    )
    assert (median.calibration.score_percentile, median.calibration.area_mm2_thr) == (50, 7.0)


@pytest.mark.slow
def test_repeated_calibration_runs_the_network_only_for_new_images(fitted, pngs, monkeypatch):
    """Images that were scored before keep their scores, and the threshold is that of all scores together."""
    store(fitted, "ng", pngs[3:4])
    first = calibrate(fitted)
    judge, judged = stored_scores.judge_pixels, []
    monkeypatch.setattr(
        stored_scores, "judge_pixels", lambda *given, **options: judged.append(given) or judge(*given, **options)
    )
    assert calibrate(fitted).calibration == first.calibration
    assert judged == []
    store(fitted, "ng", pngs[4:5])
    third = calibrate(fitted)
    assert len(judged) == 1
    assert third.calibration.n_ng == 2
    assert third.calibration.threshold == choose_threshold(
        [score(fitted, png, None, 99) for png in pngs[:2]], [score(fitted, png, None, 99) for png in pngs[3:5]]
    )


@pytest.mark.slow
def test_no_score_outlives_the_memory_bank_that_it_was_made_with(fitted, pngs):
    store(fitted, "ng", pngs[3:4])
    first = calibrate(fitted)
    fit(fitted, IN_RECIPE, [NamedImage("x.png", lambda: pngs[4])], mm_per_px=0.2)
    second = calibrate(fitted)
    assert second.calibration.threshold != first.calibration.threshold
    assert second.calibration.threshold == choose_threshold(
        [score(fitted, png, None, 99) for png in pngs[:2]], [score(fitted, pngs[3], None, 99)]
    )


def test_a_run_needs_a_place_in_the_queue(features, tmp_path, pngs):
    settings = Settings(models_dir=tmp_path, min_ok_samples=2, max_queue=1)
    service = InspectionService(settings, features, ModelStore(tmp_path))
    store(service, "ok", pngs[:2])
    fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    with service.inference_slot(), pytest.raises(Busy):
        calibrate(service, require_ng=False)


def test_what_is_missing_is_said_before_anything_is_computed(service, pngs):
    with pytest.raises(InvalidRequest, match=r"0 OK images are stored .* a fit needs 2"):
        fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    with pytest.raises(MemoryNotFound):
        calibrate(service)
    fit(service, IN_RECIPE, [NamedImage("x.png", lambda: pngs[0])], mm_per_px=0.2)
    with pytest.raises(InvalidRequest, match="no OK images"):
        calibrate(service)
    store(service, "ok", pngs[:1])
    with pytest.raises(InvalidRequest, match=r"no NG images .* require_ng"):
        calibrate(service)
    without = calibrate(service, require_ng=False)
    assert (without.calibration.n_ng, "not in the fit" in without.warning) == (0, True), "one image has no others"
    store(service, "ng", [b"\x89PNG\r\n\x1a\n damaged"])
    with pytest.raises(InvalidRequest, match=r"too few images could be scored.*damaged"):
        calibrate(service)


@pytest.mark.slow
def test_a_fit_by_somebody_else_during_a_calibration_is_noticed(fitted, pngs, monkeypatch):
    judge = stored_scores.judge_pixels

    def judge_while_somebody_fits(*arguments, **options):
        fit(fitted, IN_RECIPE, [NamedImage("x.png", lambda: pngs[3])], mm_per_px=0.2)
        return judge(*arguments, **options)

    monkeypatch.setattr(stored_scores, "judge_pixels", judge_while_somebody_fits)
    with pytest.raises(Conflict, match="fitted anew"):
        calibrate(fitted, require_ng=False)
    assert fitted.fitted(IN_RECIPE).calibration_state == "none"


@pytest.mark.slow
def test_a_chosen_percentile_rests_on_one_inference_of_each_image(fitted, pngs, monkeypatch):
    store(fitted, "ok", pngs[2:3], shape_json=CIRCLE)
    store(fitted, "ng", pngs[3:5])
    judge, judged = stored_scores.judge_pixels, []
    monkeypatch.setattr(
        stored_scores, "judge_pixels", lambda *given, **options: judged.append(given) or judge(*given, **options)
    )
    done = calibrate(fitted, choose=True)
    assert len(judged) == 5
    again = calibrate(fitted, choose=True)
    assert len(judged) == 5, "the scores at all percentiles are kept"
    assert (again.calibration, again.choice) == (done.calibration, done.choice)
    assert done.choice.chosen == done.calibration.score_percentile
    for item in done.choice.candidates:
        at = item.score_percentile
        ok = [score(fitted, pngs[0], None, at), score(fitted, pngs[1], None, at), score(fitted, pngs[2], CIRCLE, at)]
        ng = [score(fitted, png, None, at) for png in pngs[3:5]]
        assert item.gap == min(ng) - max(ok)
        if at == done.choice.chosen:
            assert done.calibration.threshold == choose_threshold(ok, ng)


@pytest.mark.slow
def test_percentile_is_not_chosen_without_ng_images_or_if_one_is_given(fitted, pngs):
    with pytest.raises(InvalidRequest, match=r"choose_percentile needs NG images, but none are stored"):
        calibrate(fitted, require_ng=False, choose=True)
    store(fitted, "ng", pngs[3:4])
    with pytest.raises(InvalidRequest, match="send one of them"):
        calibrate(fitted, score_percentile=99, choose=True)


@pytest.mark.slow
def test_a_target_rate_moves_the_threshold(fitted, pngs):
    store(fitted, "ng", pngs[3:5])
    calibration = calibrate(fitted, threshold=ThresholdOptions(target_false_reject_rate=0.1)).calibration
    largest = max(score(fitted, png, None, 99) for png in pngs[:2])
    assert calibration.threshold == math.nextafter(largest, math.inf)
    assert calibration.promise.false_reject_rate_at_most is not None
    assert calibration.promise.escape_rate_at_most is not None
    assert fitted.fitted(IN_RECIPE).calibration.promise == calibration.promise, "it is stored"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": ThresholdOptions(rule="recommended", threshold=0.5)}, "cannot be combined"),
        ({"threshold": ThresholdOptions(escape_cost=5.0)}, "belong together"),
        ({"threshold": ThresholdOptions(escape_cost=5.0, defect_rate=0.1)}, "needs at least 10 NG scores"),
        ({"keep": ("x.png",)}, "keep needs rule=recommended"),
        ({"not_good": ("x.png",)}, "not_good names 'x.png', but no OK image has this name"),
    ],
)
def test_what_cannot_work_is_refused_before_an_image_is_scored(fitted, monkeypatch, options, message):
    monkeypatch.setattr(fitted.queue, "infer", lambda *_args, **_options: pytest.fail("an image was scored"))
    with pytest.raises(InvalidRequest, match=message):
        calibrate(fitted, require_ng=False, **options)


@pytest.mark.slow
def test_an_image_can_be_named_by_the_name_of_its_copy(fitted, pngs):
    (name,) = store(fitted, "ok", [pngs[2]])
    (copy,) = store(fitted, "ok", [pngs[2]])
    by_name, by_copy = (calibrate(fitted, require_ng=False, not_good=(same,)).calibration for same in (name, copy))
    assert by_name == by_copy
    assert by_copy.n_ok == 2
