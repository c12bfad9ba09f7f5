"""`calibrate` with what the fit knows of its images: no image of the fit goes through the network again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.commands import scoring
from backend.service.fit import fit
from tests.commands.parts import CIRCLE, PARTS, ROI, named, service
from tests.factories import KEY


@pytest.fixture
def honest(work, features):
    """The scores of the images in parts/, which are fitted, each by the memory bank of the others."""
    fitted = fit(service(work, features), KEY, [named(path) for path in PARTS], mm_per_px=0.2)
    return dict(zip(PARTS, fitted.ok_scores, strict=True))


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))


def test_without_ok_the_images_of_the_fit_count_and_are_told(run, honest, no_network):
    status, out, err = run("calibrate", *ROI)
    assert status == 0
    assert "--ok: 4 images of the fit, each scored by the memory bank of the others\n" in err
    printed = json.loads(out)
    assert printed["n_ok"] == 4
    assert printed["threshold"] == float(np.percentile(list(honest.values()), 99))
    assert "promise" in printed, "they are as fresh as others"


def test_images_of_the_fit_that_ok_names_give_the_same(run, honest, no_network):
    expected = json.loads(run("calibrate", *ROI)[1])
    shutil.copytree("parts", "copies")
    status, out, err = run("calibrate", *ROI, "--ok", "copies", "--scores", "s.csv")
    assert (status, json.loads(out)) == (0, expected)
    assert "--ok: 4 of 4 images in the fit, scored by the memory bank of the others\n" in err


def test_only_images_that_the_fit_does_not_know_are_inferred(run, work, honest, monkeypatch):
    cv2.imwrite("fresh.png", cv2.flip(cv2.imread("parts/1.png"), 1))
    asked = []
    infer = scoring.infer
    monkeypatch.setattr(scoring, "infer", lambda *a, **k: asked.append(a[2].name) or infer(*a, **k))
    status, out, err = run("calibrate", *ROI, "--ok", "parts", "fresh.png")
    assert (status, json.loads(out)["n_ok"], asked) == (0, 5, ["fresh.png"])
    assert "4 of 5 images in the fit" in err
    asked.clear()
    status, out, _ = run("calibrate", *ROI, "--ng", "fresh.png")
    assert (status, json.loads(out)["n_ok"], json.loads(out)["n_ng"], asked) == (0, 4, 1, ["fresh.png"])


def test_a_mask_percentile_or_blur_that_the_fit_lacks_needs_ok(run, honest, monkeypatch):
    for options, says in [
        (("--shape", CIRCLE), "made with the mask of the whole image, see --shape"),
        (("--score-percentile", "97"), "of the percentiles 95, 98, 99, 99.5, 99.9, 100, see --score-percentile"),
    ]:
        status, out, err = run("calibrate", *ROI, *options)
        assert (status, out) == (2, "")
        assert says in err
        assert "give images of good parts with --ok" in err
    assert run("calibrate", *ROI, "--score-percentile", "95")[0] == 0
    monkeypatch.setenv("BLUR_SIGMA", "2")
    assert "another BLUR_SIGMA" in run("calibrate", *ROI)[2]


def test_a_fit_of_one_image_has_no_scores_and_nothing_is_stored(run, work):
    status, out, err = run("calibrate", *ROI)
    assert (status, out) == (2, "")
    assert "the fit made no scores: it had only one image" in err
    assert not Path("models/Master1/Pattern/calib.json").exists()


def test_an_image_of_the_fit_cannot_be_defective_too(run, honest, no_network):
    status, _, err = run("calibrate", *ROI, "--ng", "parts/a/1.png")
    assert status == 2
    assert "parts/a/1.png is given as NG, but it was in the fit" in err


def test_the_percentile_is_chosen_from_scores_of_the_fit(run, work, honest, monkeypatch):
    cv2.imwrite("bad.png", 255 - cv2.imread("parts/1.png"))
    status, out, _ = run("calibrate", *ROI, "--ng", "bad.png", "--choose-percentile")
    assert (status, json.loads(out)["n_ok"]) == (0, 4)


def test_a_fit_between_the_scores_and_the_calibration_is_noticed(run, work, features, honest, monkeypatch):
    """Scores of one memory bank never become the threshold of another."""
    conditions = scoring.Scorer.conditions
    asked = []

    def other_bank_at_last(scorer):
        asked.append(scorer)
        found = conditions(scorer)
        return found if len(asked) == 1 else replace(found, memory_id="another")

    monkeypatch.setattr(scoring.Scorer, "conditions", other_bank_at_last)
    status, _, err = run("calibrate", *ROI)
    assert (status, "fitted anew during this run" in err) == (1, True)
