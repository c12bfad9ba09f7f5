"""The file of a calibration: its keys, what older backends left out of it, and damage."""

import json
from dataclasses import replace

import pytest

from backend.calib import Calibration, ThresholdOptions, calibrate
from backend.common.errors import StorageError
from backend.storage import ModelStore
from tests.factories import KEY, calibration_of, load, older_files, unit_rows, write_memory


def test_a_calibration_has_the_playbooks_keys_and_reads_back(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    calibration = calibrate(
        [0.3, 0.4],
        [0.8, 0.9],
        mm_per_px=0.2,
        area_mm2_thr=1.0,
        score_percentile=99.0,
        memory_id=load(tmp_path).memory_id,
    )
    store.save_calibration(KEY, calibration)
    text = (fitted_folder[0] / "calib.json").read_text(encoding="utf-8")
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["threshold"] == pytest.approx((0.399 + 0.805) / 2)
    assert values["p99_ok"] == pytest.approx(0.399)
    assert values["p5_ng"] == pytest.approx(0.805)
    assert (values["mm_per_px"], values["area_mm2_thr"]) == (0.2, 1.0)
    assert values["score_percentile"] == 99
    assert type(values["score_percentile"]) is int
    assert load(tmp_path).calibration == calibration
    assert load(tmp_path).calibration_state == "applied"


def test_a_calibration_by_the_recommended_rule_reads_back(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    calibration = calibrate(
        [0.3, 0.31, 0.32, 0.33, 0.34, 0.35, 0.9],
        [0.36, 0.9],
        mm_per_px=0.2,
        area_mm2_thr=1.0,
        score_percentile=99,
        memory_id=load(tmp_path).memory_id,
        options=ThresholdOptions(rule="recommended"),
    )
    assert (calibration.unusual, calibration.lowered_by) == ((6,), (0,))
    store.save_calibration(KEY, calibration)
    assert load(tmp_path).calibration == calibration


def test_a_calibration_of_many_unusual_scores_is_read_back(fitted_folder, tmp_path):
    """Files above a MiB are not read, and a hundred thousand positions would make one."""
    calibration = replace(calibration_of(load(tmp_path)), rule="recommended", unusual=tuple(range(200_000)))
    ModelStore(tmp_path).save_calibration(KEY, calibration)
    assert load(tmp_path).calibration.unusual == tuple(range(1000))


def test_a_calibration_without_ng_scores_leaves_their_keys_out(fitted_folder, tmp_path):
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(load(tmp_path)))
    values = json.loads((fitted_folder[0] / "calib.json").read_bytes())
    assert not {"p5_ng", "ng_mean"} & set(values)
    assert None not in values.values()
    fitted = load(tmp_path)
    assert fitted.calibration is not None
    assert fitted.calibration.p5_ng is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"threshold": 0.5', "[" * 100_000])
def test_a_damaged_calibration_is_a_storage_error_that_says_calibrate(fitted_folder, tmp_path, text):
    (fitted_folder[0] / "calib.json").write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match="calibrate this ROI again"):
        ModelStore(tmp_path).load(KEY)


@pytest.mark.parametrize(
    ("text", "calibration"),
    [
        ('{"threshold": 0.5}', Calibration(0.5)),
        ('{"threshold": 1, "p99_ok": NaN, "p5_ng": null, "mm_per_px": Infinity}', Calibration(1)),
        ('{"threshold": 0.5, "score_percentile": 150, "area_mm2_thr": -1}', Calibration(0.5)),
        ('{"threshold": 0.5, "score_percentile": 0, "area_mm2_thr": 0}', Calibration(0.5, area_mm2_thr=0)),
        (
            '{"threshold": 0.5, "score_percentile": 95, "area_mm2_thr": 2.5, "ok_mean": 0.3, "ng_mean": NaN, '
            '"request_id": "x", "recipe_id": "default", "n_ok": 12}',
            Calibration(0.5, 95, 2.5, ok_mean=0.3, n_ok=12),
        ),
        ('{"threshold": NaN, "p99_ok": 0.4}', None),
        ('{"p99_ok": 0.4}', None),
        ('{"threshold": "0.5"}', None),
        ('{"threshold": true}', None),
        ("{}", None),
        ('{"threshold": 1' + "0" * 400 + "}", None),
    ],
    ids=[
        "threshold only",
        "NaN",
        "out of range",
        "at the edge of the range",
        "later keys",
        "NaN threshold",
        "no threshold",
        "text",
        "bool",
        "empty",
        "beyond floats",
    ],
)
def test_calibrations_of_older_backends_are_read_without_what_they_lack(tmp_path, text, calibration):
    memory_file, _, calibration_file = older_files(tmp_path, "L0", KEY)
    write_memory(memory_file, unit_rows(4, 8, 0), (2, 2))
    calibration_file.write_text(text, encoding="utf-8")
    fitted = load(tmp_path)
    assert fitted.calibration == calibration
    assert fitted.calibration_state == ("none" if calibration is None else "applied")
