"""A person's verdict on one image: what joins, what is calibrated again, what is said of it, and what is refused."""

import errno
import os
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.calib import ThresholdOptions
from backend.common.errors import Conflict, ScaleLocked, StaleModel, StorageError
from backend.common.roi_key import RoiKey
from backend.scores.recommended_threshold import recommend
from backend.service.calibrate import calibrate
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored
from backend.service.feedback import give_feedback
from backend.service.fit import fit
from backend.service.judge import infer
from backend.service.roll_back import roll_back
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from tests.factories import IN_RECIPE, KEY, encoded, image_named, smooth_parts, snapshot, with_one_pixel_changed
from tests.service.stored import store


@pytest.fixture(scope="module")
def features(small_features):
    return small_features


@pytest.fixture(scope="module")
def pictures():
    """Parts that differ, uint8 [96, 96, 3]: variations of one; from the ninth on they differ more."""
    shares = [0.2] * 8 + [0.5] * 4
    whole = zip(shares, smooth_parts(12), strict=True)
    return [cv2.addWeighted(smooth_parts(1)[0], 1 - share, other, share, 0) for share, other in whole]


@pytest.fixture(scope="module")
def unlike():
    """Of another kind than all others."""
    return image_named("unlike.png", smooth_parts(13)[12])


@pytest.fixture
def parts(pictures):
    return [image_named(f"{number}.png", picture) for number, picture in enumerate(pictures)]


def with_a_defect(picture, side):
    damaged = picture.copy()
    damaged[30 : 30 + side, 30 : 30 + side] = (0, 0, 255)
    return damaged


@pytest.fixture
def defective(pictures):
    """The larger the number, the larger the defect."""
    return [image_named(f"bad{side}.png", with_a_defect(pictures[0], side)) for side in (24, 40)]


def score(service, image, key=KEY):
    return infer(service, key, image, Scoring(0.2)).inference.score


@pytest.fixture
def scores(service, parts, defective):
    """OK and NG scores that the ROI was calibrated by, by the contract's rule."""
    ok = fit(service, KEY, parts[:8], mm_per_px=0.2).ok_scores
    ng = [score(service, image) for image in defective]
    calibrate(service, KEY, ok, ng, mm_per_px=0.2)
    return ok, ng


def files_of(service):
    """What is stored, but for locks and what was counted."""
    found = snapshot(service.settings.models_dir)
    return {name: what for name, what in found.items() if ".drift" not in name and not name.endswith(".lock")}


def test_a_good_image_joins_the_bank_and_the_good_scores(service, parts, scores):
    ok, ng = scores
    honest = score(service, parts[9])
    before = service.fitted(KEY)
    told = give_feedback(service, KEY, parts[9], "good", mm_per_px=0.2)

    expected = (np.percentile([*ok, honest], 99) + np.percentile(ng, 5)) / 2
    after = service.fitted(KEY)
    assert (told.changed, told.score) == (True, honest)
    assert after.calibration.threshold == told.after.threshold == pytest.approx(expected, abs=1e-12)
    assert told.before.threshold == before.calibration.threshold
    assert (after.calibration_state, after.calibration.n_ok, after.calibration.n_ng) == ("applied", 9, 2)
    assert after.memory_id == told.fitted.memory_id != before.memory_id
    assert told.n_added == len(after.memory.embeddings) - len(before.memory.embeddings) > 0
    assert told.score_after == score(service, parts[9]) < honest
    recorded = recorded_images(after.metadata)[-1]
    assert (recorded.name, recorded.score(99)) == ("9.png", pytest.approx(honest, abs=1e-6))
    assert service.store.calibration_inputs(after).ok[-1].score == honest
    assert "The scores of the other known images stay the same" in told.text


def test_a_dry_run_says_the_same_and_changes_nothing(service, parts, scores):
    before = files_of(service)
    planned = give_feedback(service, KEY, parts[9], "good", dry_run=True)
    assert files_of(service) == before
    done = give_feedback(service, KEY, parts[9], "good")
    assert planned.text == f"{done.text} Nothing was stored (dry_run)."
    assert (planned.before, planned.after, planned.warning) == (done.before, done.after, done.warning)
    assert (planned.score_after, planned.n_added) == (done.score_after, done.n_added)

    before = files_of(service)
    assert give_feedback(service, KEY, parts[10], "bad", dry_run=True).changed
    assert files_of(service) == before


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_one_roll_back_takes_back_all_that_feedback_changed(service, parts, scores, verdict):
    before = service.fitted(KEY)
    inputs, judged = service.store.calibration_inputs(before), score(service, parts[9])
    give_feedback(service, KEY, parts[9], verdict)
    changed = service.fitted(KEY)
    newest = service.store.versions(KEY)[0]
    assert (newest[0].facts.replaced_by, newest[1]) == ("feedback", before.calibration)

    roll_back(service, KEY)
    after = service.fitted(KEY)
    assert (after.memory_id, after.calibration, after.metadata) == (
        before.memory_id,
        before.calibration,
        before.metadata,
    )
    assert service.store.calibration_inputs(after) == inputs
    assert score(service, parts[9]) == judged
    roll_back(service, KEY)
    assert service.fitted(KEY).calibration == changed.calibration
    n_known = len(service.store.calibration_inputs(changed).ng), len(service.store.calibration_inputs(changed).ok)
    assert n_known == ((2, 9) if verdict == "good" else (3, 8))


def test_a_missed_defect_joins_the_defective_scores(service, parts, scores):
    ok, ng = scores
    hidden = NamedImage("hidden.png", lambda: with_one_pixel_changed(parts[0].read()))
    missed = score(service, hidden)
    told = give_feedback(service, KEY, hidden, "bad")
    expected = (np.percentile(ok, 99) + np.percentile([*ng, missed], 5)) / 2
    assert service.fitted(KEY).calibration.threshold == pytest.approx(expected, abs=1e-12)
    assert told.n_rejected_if_caught == sum(other >= missed for other in ok) > 0
    assert f"No threshold can catch it without rejecting {told.n_rejected_if_caught} of 8 good images." in told.text
    assert [image.name for _, image in told.after.escaped] == ["hidden.png"]
    assert "still escape" in told.warning


def test_a_defect_that_a_threshold_can_catch_says_so(service, parts, scores):
    calibrate(service, KEY, scores[0], [], mm_per_px=0.2, options=ThresholdOptions(threshold=1.9))
    missed = image_named("bad.png", smooth_parts(13)[12])
    told = give_feedback(service, KEY, missed, "bad")
    assert (told.decision, told.n_rejected_if_caught) == ("ok", 0)
    assert re.search(r"A threshold of \S+ catches it and rejects none of 8 good images\.", told.text)
    assert "the threshold was set by hand, so feedback does not change it" in told.warning


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_the_same_image_again_changes_nothing_and_says_so(service, parts, scores, verdict):
    give_feedback(service, KEY, parts[9], verdict)
    before = files_of(service)
    told = give_feedback(service, KEY, NamedImage("other.png", parts[9].read), verdict)
    assert (told.changed, told.before, told.n_added) == (False, told.after, 0)
    assert told.text.endswith("Nothing changes.")
    assert "nothing is added" in told.warning if verdict == "good" else "not counted twice" in told.warning
    assert files_of(service) == before


def test_an_unlike_image_said_to_be_good_counts_and_is_doubted(service, scores, unlike):
    """By the recommended rule it would stand out and not count; the person's word keeps it."""
    ok, ng = scores
    calibrate(service, KEY, ok, ng, mm_per_px=0.2, options=ThresholdOptions(rule="recommended"))
    honest = score(service, unlike)
    assert recommend([*ok, honest], ng).unusual == (8,)
    told = give_feedback(service, KEY, unlike, "good")
    expected = recommend([*ok, honest], ng, keep={8})
    assert told.calibration.threshold == expected.threshold > told.before.threshold
    assert service.store.calibration_inputs(service.fitted(KEY)).options == ThresholdOptions(
        rule="recommended", keep=(8,)
    )
    assert f"far above most of the other 8 good images (median {np.median(ok):.4g})" in told.warning


def test_a_threshold_that_rises_names_the_defects_that_escape(service, scores, unlike):
    ng = scores[1]
    told = give_feedback(service, KEY, unlike, "good")
    gone = [place for place, value in enumerate(ng) if told.before.threshold <= value < told.after.threshold]
    assert gone
    assert [position for position, _ in told.after.escaped] == gone
    assert f"position {gone[0]} ({ng[gone[0]]:.4g})" in told.warning
    assert "rejected would escape" in told.warning


def test_feedback_that_was_not_needed_is_called_so(service, parts, defective, scores):
    same = NamedImage("same.png", lambda: with_one_pixel_changed(parts[0].read()))
    assert "was not rejected" in give_feedback(service, KEY, same, "good", dry_run=True).warning
    assert "was rejected" in give_feedback(service, KEY, defective[1], "bad", dry_run=True).warning


def test_a_good_image_that_the_bank_covers_counts_all_the_same(service, parts, scores):
    """The bank keeps its embeddings and knows of the image; its score joins the others."""
    before = service.fitted(KEY)
    covered = NamedImage("again.png", lambda: with_one_pixel_changed(parts[0].read()))
    told = give_feedback(service, KEY, covered, "good")
    after = service.fitted(KEY)
    assert after.memory_id == before.memory_id
    assert (told.n_added, after.calibration.n_ok) == (0, 9)
    assert recorded_images(after.metadata)[-1].name == "again.png"
    assert "looks nearly the same" in told.warning
    assert "The memory bank already covers the image" in told.text
    assert not give_feedback(service, KEY, covered, "good").changed


def test_a_full_disk_keeps_bank_and_calibration_of_a_covered_image(service, parts, scores, monkeypatch):
    """Its bank keeps its embeddings; there is room for a calibration, and none for the file of the bank."""
    before, fsync = files_of(service), os.fsync

    def sync(descriptor):
        if os.fstat(descriptor).st_size > 16384:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    covered = NamedImage("again.png", lambda: with_one_pixel_changed(parts[0].read()))
    with pytest.raises(StorageError, match="No space left"):
        give_feedback(service, KEY, covered, "good")
    after = files_of(service)
    assert {name: after.get(name) for name in before} == before
    assert service.fitted(KEY).calibration.n_ok == 8


def test_the_last_word_on_an_image_counts(service, parts, scores):
    give_feedback(service, KEY, parts[9], "bad")
    told = give_feedback(service, KEY, parts[9], "good")
    assert "counted as defective until now" in told.warning
    inputs = service.store.calibration_inputs(service.fitted(KEY))
    assert (len(inputs.ok), len(inputs.ng)) == (9, 2)
    with pytest.raises(Conflict, match=r"9.png is in the memory bank as a good image"):
        give_feedback(service, KEY, parts[9], "bad")


def test_a_held_out_good_image_counts_once_and_then_as_defective(service, pictures):
    """Images of a data set are known again by their pixels, whatever their files are called."""
    contents = [encoded(picture) for picture in pictures]
    fit(service, IN_RECIPE, [NamedImage(f"{n}.png", lambda c=c: c) for n, c in enumerate(contents[:8])], mm_per_px=0.2)
    store(service, "ok", contents[8:11])
    store(service, "ng", [encoded(with_a_defect(pictures[0], 24))], filename="scratch.png")
    calibrate_stored(service, IN_RECIPE, CalibrationOptions(), default_mm_per_px=0.2, require_ng=True)
    held_out = NamedImage("part.png", lambda: contents[8])
    told = give_feedback(service, IN_RECIPE, held_out, "good", dry_run=True)
    assert (len(told.after.good), told.n_added > 0) == (3, True)
    told = give_feedback(service, IN_RECIPE, held_out, "bad")
    assert "counted as good until now" in told.warning
    assert (len(told.after.good), told.after.n_ng) == (2, 2)
    inputs = service.store.calibration_inputs(service.fitted(IN_RECIPE))
    assert (inputs.options.not_good, inputs.ng[0].uploaded_as) == ((0,), "scratch.png")


def refused(service, match, image, verdict="good", error=Conflict, key=KEY, **more):
    before = files_of(service)
    with pytest.raises(error, match=match):
        give_feedback(service, key, image, verdict, **more)
    assert files_of(service) == before


def test_a_roi_without_an_applied_calibration_is_refused(service, parts):
    fit(service, KEY, parts[:4], mm_per_px=0.2)
    refused(service, "has no calibration: calibrate first, because feedback repeats", parts[5])
    calibrate(service, KEY, [0.3], [], mm_per_px=0.2)
    fit(service, KEY, parts[:5], mm_per_px=0.2)
    refused(service, "has a calibration of another model", parts[5], "bad")


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_a_calibration_whose_scores_are_not_stored_is_refused(service, parts, scores, verdict):
    """As of earlier versions, or of very many scores; the message says what to do."""
    (path,) = (service.settings.models_dir / "Master1" / "Pattern").glob("*.scores.json")
    path.write_text("{")
    refused(service, "are not stored.*calibrate once more", parts[9], verdict)
    path.unlink()
    refused(service, "are not stored.*calibrate once more", parts[9], verdict)
    calibrate(service, KEY, [0.3] * 10_001, [], mm_per_px=0.2)
    refused(service, "more than 10000 scores", parts[9], verdict)


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_a_roi_whose_regions_decide_is_refused(service, parts, scores, verdict):
    fitted = service.fitted(KEY)
    by_regions = replace(fitted.calibration, decide_by="region", pixel_threshold=0.7)
    service.store.save_calibration(KEY, by_regions, service.store.calibration_inputs(fitted))
    refused(service, "regions decide for", parts[9], verdict)


def test_an_image_of_another_scale_is_refused(service, parts, scores):
    refused(service, "mm_per_px is 0.3, but the calibration .* was made with 0.2", parts[9], mm_per_px=0.3)
    fit(service, IN_RECIPE, parts[:8], mm_per_px=0.2)
    calibrate(service, IN_RECIPE, [0.3], [], mm_per_px=0.2)
    refused(service, "locked to mm_per_px 0.2", parts[9], "bad", ScaleLocked, IN_RECIPE, mm_per_px=0.3)


def test_a_recipe_without_a_bank_of_its_own_changes_its_calibration_alone(service, parts, scores):
    line = RoiKey("Master1", "Pattern", "line 7")
    refused(service, "has no memory bank of its own", parts[9], key=line)
    before = service.fitted(KEY).calibration
    give_feedback(service, line, parts[9], "bad")
    assert service.fitted(KEY).calibration == before
    assert (service.fitted(line).calibration.n_ng, service.fitted(line).calibrated.recipe_id) == (3, "line 7")


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_a_calibration_that_came_meanwhile_is_not_overwritten(service, parts, scores, verdict, monkeypatch):
    read = service.store.calibration_inputs

    def read_and_overtaken(fitted):
        inputs = read(fitted)
        calibrate(service, KEY, [0.41, 0.43], [], mm_per_px=0.2)
        return inputs

    monkeypatch.setattr(service.store, "calibration_inputs", read_and_overtaken)
    with pytest.raises(StaleModel, match="was calibrated anew meanwhile; nothing was stored"):
        give_feedback(service, KEY, parts[9], verdict)
    after = service.fitted(KEY)
    assert (after.calibration.n_ok, len(recorded_images(after.metadata))) == (2, 8)


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_a_fit_that_came_meanwhile_is_not_overwritten(service, parts, scores, verdict, monkeypatch):
    read = service.store.calibration_inputs

    def read_and_overtaken(fitted):
        inputs = read(fitted)
        fit(service, KEY, parts[:3], mm_per_px=0.2)
        return inputs

    monkeypatch.setattr(service.store, "calibration_inputs", read_and_overtaken)
    with pytest.raises(StaleModel, match=r"was fitted anew .*nothing was stored"):
        give_feedback(service, KEY, parts[9], verdict)
    assert len(recorded_images(service.fitted(KEY).metadata)) == 3


def test_statistics_of_production_begin_anew_with_the_good_scores(service, parts, scores, monkeypatch):
    begun = []
    monkeypatch.setattr(service.drift, "begin", lambda key, _calibration, ok: begun.append((key, list(ok))))
    give_feedback(service, KEY, parts[9], "good", dry_run=True)
    assert begun == []
    told = give_feedback(service, KEY, parts[9], "good")
    assert begun == [(KEY, [*scores[0], told.score])]


def test_an_image_of_the_bank_that_counted_as_defective_no_longer_does(service, pictures):
    """It joins no good images: the bank has seen it, so it has no honest score to join them with."""
    contents = [encoded(picture) for picture in pictures]
    fit(service, IN_RECIPE, [NamedImage(f"{n}.png", lambda c=c: c) for n, c in enumerate(contents[:8])], mm_per_px=0.2)
    store(service, "ok", contents[8:11])
    store(service, "ng", [contents[0], encoded(with_a_defect(pictures[0], 24))])
    calibrate_stored(service, IN_RECIPE, CalibrationOptions(), default_mm_per_px=0.2, require_ng=True)
    before = service.fitted(IN_RECIPE)
    told = give_feedback(service, IN_RECIPE, NamedImage("part.png", lambda: contents[0]), "good")
    assert told.changed
    assert "counted as defective until now" in told.warning
    after = service.fitted(IN_RECIPE)
    assert (after.memory_id, after.calibration.n_ok, after.calibration.n_ng) == (before.memory_id, 3, 1)
