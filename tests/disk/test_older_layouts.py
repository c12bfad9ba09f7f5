"""Models of older backends: read in each of their layouts, never written, and behind what is fitted here."""

import numpy as np
import pytest

from backend.calib import Calibration
from backend.common.roi_key import RoiKey
from backend.disk import candidates
from backend.storage import ModelStore
from tests.factories import (
    KEY,
    LAYOUTS,
    calibration_of,
    load,
    memory_of,
    older_files,
    same_memory,
    snapshot,
    store_threshold,
    unit_rows,
    write_memory,
)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_model_of_an_older_backend_is_looked_for_once_at_a_load(tmp_path, monkeypatch, calibrated):
    line, walk, walked = RoiKey("Master1", "Pattern", "line 1"), candidates.older_of_recipe, []
    name = older_files(tmp_path, "L2", KEY)[0].name
    write_memory(tmp_path / "recipes" / "line 1" / "Pattern" / name, unit_rows(12, 16, 8), (3, 4))
    if calibrated:
        store_threshold(tmp_path, 0.6, line)
    monkeypatch.setattr(candidates, "older_of_recipe", lambda *ids: walked.append(ids) or walk(*ids))
    assert load(tmp_path, line).calibration_state == ("applied" if calibrated else "none")
    assert len(walked) == 1


OLD_KEYS = [KEY, RoiKey("A B", "ro.i"), RoiKey("Línea-3", "tapa_ñ")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", OLD_KEYS, ids=str)
def test_a_model_of_an_older_backend_is_read_and_never_written(tmp_path, layout, key):
    embeddings = unit_rows(12, 1152, 8)
    memory_file, index_file, calibration_file = older_files(tmp_path, layout, key)
    write_memory(memory_file, embeddings, (3, 4), metadata=np.array('{"anything": "else"}'))
    index_file.write_bytes(b"stale against its npz")
    calibration_file.write_text(
        '{"threshold": 20.0, "p99_ok": 12.0, "p5_ng": 28.0, "mm_per_px": 0.2, '
        '"area_mm2_thr": 1.0, "score_percentile": 99}',
        encoding="utf-8",
    )
    before = snapshot(tmp_path)
    fitted = load(tmp_path, key)
    assert fitted.layout == layout
    assert np.array_equal(fitted.memory.embeddings, embeddings)
    assert fitted.memory.token_hw == (3, 4)
    assert fitted.calibration == Calibration(20.0, 99, 1.0, mm_per_px=0.2, p99_ok=12.0, p5_ng=28.0)
    assert fitted.calibration_state == "applied"
    assert snapshot(tmp_path) == before

    # A new calibration and then a new fit go to the current place, and win.
    store = ModelStore(tmp_path)
    store.save_calibration(key, calibration_of(fitted, 0.7))
    recalibrated = load(tmp_path, key)
    assert recalibrated.layout == layout
    assert recalibrated.calibration is not None
    assert recalibrated.calibration.threshold == 0.7
    store.save_memory(key, memory_of(4), {})
    refitted = load(tmp_path, key)
    assert refitted.layout == "current"
    assert same_memory(refitted, memory_of(4))
    assert (refitted.calibration, refitted.calibration_state) == (None, "stale")
    if layout != "L0":
        after = snapshot(tmp_path)
        assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_calibration_of_an_older_memory_is_never_applied_to_a_new_one(tmp_path, layout):
    memory_file, _, calibration_file = older_files(tmp_path, layout, KEY)
    write_memory(memory_file, unit_rows(12, 16, 8), (3, 4))
    calibration_file.write_text('{"threshold": 0.5}', encoding="utf-8")
    assert load(tmp_path).calibration_state == "applied"
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert load(tmp_path).calibration is None


def test_the_newest_layout_wins(tmp_path):
    for dim, layout in enumerate(LAYOUTS, start=3):
        write_memory(older_files(tmp_path, layout, KEY)[0], unit_rows(4, dim, 0), (2, 2))
    before = snapshot(tmp_path)
    found = []
    for layout in ["L2", "L1", "L0"]:
        fitted = load(tmp_path)
        found.append((fitted.layout, fitted.memory.embeddings.shape[1]))
        older_files(tmp_path, layout, KEY)[0].rename(tmp_path / f"{layout}.away")
    assert found == [("L2", 5), ("L1", 4), ("L0", 3)]
    assert ModelStore(tmp_path).load(KEY) is None
    for layout in LAYOUTS:
        (tmp_path / f"{layout}.away").rename(older_files(tmp_path, layout, KEY)[0])
    assert snapshot(tmp_path) == before
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert load(tmp_path).layout == "current"
