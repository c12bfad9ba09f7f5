"""`fit` and `calibrate` where a fit is too large to score all of its images: the sample stands for them."""

import json

import numpy as np
import pytest

from backend.bank import building, leave_one_out_sample
from backend.commands import scoring
from backend.commands.evaluate.results import sample_remarks
from tests.commands.parts import PARTS, ROI


@pytest.fixture
def too_large(monkeypatch):
    """Every fit is too large, and two images are scored."""
    monkeypatch.setattr(building, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(leave_one_out_sample, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", 2)
    monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))


def test_fit_prints_the_scores_of_the_sample_by_a_name_of_their_own(run, too_large):
    status, out, err = run("fit", *ROI, "parts", "--all-scores")
    printed = json.loads(out)
    assert status == 0
    assert not {"ok_scores", "ok_scores_summary"} & printed.keys()
    scores = printed["ok_scores_sample"]
    assert len(scores) == printed["ok_scores_sample_summary"]["n"] == 2
    assert scores.keys() < set(PARTS)
    assert f"by the memory bank of the others 2 of them, drawn at random, score {min(scores.values()):.3f} to" in err
    assert "warning: no ok_scores: comparing 256 embeddings with a bank of 6 would take more than a minute" in err


@pytest.mark.parametrize("ok", [(), ("--ok", "parts")])
def test_calibrate_counts_the_sample_and_no_other_image_of_the_fit(run, too_large, ok):
    scores = json.loads(run("fit", *ROI, "parts", "--all-scores")[1])["ok_scores_sample"]
    status, out, err = run("calibrate", *ROI, *ok)
    printed = json.loads(out)
    assert (status, printed["n_ok"]) == (0, 2)
    assert printed["threshold"] == float(np.percentile(list(scores.values()), 99))
    told = "2 images of the fit do not count: a random sample of 2 of the 4 images of the fit was scored by"
    assert told in printed["warning"]
    assert told in err


def test_calibrate_on_images_of_the_fit_outside_the_sample_is_refused(run, too_large):
    scores = json.loads(run("fit", *ROI, "parts", "--all-scores")[1])["ok_scores_sample"]
    status, _, err = run("calibrate", *ROI, "--ok", *(path for path in PARTS if path not in scores))
    assert status == 2
    assert "no OK image counts: 2 images of the fit do not count" in err


def test_evaluate_says_that_a_threshold_rests_on_a_sample():
    assert sample_remarks(119, 1000)[0].startswith(
        "the threshold is based on a random sample of 119 of the 1000 training"
    )
    assert sample_remarks(1000, 1000) == sample_remarks(0, 1) == []
