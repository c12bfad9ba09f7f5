"""Verdicts: OK only where every ROI of the part was answered OK, by a model that knows the place."""

import dataclasses
import json

import pytest

from backend.commands.watch.arrivals import Arrival, identity_of
from backend.commands.watch.crop import Roi
from backend.commands.watch.judges import place_of
from backend.commands.watch.judging import Cut, Judging
from backend.commands.watch.layouts import read_layout
from backend.commands.watch.preparing import prepare
from backend.commands.watch.verdicts import RoiVerdict, of_part
from tests.commands.watch.lines import RECT, RING, BrightnessJudge, drawn, layout_of, picture

STORED = "20261122-210455-123456-1a2b3c4d.png"


@pytest.fixture
def judge():
    return BrightnessJudge()


@pytest.fixture
def judging(judge):
    said = []
    judging = Judging(
        judge, read_layout(judge.stored, "line 1", "the layout", judge.template), follows=True, say=said.append
    )
    judging.said = said
    return judging


@pytest.fixture
def verdict(judging, tmp_path):
    """Judges a picture."""

    def verdict(content=None):
        (tmp_path / "part.png").write_bytes(content or picture())
        arrival = Arrival("part.png", identity_of(tmp_path / "part.png"))
        return judging.judge(prepare(tmp_path, arrival, judging.layout))

    return verdict


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ok", "ok", "ok"], "ok"),
        (["ok", "ng", "ok"], "ng"),
        (["not_judged", "ng", "ok"], "ng"),
        (["ok", "not_judged", "ok"], "not_judged"),
        (["not_judged"], "not_judged"),
    ],
)
def test_a_part_is_ng_if_any_roi_is_and_ok_only_if_all_are(judging, words, expected):
    drawn_roi = judging.layout.rois[0]
    assert of_part([RoiVerdict(drawn_roi, word, "why") for word in words])[0] == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"threshold": None, "decision": None, "calibration": "none"}, "The ROI has no threshold."),
        ({"calibration": "none"}, "The ROI has no threshold."),
        ({"threshold": None, "decision": None, "calibration": "stale"}, "was fitted anew since its threshold"),
        ({"calibration": "stale"}, "was fitted anew since its threshold"),
        ({"decision": None}, "The service gave no decision."),
        ({"decision": "good"}, "The service gave no decision."),
        ({"recipe_id": "default"}, "has no model of its own in this recipe"),
    ],
)
def test_an_answer_that_is_no_verdict_is_never_ok(judge, verdict, answer, reason):
    judge.answers["inspection-2"] = answer
    part = verdict()
    assert [roi.word for roi in part.rois] == ["ok", "not_judged"]
    assert part.word == "not_judged"
    assert part.reason.startswith("Place 2: ")
    assert reason in part.reason


def test_the_scale_is_the_services_and_else_that_of_the_layout(judge, verdict):
    judge.learnt["inspection-2"] = {"mm_per_px": 0.25}
    verdict()
    assert judge.asked == [("part.png", "inspection-1", 0.5), ("part.png", "inspection-2", 0.25)]


def test_a_roi_that_was_moved_since_the_fit_is_not_judged(judge, verdict):
    judge.learnt["inspection-1"] = {"place": "other"}
    part = verdict()
    assert part.word == "not_judged"
    assert "changed since the fit" in part.reason
    judge.learnt.clear()  # it was fitted anew
    assert verdict().word == "ok"


def test_a_fit_of_another_place_is_noticed_by_the_model_that_answers(judge, verdict):
    assert verdict().word == "ok"
    judge.answers["inspection-1"] = {"memory_id": "another"}
    judge.learnt["inspection-1"] = {"memory_id": "another", "place": "other"}
    assert verdict().word == "not_judged"


def test_a_fit_of_the_same_place_changes_nothing_but_the_model(judge, verdict):
    verdict()
    judge.answers["inspection-1"] = {"memory_id": "another"}
    judge.learnt["inspection-1"] = {"memory_id": "another"}
    part = verdict()
    assert (part.word, part.rois[0].answer.memory_id) == ("ok", "another")
    assert len(judge.asked) == 4  # nothing was asked twice


def test_a_model_that_changes_all_the_time_gives_no_verdict(judge, verdict):
    judge.answers["inspection-1"] = {"memory_id": "a third"}
    assert "was changed while this part was judged" in verdict().reason


def test_a_layout_that_was_changed_with_the_model_is_cut_by_anew(judge, judging, verdict):
    verdict()
    judge.answers["inspection-1"] = {"memory_id": "another"}
    judge.learnt["inspection-1"] = {"memory_id": "another"}
    judge.stored = layout_of(drawn(1, roi=RECT | {"cx": 25}), drawn(2, RING))
    with pytest.raises(Cut):
        verdict()
    assert judging.layout.rois[0].roi.cx == 25
    assert verdict().word == "ok"


def test_a_model_that_no_console_fitted_is_said_once(judge, judging, verdict):
    judge.learnt["inspection-1"] = {"place": "unknown"}
    assert [verdict().word for _ in range(2)] == ["ok", "ok"]
    assert len(judging.said) == 1
    assert "nobody can tell" in judging.said[0]


def test_a_warning_of_the_service_is_said_once_and_stays_with_the_part(judge, judging, verdict):
    judge.answers["inspection-2"] = {"warning": "The picture is dark."}
    parts = [verdict(), verdict()]
    assert judging.said == ["warning: Place 2: The picture is dark."]
    assert [part.as_dict()["rois"][1]["warning"] for part in parts] == ["The picture is dark."] * 2


def test_what_is_told_of_a_part_has_no_empty_values(verdict):
    told = verdict().as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told) == ["id", "time_utc", "recipe_id", "file", "sha256", "verdict", "ms", "rois"]
    assert told["rois"][1] == {
        "role_id": "Inspection",
        "roi_id": "inspection-2",
        "model_key": "inspection-2",
        "name": "Place 2",
        "verdict": "ok",
        "score": 0.0,
        "threshold": 0.5,
        "calibration": "applied",
        "n_regions": 0,
        "largest_area_mm2": 0.0,
        "memory_id": "bank",
    }


CUT = json.dumps(Roi(**RECT).cut)


@pytest.mark.parametrize(
    ("names", "metadata", "expected"),
    [
        ([], None, "unknown"),
        (["part.png"], {"console_cut": "[]"}, "unknown"),  # a file that was sent for a fit
        ([STORED], {"console_cut": CUT}, "same"),
        ([STORED], {"console_cut": CUT.replace(" ", "").replace(".0", "")}, "same"),  # as JavaScript writes it
        ([STORED], {"console_cut": json.dumps(Roi(**RECT | {"cx": 11}).cut)}, "other"),
        ([STORED], {"console_cut": "no JSON"}, "other"),
        ([STORED], {}, "unknown"),
        ([STORED], None, "other"),  # it was cut anew
    ],
)
def test_whether_a_model_knows_the_place_is_read_from_its_samples(names, metadata, expected):
    (roi,) = read_layout(layout_of(drawn(1)), None, "the layout", None).rois
    assert place_of(roi, names, lambda _: metadata) == expected


def test_a_cut_is_noted_as_the_console_notes_it():
    assert Roi(**RING).cut == ["annulus", 28, 15, 8, 2, 30]
    assert Roi(**RECT).cut == ["rect", 10, 15, 12, 10, 0]
    assert dataclasses.replace(Roi(**RECT), r=7).cut == Roi(**RECT).cut
