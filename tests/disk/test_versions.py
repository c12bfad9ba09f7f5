"""What is kept of earlier models: when, how many, and what becomes of it where the disk fails."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from backend.commands.migrate import older
from backend.common.errors import StorageError, VersionNotFound
from backend.common.roi_key import RoiKey
from backend.disk import memory_file
from backend.disk.layout import folder_name
from backend.storage import ModelStore
from tests.factories import (
    IN_RECIPE,
    KEY,
    calibration_of,
    listed,
    load,
    memory_of,
    older_files,
    refusing,
    served,
    snapshot,
    store_memory,
    store_threshold,
    unit_rows,
    without_versions,
    write_memory,
)

# --- what is kept


def test_every_change_keeps_the_model_before_it_and_says_what_it_was(changed):
    assert listed(changed) == [(3, "calibrate", None), (2, "fit", 0.4), (1, "calibrate", None)]
    first = ModelStore(changed).versions(KEY)[-1][0].facts
    assert (first.n_images, first.n_embeddings, first.coreset_size) == (3, 60, 20)
    assert first.memory_id == memory_file.memory_id(memory_of(1))
    times = [version.facts.kept_at_utc for version, _ in ModelStore(changed).versions(KEY)]
    assert times == sorted(times, reverse=True)
    ModelStore(changed).save_memory(KEY, memory_of(3), {}, instead_of=load(changed))
    assert listed(changed)[0] == (4, "append", 0.6)


def test_a_version_is_the_files_themselves_as_they_were_served(changed):
    folder = changed / "Master1" / "Pattern"
    store_memory(changed, 3)
    kept = folder / ".versions" / "4"
    assert {path.name for path in kept.iterdir()} == {"memory.npz", "calib.json", "version.json"}
    assert kept.joinpath("calib.json").samefile(folder / "calib.json"), "no room on the disk is taken twice"
    before = kept.joinpath("memory.npz").stat()
    ModelStore(changed).roll_back(KEY)
    assert (folder / "memory.npz").stat().st_ino == before.st_ino
    assert before.st_nlink == 2, "version 3 is that bank before it was calibrated"


def test_a_stale_or_damaged_calibration_is_no_part_of_a_version(changed):
    store_memory(changed, 3)
    store_memory(changed, 4)
    assert listed(changed)[0] == (5, "fit", None), "of bank 2, which is not that of the version"
    store_threshold(changed, 0.7)
    (changed / "Master1" / "Pattern" / "calib.json").write_text("{")
    store_memory(changed, 5)
    assert listed(changed)[0] == (6, "fit", None)


def test_what_changes_nothing_is_no_version(changed):
    before, files = listed(changed), without_versions(changed)
    store_memory(changed, 2)
    store_threshold(changed, 0.6)
    assert listed(changed) == before
    assert without_versions(changed) == files
    assert served(changed) == (2, 0.6)
    store_memory(changed, 2, n_images=7)
    assert listed(changed) == [(4, "fit", 0.6), *before], "another record of the same bank is another model"
    assert served(changed) == (2, 0.6)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_are_kept_and_numbers_go_on(tmp_path, keep):
    store = ModelStore(tmp_path, keep)
    for seed in range(1, 7):
        store.save_memory(KEY, memory_of(seed), {})
        assert [number for number, *_ in listed(tmp_path)] == list(range(seed - 1, max(0, seed - 1 - keep), -1))
    folders = (tmp_path / "Master1" / "Pattern" / ".versions").iterdir()
    assert {path.name for path in folders} == {str(number) for number in range(6 - keep, 6)}


def test_none_are_kept_where_none_are_wanted(changed):
    ModelStore(changed, 0).save_memory(KEY, memory_of(3), {})
    assert listed(changed) == []
    assert list((changed / "Master1" / "Pattern" / ".versions").iterdir()) == []
    fresh = ModelStore(changed / "fresh", 0)
    for seed in (1, 2):
        fresh.save_memory(KEY, memory_of(seed), {})
    assert not (changed / "fresh" / "Master1" / "Pattern" / ".versions").exists()
    with pytest.raises(VersionNotFound, match="KEEP_VERSIONS"):
        fresh.roll_back(KEY)


def test_what_another_backend_stored_or_is_damaged_is_no_version(tmp_path):
    memory, _, calibration = older_files(tmp_path, "L0", KEY)
    write_memory(memory, unit_rows(20, 16, 8), (4, 5), metadata=np.array('{"memory_id": 7}'))
    calibration.write_text('{"threshold": 0.5}')
    store_memory(tmp_path, 1)
    assert listed(tmp_path) == []
    memory.write_bytes(b"damaged")
    store_memory(tmp_path, 2)
    assert listed(tmp_path) == []


def test_recipe_that_calibrates_the_default_model_changes_nothing_of_it(changed):
    before = listed(changed), snapshot(changed / "Master1")
    store_threshold(changed, 0.9, IN_RECIPE)
    store_threshold(changed, 0.8, IN_RECIPE)
    assert (listed(changed), snapshot(changed / "Master1")) == before
    assert listed(changed, IN_RECIPE) == [], "there is no model of its own"
    assert load(changed, IN_RECIPE).calibration.threshold == 0.8
    store_memory(changed, 3, IN_RECIPE)
    store_memory(changed, 4, IN_RECIPE)
    assert listed(changed, IN_RECIPE) == [(1, "fit", None)]
    assert listed(changed) == before[0]


# --- what goes wrong


def test_where_there_are_no_links_versions_are_copies(tmp_path, monkeypatch):
    refusing(monkeypatch, os, "link", errno.EPERM)
    store_memory(tmp_path, 1)
    store_threshold(tmp_path, 0.4)
    store_memory(tmp_path, 2)
    store_memory(tmp_path, 2)
    store_threshold(tmp_path, 0.6)
    store_threshold(tmp_path, 0.6)
    assert listed(tmp_path) == [(3, "calibrate", None), (2, "fit", 0.4), (1, "calibrate", None)]
    for _ in range(2):
        ModelStore(tmp_path).roll_back(KEY, 2)
        assert served(tmp_path) == (1, 0.4)
    assert listed(tmp_path)[0] == (4, "rollback", 0.6)
    ModelStore(tmp_path).roll_back(KEY)
    assert served(tmp_path) == (2, 0.6)
    folder = tmp_path / "Master1" / "Pattern"
    assert (folder / ".versions" / "4" / "memory.npz").read_bytes() == (folder / "memory.npz").read_bytes()
    assert not (folder / ".versions" / "4" / "memory.npz").samefile(folder / "memory.npz")


CHANGES = {
    "fit": lambda root: store_memory(root, 3),
    "calibrate": lambda root: store_threshold(root, 0.7),
    "rollback": lambda root: ModelStore(root).roll_back(KEY, 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("full", ["version.json", "memory.npz or calib.json"])
def test_a_change_that_a_full_disk_stops_changes_nothing_and_is_no_version(changed, monkeypatch, change, full):
    before, kept = without_versions(changed), listed(changed)
    write = Path.replace

    def no_room(path, target):
        if Path(target).name == "version.json" if full == "version.json" else Path(target).parent.name == "Pattern":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", no_room)
        with pytest.raises(StorageError, match=r"No space left.*check the models folder"):
            CHANGES[change](changed)
    assert (served(changed), listed(changed)) == ((2, 0.6), kept)
    assert without_versions(changed) == before
    names = {path.name for path in (changed / "Master1" / "Pattern" / ".versions").iterdir()}
    assert names == {"1", "2", "3"}
    CHANGES[change](changed)
    assert listed(changed)[0] == (4, change, 0.6)


def test_a_version_that_cannot_be_deleted_does_not_undo_the_change(tmp_path, monkeypatch):
    store = ModelStore(tmp_path, 1)
    for seed in (1, 2):
        store.save_memory(KEY, memory_of(seed), {})
    with monkeypatch.context() as patched:
        refusing(patched, Path, "rmdir", errno.EACCES)
        store.save_memory(KEY, memory_of(3), {})
    assert (served(tmp_path), listed(tmp_path)) == ((3, None), [(2, "fit", None)])
    store.save_memory(KEY, memory_of(3), {})
    assert {path.name for path in (tmp_path / "Master1" / "Pattern" / ".versions").iterdir()} == {"2"}


@pytest.mark.parametrize("number", ["9" * 18, "9" * 17 + "8"])
def test_a_folder_with_the_greatest_number_that_there_is_stops_no_change(changed, number):
    (changed / "Master1" / "Pattern" / ".versions" / "1").rename(changed / "Master1" / "Pattern" / ".versions" / number)
    for seed in (3, 4, 5):
        store_memory(changed, seed)
        assert served(changed) == (seed, None)
    assert len(listed(changed)) == 5


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"kept_at_utc": 1}',
        '{"kept_at_utc":"x","replaced_by":"magic","memory_id":"","coreset_size":1}',
    ],
)
def test_what_is_no_version_is_not_listed(changed, record):
    before = listed(changed)
    for name in ("9", "x", "0", "-1", "٣", "1" * 30, ".tmp-x"):
        strange = changed / "Master1" / "Pattern" / ".versions" / name
        strange.mkdir()
        (strange / "version.json").write_text(record)
    assert listed(changed) == before
    store_memory(changed, 3)
    assert listed(changed)[0] == (10, "fit", 0.6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "identifier", ["Pattern", ".versions", "recipes", "datasets", "@recipes", ".tmp-1", "1"], ids=ascii
)
def test_no_version_is_taken_for_a_model_or_for_an_older_backends_file(tmp_path, identifier):
    assert not folder_name(identifier).startswith(".")
    keys = [RoiKey(identifier, identifier), RoiKey(identifier, "x", "line", identifier), RoiKey("datasets", identifier)]
    stores = {keep: ModelStore(tmp_path / str(keep), keep) for keep in (0, 5)}
    for store in stores.values():
        for key in dict.fromkeys(keys):
            for seed in (1, 2, 3):
                store.save_memory(key, memory_of(seed), {})
                store.save_calibration(key, calibration_of(store.load(key), seed / 10))
            store.save_memory(key, memory_of(4), {})
    with_versions, without = (tmp_path / str(keep) for keep in (5, 0))
    assert stores[5].count_fitted() == stores[0].count_fitted() == len(set(keys))
    assert stores[5].count_stale() == stores[0].count_stale() == len(set(keys))
    for find in (older.memories, older.calibrations, older.datasets):
        found = [[item.path.relative_to(root) for item in find(root)] for root in (with_versions, without)]
        assert found[0] == found[1]
    for inside in (
        RoiKey(identifier, ".versions"),
        RoiKey(".versions", "1"),
        RoiKey(identifier, "x", "line", ".versions"),
    ):
        if inside not in keys:
            assert stores[5].load(inside) is None
            assert stores[5].versions(inside) == []
