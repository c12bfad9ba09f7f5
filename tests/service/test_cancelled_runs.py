"""Fits, calibrations and bulk inferences that are cancelled: when they end, and that nothing is left of them."""

import threading
import time
from functools import partial

import numpy as np
import pytest

from backend.common.config import Settings
from backend.common.errors import RunCancelled, RunStoring
from backend.disk.progress import Run, RunBoard
from backend.service import fit as fit_module
from backend.service import fit_executor
from backend.service.calibrate import calibrate
from backend.service.datasets import calibrate_stored, infer_stored
from backend.service.feedback import give_feedback
from backend.service.fit import fit
from backend.service.image_calibration import CalibrationOptions
from backend.service.inspection import InspectionService
from backend.service.pictures import NO_PICTURES
from backend.storage import ModelStore
from tests.factories import IN_RECIPE, KEY, encoded, image_named, service_with, smooth_parts, snapshot
from tests.service.stored import store

DEADLINE_S = 20


@pytest.fixture(scope="module")
def features(small_features):
    return small_features


@pytest.fixture(scope="module")
def parts():
    return [image_named(f"{number}.png", picture) for number, picture in enumerate(smooth_parts(6))]


@pytest.fixture
def calibrated(service, parts):
    """A service with a ROI that was fitted and calibrated, as a recipe has it."""
    scores = fit(service, IN_RECIPE, parts[:3], mm_per_px=0.2).ok_scores
    calibrate(service, IN_RECIPE, scores, [], mm_per_px=0.2)
    store(service, "ok", [encoded(picture) for picture in smooth_parts(4)])
    return service


def cancel_all(service):
    """As another process does it."""
    board = RunBoard(service.settings.models_dir)
    for run in board.running():
        board.cancel(run["run_id"])


def files_of(service):
    """What is stored, but for locks, and scores of images, which are remembered."""
    found = snapshot(service.settings.models_dir)
    return {name: what for name, what in found.items() if not name.endswith(".lock") and "/.scores-" not in name}


def cancelling(service, monkeypatch, method, at=()):
    """Have all runs cancelled just before a method of theirs is called with these arguments."""
    call = getattr(Run, method)

    def cancelled_before(run, *arguments):
        if arguments[: len(at)] == at:
            cancel_all(service)
        return call(run, *arguments)

    monkeypatch.setattr(Run, method, cancelled_before)


def check_cancelled(service, work):
    before = files_of(service)
    with pytest.raises(RunCancelled, match="no model or calibration was stored"):
        work()
    assert files_of(service) == before
    assert service.runs.running() == []


@pytest.mark.parametrize("at", [("extract", 2, 4), ("extract", 4), ("coreset",), ("score",)])
def test_cancelled_fit_leaves_the_model_and_its_calibration_to_the_byte(service, calibrated, parts, monkeypatch, at):
    cancelling(service, monkeypatch, "report", at)
    fitting = partial(fit, service, IN_RECIPE, parts[2:], mm_per_px=0.2, thumbnails=True)
    check_cancelled(service, fitting)
    monkeypatch.undo()
    fitting()
    assert service.fitted(IN_RECIPE).calibration_state == "stale"


@pytest.mark.slow
@pytest.mark.parametrize("at", [("coreset", 1), ("score",)])
def test_cancelled_fit_of_the_recommended_profile_stores_nothing(
    features, block_features, tmp_path, parts, monkeypatch, at
):
    store = ModelStore(tmp_path)
    service = InspectionService(Settings(models_dir=tmp_path), features, store, recommended=block_features)
    fitting = partial(fit, service, KEY, parts[:3], mm_per_px=0.2, profile="recommended")
    with monkeypatch.context() as patched:
        cancelling(service, patched, "report", at)
        check_cancelled(service, fitting)
    assert fitting().profile == "recommended"


def test_cancelled_first_fit_of_a_recipe_leaves_it_without_a_scale(service, parts, monkeypatch):
    cancelling(service, monkeypatch, "conclude")
    check_cancelled(service, partial(fit, service, IN_RECIPE, parts[:2], mm_per_px=0.2))
    assert service.recipes.mm_per_px("line 1") is None
    assert service.store.load(IN_RECIPE) is None


@pytest.mark.parametrize("step", ["settle", "near_copies", "build_bank", "remembered", "thumbnail"])
def test_fit_ends_where_it_tells_nothing_about_its_progress_too(service, parts, monkeypatch, step):
    told, calls = [], []
    module = fit_executor if step in ("settle", "build_bank") else fit_module
    call = getattr(module, step)

    def cancelled_before(*arguments, **options):
        cancel_all(service)
        told.clear()
        calls.append(step)
        return call(*arguments, **options)

    monkeypatch.setattr(module, step, cancelled_before)
    deep = [image_named("deep.png", picture.astype(np.uint16) * 256) for picture in smooth_parts(2)]
    images = deep if step == "settle" else parts[:3]

    def on_progress(*progress):
        told.append(progress)

    fitting = partial(fit, service, KEY, images, mm_per_px=0.2, thumbnails=True, on_progress=on_progress)
    check_cancelled(service, fitting)
    assert (told, calls) == ([], [step]), "neither another step nor another image"


@pytest.mark.slow
def test_fit_that_waits_behind_another_is_cancelled_and_leaves_its_place(features, tmp_path, parts):
    service = service_with(features, tmp_path, max_fits=2)
    goes_on, begun, ended = threading.Event(), threading.Event(), {}

    def hold(*_):
        begun.set()
        assert goes_on.wait(DEADLINE_S)

    def work(name, **options):
        try:
            ended[name] = fit(service, KEY, parts[:2], mm_per_px=0.2, **options)
        except RunCancelled as exc:
            ended[name] = str(exc)

    def start(name, **options):
        thread = threading.Thread(target=work, args=[name], kwargs=options)
        thread.start()
        return thread

    first = start("first", on_progress=hold)
    assert begun.wait(DEADLINE_S)
    for name in ("second", "third"):
        waiting = start(name)
        while len(service.runs.running()) < 2:
            time.sleep(0.01)
        service.runs.cancel(service.runs.running()[-1]["run_id"])
        waiting.join(DEADLINE_S)
        assert "step wait, 0 of 2" in ended[name]
    assert "first" not in ended
    goes_on.set()
    first.join(DEADLINE_S)
    assert ended["first"].n_embeddings == service.fitted(KEY).metadata["n_embeddings"]


def test_fit_that_stores_its_model_cannot_be_cancelled(service, calibrated, parts, monkeypatch):
    save, refused = ModelStore.save_memory, []

    def cancelled_meanwhile(*arguments, **options):
        try:
            cancel_all(service)
        except RunStoring as exc:
            refused.append(str(exc))
        return save(*arguments, **options)

    monkeypatch.setattr(ModelStore, "save_memory", cancelled_meanwhile)
    result = fit(service, IN_RECIPE, parts, mm_per_px=0.2)
    assert len(refused) == 1
    assert service.fitted(IN_RECIPE).memory_id == result.memory_id


def test_cancelled_fit_keeps_its_checkpoint_and_goes_on_from_it(service, parts, monkeypatch, tmp_path):
    folder = tmp_path / "kept"
    fitting = partial(fit, service, KEY, parts, mm_per_px=0.2, checkpoint=folder)
    with monkeypatch.context() as patched:
        cancelling(service, patched, "report", ("extract", 4))
        with pytest.raises(RunCancelled, match="step extract, 4 of 6"):
            fitting()
    assert len(list(folder.iterdir())) >= 4
    forward, passes = service.features.runtime.forward, []
    monkeypatch.setattr(
        service.features.runtime, "forward", lambda pixels: passes.append(len(pixels)) or forward(pixels)
    )
    fitting()
    assert sum(passes) == 2
    assert not folder.exists()


def calibrate_all(service):
    options = CalibrationOptions(None, None)
    return calibrate_stored(service, IN_RECIPE, options, default_mm_per_px=0.2, require_ng=False)


@pytest.mark.parametrize("moment", [("report", ("score", 2)), ("report", ("score", 4)), ("conclude", ())])
def test_cancelled_calibration_leaves_the_one_before(service, calibrated, monkeypatch, moment):
    with monkeypatch.context() as patched:
        cancelling(service, patched, *moment)
        check_cancelled(service, partial(calibrate_all, service))
    before = service.fitted(IN_RECIPE).calibration
    assert calibrate_all(service).calibration != before


def test_calibration_that_is_stored_cannot_be_cancelled(service, calibrated, monkeypatch):
    save, refused = ModelStore.save_calibration, []

    def cancelled_meanwhile(*arguments, **options):
        with pytest.raises(RunStoring, match="the calibrate_dataset of role 'Master1'"):
            cancel_all(service)
        refused.append(True)
        return save(*arguments, **options)

    monkeypatch.setattr(ModelStore, "save_calibration", cancelled_meanwhile)
    calibration = calibrate_all(service).calibration
    assert refused == [True]
    assert service.fitted(IN_RECIPE).calibration == calibration


@pytest.mark.parametrize("moment", [("report", ("score", 1)), ("conclude", ())])
def test_cancelled_inference_of_a_data_set_frees_its_place(features, tmp_path, parts, monkeypatch, moment):
    service = service_with(features, tmp_path, max_queue=1)
    fit(service, IN_RECIPE, parts[:2], mm_per_px=0.2)
    store(service, "ok", [encoded(picture) for picture in smooth_parts(2)])
    judged = []
    judging = partial(
        infer_stored, service, IN_RECIPE, ["ok"], default_mm_per_px=0.2, wanted=NO_PICTURES, on_judged=judged.append
    )
    with monkeypatch.context() as patched:
        cancelling(service, patched, *moment)
        check_cancelled(service, judging)
    n_judged = len(judged)
    assert n_judged == (1 if moment[1] else 2)
    judging()
    assert len(judged) - n_judged == 2


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("moment", [("report", ("extract",)), ("conclude", ())])
def test_cancelled_feedback_changes_nothing(service, calibrated, parts, monkeypatch, moment, dry_run):
    cancelling(service, monkeypatch, *moment)
    check_cancelled(service, partial(give_feedback, service, IN_RECIPE, parts[5], "good", dry_run=dry_run))
