"""The store as a whole: what crashes and damage leave of a model, what processes see of it, and which ids it takes."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from backend.common.errors import InvalidRequest, StorageError
from backend.common.roi_key import RoiKey
from backend.disk import calibration_file
from backend.disk.layout import folder_name
from backend.storage import ModelStore
from tests.factories import (
    AWKWARD,
    KEY,
    calibration_of,
    index_bytes,
    load,
    memory_of,
    same_memory,
    snapshot,
    store_threshold,
    unit_rows,
    write_memory,
)

# --- what is fitted


def test_a_roi_that_was_never_fitted_has_no_model(tmp_path):
    assert ModelStore(tmp_path).load(KEY) is None
    assert ModelStore(tmp_path / "not there").load(KEY) is None
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert ModelStore(tmp_path).load(RoiKey("Master1", "Other")) is None
    assert ModelStore(tmp_path).load(RoiKey("Master1", "pattern")) is None


def test_fitted_rois_are_counted_in_every_layout(tmp_path):
    store = ModelStore(tmp_path)
    assert store.count_fitted() == 0
    store.save_memory(KEY, memory_of(1), {})
    store.save_memory(RoiKey("Master1", "Other"), memory_of(2), {})
    write_memory(tmp_path / "Old_Roi.npz", unit_rows(3, 8, 0), (1, 3))
    assert store.count_fitted() == 3


# --- crashes and damage


class Killed(BaseException):
    """The process dies here."""


def test_a_crash_at_any_step_of_a_fit_leaves_the_old_model_or_the_new(tmp_path, monkeypatch):
    old, new = memory_of(1), memory_of(2)
    outcomes = []
    for fatal_step in range(1, 50):
        root = tmp_path / str(fatal_step)
        ModelStore(root).save_memory(KEY, old, {})
        steps = iter(range(1, 1000))

        def dying(call, steps=steps, fatal_step=fatal_step):
            def step(*arguments, **options):
                if next(steps) == fatal_step:
                    raise Killed
                return call(*arguments, **options)

            return step

        with monkeypatch.context() as patched:
            for owner, name in [(os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")]:
                patched.setattr(owner, name, dying(getattr(owner, name)))
            try:
                ModelStore(root).save_memory(KEY, new, {})
                died = False
            except Killed:
                died = True
        fitted = load(root)
        assert same_memory(fitted, old) or same_memory(fitted, new)
        # Whatever the crash left of the index, the next reader repairs it.
        folder = root / "Master1" / "Pattern"
        assert (folder / "index.faiss").read_bytes() == index_bytes(fitted.memory.embeddings)
        outcomes.append("old" if same_memory(fitted, old) else "new")
        if not died:
            break
    assert not died, "every step was tried"
    assert outcomes == sorted(outcomes, reverse=True), "first the old, from some step on the new"
    assert {"old", "new"} == set(outcomes)


def test_what_a_killed_writer_left_is_cleared_by_the_next_and_never_read(fitted_folder, tmp_path):
    folder, memory = fitted_folder
    (folder / ".tmp-0123").write_bytes(b"half a memory")
    assert same_memory(load(tmp_path), memory)
    ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("unwritable", ["memory.npz", "index.faiss"])
def test_a_fit_that_cannot_be_written_whole_changes_nothing(fitted_folder, tmp_path, monkeypatch, unwritable):
    _, memory = fitted_folder
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(load(tmp_path)))
    replace = Path.replace

    def full_disk(path, target):
        if Path(target).name == unwritable:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full_disk)
        with pytest.raises(StorageError, match="No space left"):
            ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
    fitted = load(tmp_path)
    assert same_memory(fitted, memory)
    assert fitted.calibration_state == "applied"


@pytest.mark.parametrize("seed", [1, 2], ids=["same images", "other images"])
def test_a_fit_mends_a_damaged_calibration_by_setting_it_aside(fitted_folder, tmp_path, seed):
    folder, _ = fitted_folder
    (folder / "calib.json").write_bytes(b"{")
    ModelStore(tmp_path).save_memory(KEY, memory_of(seed), {})
    fitted = load(tmp_path)
    assert (same_memory(fitted, memory_of(seed)), fitted.calibration_state) == (True, "none")
    (aside,) = (folder / "history").iterdir()
    assert aside.read_bytes() == b"{"
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(fitted))
    ModelStore(tmp_path).save_memory(KEY, memory_of(3), {})
    assert load(tmp_path).calibration_state == "stale"
    assert list((folder / "history").iterdir()) == [aside], "one that can be read stays where it is"


def test_a_fit_is_stored_where_a_damaged_calibration_cannot_be_set_aside(fitted_folder, tmp_path):
    folder, _ = fitted_folder
    (folder / "calib.json").write_bytes(b"{")
    (folder / "history").write_text("in the way")
    ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
    assert same_memory(ModelStore(tmp_path).load(KEY, with_calibration=False), memory_of(2))


def test_fit_leaves_a_calibration_it_cannot_read_for_now_where_it_is(fitted_folder, tmp_path, monkeypatch):
    """Too many files are open: the calibration is not damaged and must not be set aside as if it were."""

    def too_many_files(*_arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    store_threshold(tmp_path, 0.6, KEY)
    with monkeypatch.context() as patched:
        patched.setattr(calibration_file, "read_small", too_many_files)
        ModelStore(tmp_path).save_memory(KEY, memory_of(1), {"n_images": 3})
    assert load(tmp_path).calibration.threshold == 0.6


def test_unusable_models_folder_is_a_storage_error_without_its_path(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StorageError) as caught:
        ModelStore(tmp_path / "models").save_memory(KEY, memory_of(1), {})
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(StorageError):
        ModelStore(tmp_path / "models").save_calibration(KEY, calibration_of(None))


# --- several processes


def test_two_stores_on_one_folder_see_each_others_writes_at_the_next_load(tmp_path):
    here, there = ModelStore(tmp_path), ModelStore(tmp_path)
    assert there.load(KEY) is None
    for seed in range(1, 6):
        here.save_memory(KEY, memory_of(seed), {})
        seen = there.load(KEY)
        assert seen is not None
        assert same_memory(seen, memory_of(seed))
        assert seen.calibration is None
        there.save_calibration(KEY, calibration_of(seen, seed / 10))
        fitted = here.load(KEY)
        assert fitted is not None
        assert fitted.calibration is not None
        assert fitted.calibration.threshold == seed / 10
        here, there = there, here


def test_a_model_that_was_deleted_is_gone_at_the_next_load(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    assert store.load(KEY) is not None
    shutil.rmtree(fitted_folder[0])
    assert store.load(KEY) is None


# --- ids


@pytest.mark.parametrize("identifier", ["", "x" * 241, "x" * 300, "日" * 27, "/" * 81])
def test_ids_that_no_folder_can_carry_are_invalid_requests(identifier, tmp_path):
    with pytest.raises(InvalidRequest, match=r"ids must not be empty.*240"):
        folder_name(identifier)
    for key in (RoiKey(identifier, "roi"), RoiKey("role", identifier)):
        with pytest.raises(InvalidRequest):
            ModelStore(tmp_path).load(key)
        with pytest.raises(InvalidRequest):
            ModelStore(tmp_path).save_memory(key, memory_of(1), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key",
    [RoiKey("a" * 128, "b" * 128), RoiKey("ñ" * 40, "x" * 128), RoiKey("a" * 240, "b" * 240)],
    ids=lambda key: key.role_id[:3],
)
def test_long_ids_are_served_though_older_layouts_could_not_hold_them(key, tmp_path):
    """A folder can carry ids of these lengths."""
    store = ModelStore(tmp_path)
    assert store.load(key) is None, "not fitted, which is no storage error"
    store.save_memory(key, memory_of(1), {})
    assert same_memory(load(tmp_path, key), memory_of(1))


@pytest.mark.parametrize("identifier", AWKWARD, ids=ascii)
def test_nothing_is_read_or_written_outside_the_models_folder(identifier, tmp_path):
    root = tmp_path / "deep" / "models"
    outside = tmp_path / "memory.npz"
    write_memory(outside, unit_rows(4, 8, 0), (2, 2))
    write_memory(tmp_path / "deep" / "memory.npz", unit_rows(4, 8, 0), (2, 2))
    before = snapshot(tmp_path)
    store = ModelStore(root)
    for key in (RoiKey(identifier, identifier), RoiKey(identifier, "x"), RoiKey("x", identifier)):
        assert store.load(key) is None
        store.save_memory(key, memory_of(1), {})
        store.save_calibration(key, calibration_of(store.load(key)))
        fitted = store.load(key)
        assert fitted is not None
        assert same_memory(fitted, memory_of(1))
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / name for name in before}
    assert written
    assert all(path.resolve().is_relative_to(root.resolve()) for path in written)
    assert {name: state for name, state in snapshot(tmp_path).items() if name in before} == before
