"""A calibration and the memory bank that it belongs to: which is applied, even while either is replaced."""

import time

import pytest

from backend.common.errors import Conflict
from backend.common.roi_key import RoiKey
from backend.disk import fitted as fitted_module
from backend.disk import memory_cache, model_writer
from backend.storage import ModelStore
from tests.factories import (
    KEY,
    calibration_of,
    load,
    memory_of,
    older_files,
    same_memory,
    store_threshold,
    unit_rows,
    write_memory,
)


def test_a_calibration_made_for_an_earlier_fit_is_stale_and_not_applied(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(store.load(KEY)))
    assert load(tmp_path).calibration_state == "applied"
    store.save_memory(KEY, memory_of(2), {})
    for reader in (store, ModelStore(tmp_path)):
        fitted = reader.load(KEY)
        assert fitted is not None
        assert (fitted.calibration, fitted.calibration_state) == (None, "stale")
    store.save_calibration(KEY, calibration_of(store.load(KEY), 0.6))
    assert load(tmp_path).calibration == calibration_of(load(tmp_path), 0.6)


def test_the_same_memory_fitted_again_keeps_its_calibration(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(store.load(KEY)))
    store.save_memory(KEY, memory_of(1), {"n_images": 3})
    assert load(tmp_path).calibration_state == "applied"


def test_an_older_calibration_never_replaces_that_of_a_newer_fit(fitted_folder, tmp_path):
    slow, other = ModelStore(tmp_path), ModelStore(tmp_path)
    older = calibration_of(slow.load(KEY), 0.4)
    other.save_memory(KEY, memory_of(2), {})
    other.save_calibration(KEY, calibration_of(other.load(KEY), 0.6))
    with pytest.raises(Conflict, match="fitted anew since it was scored"):
        slow.save_calibration(KEY, older)
    fitted = load(tmp_path)
    assert (fitted.calibration_state, fitted.calibration) == ("applied", calibration_of(fitted, 0.6))


def test_fit_just_before_a_calibration_is_written_is_noticed_at_once(fitted_folder, tmp_path, monkeypatch):
    """Another fit comes between the load and the write of a calibration; the calibration is refused without waiting."""
    store = ModelStore(tmp_path)
    older, writing = calibration_of(store.load(KEY)), model_writer.writing

    def after_another_fit(folder, what):
        monkeypatch.setattr(model_writer, "writing", writing)
        ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
        (folder / "index.faiss").unlink()  # which a read would mend, if it did not wait for the lock that is held
        return writing(folder, what)

    monkeypatch.setattr(model_writer, "writing", after_another_fit)
    start = time.monotonic()
    with pytest.raises(Conflict):
        store.save_calibration(KEY, older)
    assert time.monotonic() - start < 5
    assert same_memory(store.load(KEY), memory_of(2))
    assert (fitted_folder[0] / "index.faiss").exists(), "the next read mends it"


def test_fit_and_calibration_that_come_during_a_read_are_read_together(fitted_folder, tmp_path, monkeypatch):
    read, store = fitted_module.read_calibration, ModelStore(tmp_path)

    def after_another_fit(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        other = ModelStore(tmp_path)
        other.save_memory(KEY, memory_of(2), {})
        other.save_calibration(KEY, calibration_of(other.load(KEY), 0.6))
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_another_fit)
    fitted = store.load(KEY)
    assert same_memory(fitted, memory_of(2))
    assert (fitted.calibration_state, fitted.calibration) == ("applied", calibration_of(fitted, 0.6))


def test_recipe_model_that_comes_during_a_read_is_not_mixed_with_default(fitted_folder, tmp_path, monkeypatch):
    """A recipe gets its first model while it is read; the reader gets that model with its own calibration."""
    line, read, store = RoiKey("Master1", "Pattern", "line 1"), fitted_module.read_calibration, ModelStore(tmp_path)
    store_threshold(tmp_path, 0.4, KEY)
    store_threshold(tmp_path, 0.6, line)
    assert store.load(line).calibration.threshold == 0.6

    def after_its_own_fit(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        ModelStore(tmp_path).save_memory(line, memory_of(2), {})
        store_threshold(tmp_path, 0.9, line)
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_its_own_fit)
    fitted = store.load(line)
    assert (same_memory(fitted, memory_of(2)), fitted.calibration.threshold) == (True, 0.9)


@pytest.mark.parametrize("layout", ["L0", "L1", "L2"])
def test_first_fit_during_a_read_is_not_mixed_with_an_older_backends_model(tmp_path, monkeypatch, layout):
    """The reader gets the new model with its own calibration and nothing of the older backend's."""
    read, store = fitted_module.read_calibration, ModelStore(tmp_path)
    memory_file, _, calibration_file = older_files(tmp_path, layout, KEY)
    write_memory(memory_file, unit_rows(12, 16, 8), (3, 4))
    calibration_file.write_text('{"threshold": 0.4}', encoding="utf-8")
    if layout != "L0":  # there the first calibration of this service takes the place of the older one
        store_threshold(tmp_path, 0.6, KEY)

    def after_a_fit(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
        store_threshold(tmp_path, 0.9, KEY)
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_a_fit)
    fitted = store.load(KEY)
    assert (same_memory(fitted, memory_of(2)), fitted.calibration.threshold) == (True, 0.9)


def test_a_calibration_made_before_any_fit_is_stale_once_there_is_one(tmp_path):
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(None))
    assert store.load(KEY) is None
    store.save_memory(KEY, memory_of(1), {})
    fitted = load(tmp_path)
    assert (fitted.calibration, fitted.calibration_state) == (None, "stale")


def test_calibration_of_an_older_model_is_not_taken_for_the_defaults(tmp_path):
    """A recipe's calibration of an older backend's model stays applied when the default recipe is fitted."""
    store = ModelStore(tmp_path)
    line = RoiKey("Master1", "Pattern", "line 1")
    memory_file = older_files(tmp_path, "L2", KEY)[0]
    write_memory(tmp_path / "recipes" / "line 1" / "Pattern" / memory_file.name, unit_rows(12, 16, 8), (3, 4))
    assert store.load(line).layout == "L3"
    store_threshold(tmp_path, 0.6, line)
    store.save_memory(KEY, memory_of(1), {})
    assert store.load(line).calibration_state == "applied"
    assert store.count_stale() == 0


def test_what_judges_a_roi_is_told_without_its_embeddings(tmp_path, monkeypatch):
    line, unfitted = RoiKey("Master1", "Pattern", "line 1"), RoiKey("Master1", "Other")
    store = ModelStore(tmp_path)

    def as_loaded(key):
        found = load(tmp_path, key)
        return found.memory_id, found.calibration, found.calibrated

    def told(key):
        with monkeypatch.context() as patch:
            patch.setattr(memory_cache, "read_memory", None)
            return store.judged_by(key)

    store.save_memory(KEY, memory_of(1), {})
    assert told(KEY) == as_loaded(KEY)
    assert told(unfitted) is None
    store.save_calibration(KEY, calibration_of(load(tmp_path), 0.5))
    assert told(line) == as_loaded(line) == told(KEY)
    assert told(KEY).calibrated == KEY
    store.save_calibration(line, calibration_of(load(tmp_path), 0.7))
    assert told(line) == as_loaded(line)
    assert (told(line).calibrated, told(line).calibration.threshold) == (line.owner, 0.7)
    store.save_memory(KEY, memory_of(2), {})
    assert told(line) == as_loaded(line)
    assert told(line).calibration is None
