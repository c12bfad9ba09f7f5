"""Putting an earlier model back: which model and which threshold are served then, to whoever reads meanwhile."""

import errno
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from backend.common.errors import StorageError
from backend.disk import fitted as fitted_module
from backend.disk import memory_file, versions
from backend.storage import ModelStore
from tests.factories import (
    IN_RECIPE,
    KEY,
    calibration_of,
    index_bytes,
    listed,
    load,
    memory_of,
    same_memory,
    served,
    snapshot,
    store_memory,
    store_threshold,
    without_versions,
)


def test_rolling_back_serves_the_model_of_then_with_its_calibration(changed):
    version, fitted = ModelStore(changed).roll_back(KEY, 2)
    assert version.number == 2
    assert same_memory(fitted, memory_of(1))
    assert (fitted.calibration.threshold, fitted.calibration_state, fitted.layout) == (0.4, "applied", "current")
    assert fitted.metadata == load(changed).metadata
    assert served(changed) == (1, 0.4)
    index = changed / "Master1" / "Pattern" / "index.faiss"
    assert index.read_bytes() == index_bytes(memory_of(1).embeddings)


def test_rolling_back_twice_goes_forward_again(changed):
    store_memory(changed, 3)
    assert served(changed) == (3, None)
    for expected in [(2, 0.6), (3, None), (2, 0.6)]:
        ModelStore(changed).roll_back(KEY)
        assert served(changed) == expected
    assert listed(changed)[:3] == [(7, "rollback", None), (6, "rollback", 0.6), (5, "rollback", None)]


@pytest.mark.slow
def test_any_sequence_of_changes_can_be_undone_one_by_one(tmp_path):
    chance = np.random.default_rng(0)
    store, states = ModelStore(tmp_path, 1000), []
    store.save_memory(KEY, memory_of(1), {})
    for _ in range(40):
        states.append(served(tmp_path))
        if chance.random() < 0.5:
            store.save_memory(KEY, memory_of(int(chance.integers(1, 5))), {})
        else:
            store.save_calibration(KEY, calibration_of(store.load(KEY), float(chance.choice([0.4, 0.5, 0.6]))))
        if served(tmp_path) == states[-1]:
            states.pop()
    assert len(states) > 25
    assert [number for number, *_ in listed(tmp_path)] == list(range(len(states), 0, -1))
    for number in reversed(range(len(states))):
        store.roll_back(KEY, number + 1)
        assert served(tmp_path) == states[number]


def test_version_without_calibration_leaves_none_after_a_roll_back(changed):
    """Even a calibration of the same memory bank that came later is not taken."""
    ModelStore(changed).roll_back(KEY, 3)
    fitted = load(changed)
    assert same_memory(fitted, memory_of(2))
    assert (fitted.calibration, fitted.calibration_state) == (None, "none"), "the 0.6 of that bank came later"
    ModelStore(changed).roll_back(KEY, 1)
    assert (served(changed), load(changed).calibration_state) == ((1, None), "none")
    assert not (changed / "Master1" / "Pattern" / "calib.json").exists()
    assert ModelStore(changed).count_stale() == 0


def test_calibration_of_another_blur_comes_back_and_applies_under_its_own(tmp_path):
    """Under another blur it is stale; with the blur it was made for it is applied again."""
    blurred, sharp = ModelStore(tmp_path, blur_sigma=1.0), ModelStore(tmp_path, blur_sigma=0.0)
    store_memory(tmp_path, 1)
    blurred.save_calibration(KEY, replace(calibration_of(load(tmp_path), 0.4), blur_sigma=1.0))
    store_memory(tmp_path, 2)
    _, fitted = sharp.roll_back(KEY)
    assert (fitted.calibration, fitted.calibration_state) == (None, "stale")
    assert (sharp.load(KEY).calibration, sharp.load(KEY).calibration_state) == (None, "stale")
    assert blurred.load(KEY).calibration.threshold == 0.4


def test_rolling_back_to_what_is_served_changes_nothing(changed):
    ModelStore(changed).roll_back(KEY, 2)
    before, kept = without_versions(changed), listed(changed)
    version, fitted = ModelStore(changed).roll_back(KEY, 2)
    assert (version.number, same_memory(fitted, memory_of(1))) == (2, True)
    assert without_versions(changed) == before
    assert listed(changed) == kept


def test_rolling_back_keeps_no_more_than_the_last_few(tmp_path):
    store = ModelStore(tmp_path, 2)
    for seed in (1, 2, 3):
        store.save_memory(KEY, memory_of(seed), {})
    store.roll_back(KEY, 1)
    assert served(tmp_path) == (1, None)
    assert listed(tmp_path) == [(3, "rollback", None), (2, "fit", None), (1, "fit", None)]
    store.roll_back(KEY, 1)
    assert served(tmp_path) == (1, None), "a client that got no reply asks again"
    store.save_memory(KEY, memory_of(4), {})
    assert [number for number, *_ in listed(tmp_path)] == [4, 3]


@pytest.mark.parametrize("failing", ["memory.npz", "calib.json"])
def test_failed_roll_back_changes_no_threshold(tmp_path, monkeypatch, failing):
    """The threshold stays even where the two versions have the same memory bank."""
    store_memory(tmp_path, 1, n_images=3)
    store_threshold(tmp_path, 0.5)
    store_memory(tmp_path, 1, n_images=4)  # an image was appended that added nothing
    store_threshold(tmp_path, 0.9)
    put_back = versions.restore_file

    def full(kept_file, target):
        if target.name == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        put_back(kept_file, target)

    with monkeypatch.context() as patch:
        patch.setattr(versions, "restore_file", full)
        with pytest.raises(StorageError):
            ModelStore(tmp_path).roll_back(KEY, 2)
    assert served(tmp_path) == (1, 0.9)
    ModelStore(tmp_path).roll_back(KEY, 2)
    assert served(tmp_path) == (1, 0.5)
    assert load(tmp_path).metadata["n_images"] == 3


def test_recipe_keeps_its_own_threshold_during_a_default_roll_back(tmp_path):
    """The default recipe is in the middle of its roll-back."""
    store_memory(tmp_path, 1)
    store_threshold(tmp_path, 0.5)
    store_threshold(tmp_path, 0.7, IN_RECIPE)
    model = tmp_path / "Master1" / "Pattern"
    shutil.copyfile(model / "calib.json", model / ".calib.next.json")
    assert served(tmp_path, IN_RECIPE) == (1, 0.7)


@pytest.mark.parametrize("trouble", ["damaged", "deleted"])
def test_a_memory_that_is_damaged_or_gone_is_mended_by_rolling_back(changed, trouble):
    memory = changed / "Master1" / "Pattern" / "memory.npz"
    if trouble == "damaged":
        shutil.copyfile(memory, memory.with_name("copy"))  # as the version must not be damaged with it
        memory.with_name("copy").replace(memory)
        with memory.open("r+b") as file:
            file.truncate(100)
    else:
        memory.unlink()
    ModelStore(changed).roll_back(KEY, 2)
    assert served(changed) == (1, 0.4)
    ModelStore(changed).roll_back(KEY, 3)
    assert served(changed) == (2, None)


def test_a_model_of_a_recipe_is_rolled_back_alone(changed):
    store_memory(changed, 3, IN_RECIPE)
    store_memory(changed, 4, IN_RECIPE)
    before = snapshot(changed / "Master1")
    ModelStore(changed).roll_back(IN_RECIPE)
    assert load(changed, IN_RECIPE).key == IN_RECIPE.owner
    assert (served(changed, IN_RECIPE), served(changed)) == ((3, None), (2, 0.6))
    assert snapshot(changed / "Master1") == before


@pytest.mark.slow
def test_other_processes_serve_it_at_the_next_load(changed):
    here, there = ModelStore(changed, 100), ModelStore(changed, 100)
    assert same_memory(there.load(KEY), memory_of(2))
    for _ in range(3):
        here.roll_back(KEY, 2)
        assert same_memory(there.load(KEY), memory_of(1))
        assert there.load(KEY).calibration.threshold == 0.4
        there.save_memory(KEY, memory_of(2), {})
        assert same_memory(here.load(KEY), memory_of(2))
        here.save_calibration(KEY, calibration_of(here.load(KEY), 0.6))
        there.roll_back(KEY, next(number for number, _, threshold in listed(changed) if threshold == 0.4))
        here.roll_back(KEY)
        assert same_memory(there.load(KEY), memory_of(2))
        assert there.load(KEY).calibration.threshold == 0.6


@pytest.mark.slow
def test_whoever_reads_during_a_roll_back_finds_the_one_model_or_the_other(changed):
    found, done = [], threading.Event()

    def read():
        store = ModelStore(changed)
        while not done.is_set():
            fitted = store.load(KEY)
            found.append((fitted.memory_id, fitted.calibration and fitted.calibration.threshold))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    writer = ModelStore(changed)
    writer.roll_back(KEY, 2)
    for _ in range(60):
        writer.roll_back(KEY)
    done.set()
    for reader in readers:
        reader.join()
    ids = [memory_file.memory_id(memory_of(seed)) for seed in (1, 2)]
    assert set(found) == {(ids[0], 0.4), (ids[1], 0.6)}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_roll_back_between_the_two_reads_of_a_load_is_noticed(changed, monkeypatch, version):
    read, store = fitted_module.read_calibration, ModelStore(changed)

    def after_a_roll_back(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        ModelStore(changed).roll_back(KEY, version)
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_a_roll_back)
    fitted = store.load(KEY)
    seed, threshold = {1: (1, None), 2: (1, 0.4), 3: (2, None)}[version]
    assert same_memory(fitted, memory_of(seed))
    assert (fitted.calibration and fitted.calibration.threshold) == threshold
