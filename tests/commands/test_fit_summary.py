"""What `fit` prints: a summary that fits on a screen, however many images there are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.bank.images import SuspiciousImage
from backend.commands import fit as fit_command
from tests.commands.parts import PARTS, ROI, calibrated


def test_no_path_is_printed_unless_all_scores_are_asked_for(run, work):
    status, out, err = run("fit", *ROI, "parts")
    assert status == 0
    assert not any(Path(path).name in out + err for path in PARTS)
    printed = json.loads(out)
    assert "ok_scores" not in printed
    assert printed["ok_scores_summary"]["n"] == printed["n_images"] == 4
    assert list(json.loads(run("fit", *ROI, "parts", "--all-scores")[1])["ok_scores"]) == PARTS


def test_stderr_says_what_was_built_and_what_comes_next(run, work, features):
    printed, err = (run("fit", *ROI, "parts")[number] for number in (1, 2))
    summary = json.loads(printed)["ok_scores_summary"]
    assert "fitted on 4 images: the memory bank keeps 6 of 256 patch embeddings\n" in err
    assert f"they score {summary['min']:.3f} to {summary['max']:.3f}, median {summary['median']:.3f}\n" in err
    assert err.endswith("next: `roi-anomaly calibrate`\n")
    calibrated(work, features, 0.5)
    err = run("fit", *ROI, "parts/a")[2]
    assert err.endswith("next: `roi-anomaly calibrate`: the threshold was chosen for the model before\n")


def test_suspicious_images_are_all_printed_but_three_are_said(run, work, monkeypatch):
    fit_images = fit_command.fit_images

    def suspecting_all(*given, **options):
        result = fit_images(*given, **options)
        return replace(result, suspicious=[SuspiciousImage(n, PARTS[n], result.ok_scores[n]) for n in range(4)])

    monkeypatch.setattr(fit_command, "fit_images", suspecting_all)
    _, out, err = run("fit", *ROI, "parts", "--all-scores")
    score = json.loads(out)["ok_scores"][PARTS[2]]
    assert json.loads(out)["suspicious"] == PARTS
    assert f"perhaps defective, as they score far above the others: {PARTS[0]} (" in err
    assert f", {PARTS[2]} ({score:.3f}) and 1 more\n" in err


def test_a_fit_without_scores_says_why_and_summarises_none(run, work):
    status, out, err = run("fit", *ROI, "parts/1.png", "--all-scores")
    assert (status, {"ok_scores", "ok_scores_summary"} & json.loads(out).keys()) == (0, set())
    assert "warning: no ok_scores: 1 image has no others to be compared with" in err
    assert "they score" not in err


@pytest.mark.parametrize("option", ["--append", "--group-copies"])
def test_images_of_this_fit_are_counted_alone(run, work, option):
    assert json.loads(run("fit", *ROI, "parts/a", option)[1])["n_images"] == 2
