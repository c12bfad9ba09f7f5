"""What a calibration was made from, as a file beside it."""

import json
from dataclasses import replace

import pytest

from backend.calib import ThresholdOptions
from backend.disk import calibration_inputs
from backend.disk.calibration_inputs import (
    MOST_SCORES,
    CalibrationInputs,
    ScoredImage,
    inputs_bytes,
    inputs_path,
    read_inputs,
    tidy_inputs,
    with_inputs,
)
from backend.storage import ModelStore
from tests.factories import KEY, calibration_of, load, store_memory, store_threshold, write_calibration

INPUTS = CalibrationInputs(
    (ScoredImage(0.4), ScoredImage(1 / 3, "1.png", "part 7.png", "ab")),
    (ScoredImage(0.9, "x.png"),),
    ThresholdOptions(rule="recommended", keep=(1,), not_good=(0,)),
    6,
    False,
)


def written(folder, inputs, content=b"{}"):
    calibration = folder / "calib.json"
    for path, bytes_of_it in with_inputs(calibration, content, inputs).items():
        path.write_bytes(bytes_of_it)
    return calibration


def test_what_is_written_is_read_again(tmp_path):
    assert read_inputs(written(tmp_path, INPUTS), b"{}") == INPUTS
    plain = CalibrationInputs((ScoredImage(0.4),))
    assert read_inputs(written(tmp_path, plain), b"{}") == plain


def test_scores_are_those_of_one_calibration_alone(tmp_path):
    calibration = written(tmp_path, INPUTS)
    assert read_inputs(calibration, b"{ }") is None
    assert list(with_inputs(calibration, b"{}", INPUTS)) == [inputs_path(calibration, b"{}"), calibration]


def test_a_name_of_odd_bytes_is_stored_as_text(tmp_path):
    inputs = CalibrationInputs((ScoredImage(0.4, "M\udce4rz.png"),))
    found = read_inputs(written(tmp_path, inputs), b"{}")
    assert found.ok[0].name == "M?rz.png"


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"ok": []},
        {"ok": [{"score": "0.4"}, {}]},
        {"ok": [{"score": float("nan")}]},
        {"n_candidates": 3},
        {"options": {"rule": "newest"}},
        {"options": {"decide_with": "region"}},
    ],
)
def test_scores_that_make_no_sense_or_are_of_a_newer_rule_go_unused(tmp_path, change):
    """A calibration is never made again by another rule than its own."""
    calibration = written(tmp_path, INPUTS)
    path = inputs_path(calibration, b"{}")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    assert read_inputs(calibration, b"{}") is None
    path.write_bytes(b"[" * 5000)
    assert read_inputs(calibration, b"{}") is None


def test_too_many_scores_are_not_stored(monkeypatch):
    most = CalibrationInputs((ScoredImage(0.4),) * MOST_SCORES)
    assert inputs_bytes(most) is not None
    assert inputs_bytes(CalibrationInputs((ScoredImage(0.4),) * MOST_SCORES, (ScoredImage(0.9),))) is None
    monkeypatch.setattr(calibration_inputs, "MAX_JSON_FILE_BYTES", len(inputs_bytes(most)) - 1)
    assert inputs_bytes(most) is None


def test_scores_of_no_calibration_are_cleared(tmp_path):
    calibration = written(tmp_path, INPUTS)
    written(tmp_path, INPUTS, b"{ }")
    (tmp_path / "notes.scores.json").touch()
    tidy_inputs(tmp_path, [calibration, tmp_path / "missing.json"])
    names = {inputs_path(calibration, b"{ }").name, "calib.json", "notes.scores.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_later_calibration_and_a_fit_leave_no_scores_of_another(tmp_path):
    store_memory(tmp_path, 1)
    store = ModelStore(tmp_path)
    for threshold in (0.4, 0.5):
        store.save_calibration(KEY, calibration_of(load(tmp_path), threshold), INPUTS)
    folder = tmp_path / "Master1" / "Pattern"
    own = inputs_path(folder / "calib.json", (folder / "calib.json").read_bytes())
    assert list(folder.glob("*.scores.json")) == [own]
    assert store.calibration_inputs(load(tmp_path)) == INPUTS
    store_memory(tmp_path, 2)
    assert list(folder.glob("*.scores.json")) == [own], "those of the calibration that is stale"
    store_threshold(tmp_path, 0.6)
    assert list(folder.glob("*.scores.json")) == []


def test_a_calibration_that_somebody_edited_has_no_scores(tmp_path):
    store_memory(tmp_path, 1)
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(load(tmp_path), 0.4), INPUTS)
    memory_id = load(tmp_path).memory_id
    write_calibration(tmp_path, threshold=0.7, memory_id=memory_id)
    assert ModelStore(tmp_path).calibration_inputs(load(tmp_path)) is None


def test_scores_added_to_a_calibration_that_stays_make_no_version(tmp_path):
    store_memory(tmp_path, 1)
    store, calibration = ModelStore(tmp_path), calibration_of(load(tmp_path), 0.4)
    store.save_calibration(KEY, calibration)
    n_versions = len(store.versions(KEY))
    store.save_calibration(KEY, calibration, INPUTS)
    assert len(store.versions(KEY)) == n_versions
    assert store.calibration_inputs(load(tmp_path)) == INPUTS


def test_feedback_that_changes_no_number_is_taken_back_alone(tmp_path):
    """A good image that did not stand out is kept from now on: the threshold stays, the next calibration may differ."""
    store_memory(tmp_path, 1)
    store = ModelStore(tmp_path)
    at_first = replace(INPUTS, options=ThresholdOptions(rule="recommended"))
    for threshold in (0.3, 0.4):
        store.save_calibration(KEY, calibration_of(load(tmp_path), threshold), at_first)
    before = load(tmp_path)
    store.save_calibration(KEY, before.calibration, INPUTS, instead_of=before)
    assert store.calibration_inputs(load(tmp_path)) == INPUTS
    store.roll_back(KEY)
    assert load(tmp_path).calibration.threshold == 0.4
    assert store.calibration_inputs(load(tmp_path)) == at_first
