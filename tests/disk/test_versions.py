"""Earlier models: what is kept of them, what rolling back to one does, and what it refuses."""

import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.commands.migrate import older
from backend.common.config import Settings
from backend.common.errors import Conflict, IncompatibleMemory, StorageError, VersionNotFound
from backend.common.roi_key import RoiKey
from backend.disk import fitted as fitted_module
from backend.disk import memory_file, versions
from backend.disk.layout import folder_name
from backend.patchcore import PatchCoreMemory
from backend.service.calibrate import calibrate as calibrate_scores
from backend.service.fit import fit as fit_images
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.roll_back import roll_back
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import (
    IN_RECIPE,
    KEY,
    calibration_of,
    index_bytes,
    listed,
    load,
    memory_of,
    older_files,
    refusing,
    same_memory,
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


# --- rolling back


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


def check_refused(root, error, match, key=KEY, version=None, **options):
    before = snapshot(root)
    with pytest.raises(error, match=match):
        ModelStore(root).roll_back(key, version, **options)
    after = snapshot(root)
    assert {name: after[name] for name in before} == before
    assert {Path(name).name for name in after.keys() - before.keys()} <= {".lock"}


def test_versions_that_there_are_not_are_not_found(changed, tmp_path):
    check_refused(changed, VersionNotFound, "has no version 7; there are 1, 2, 3", version=7)
    check_refused(changed, VersionNotFound, "no earlier model of role 'A', roi 'B' is kept", RoiKey("A", "B"))
    assert not (changed / "A").exists()
    store_memory(changed, 1, RoiKey("Once", "Fitted"))
    check_refused(changed, VersionNotFound, "not changed since", RoiKey("Once", "Fitted"))


def test_roi_served_by_another_model_is_not_rolled_back_under_its_name(changed):
    """The refusal names the model that would be rolled back."""
    check_refused(changed, Conflict, "has no model of its own.*of role 'Master1', roi 'Pattern', layout", IN_RECIPE)
    store_memory(changed, 3, RoiKey("Master1", "Keyed", "line 1", "lid"))
    store_memory(changed, 4, RoiKey("Master1", "Keyed", "line 1", "lid"))
    without_key = RoiKey("Master1", "Keyed", "line 1")
    check_refused(changed, Conflict, "model_key 'lid'", without_key)
    write_memory(older_files(changed, "L2", RoiKey("Old", "Roi"))[0], unit_rows(4, 8, 0), (2, 2))
    check_refused(changed, Conflict, "layout L2", RoiKey("Old", "Roi"))


def test_a_damaged_version_is_refused_and_the_others_are_not_concerned(changed):
    versions = changed / "Master1" / "Pattern" / ".versions"
    for name in ("memory.npz", "calib.json"):
        content = (versions / "2" / name).read_bytes()
        (versions / "2" / name).unlink()
        (versions / "2" / name).write_bytes(content[:-20])
        check_refused(changed, StorageError, f"{name} of version 2 is damaged", version=2)
        (versions / "2" / name).write_bytes(content)
    (versions / "3" / "memory.npz").unlink()
    check_refused(changed, StorageError, "version 3 is gone", version=3)
    ModelStore(changed).roll_back(KEY, 2)
    assert served(changed) == (1, 0.4)


@pytest.mark.parametrize("damage", ["truncated", "written over", "gone", "calibration"])
def test_rolling_back_to_the_newest_passes_over_those_that_are_damaged(changed, damage):
    """Damage in place, which the versions of the same memory bank share with the model: they are one file."""
    model = changed / "Master1" / "Pattern"
    if damage == "calibration":
        store_memory(changed, 3)
        (model / ".versions" / "4" / "calib.json").write_text("{")
    elif damage == "gone":
        (model / ".versions" / "3" / "memory.npz").unlink()
    elif damage == "truncated":
        with (model / "memory.npz").open("r+b") as file:
            file.truncate(100)
    else:
        store_threshold(changed, 0.7)
        store_memory(changed / "elsewhere", 5)
        (model / "memory.npz").write_bytes((changed / "elsewhere" / "Master1" / "Pattern" / "memory.npz").read_bytes())
    newest = ModelStore(changed).versions(KEY)[0][0].number
    with pytest.raises(StorageError, match=rf"of version {newest} is"):
        ModelStore(changed).roll_back(KEY, newest)
    chosen, fitted = ModelStore(changed).roll_back(KEY)
    expected = (3, (2, None)) if damage == "calibration" else (2, (1, 0.4))
    assert (chosen.number, served(changed)) == expected
    assert fitted.memory_id == load(changed).memory_id


@pytest.mark.parametrize("name", ["memory.npz", "calib.json"])
def test_a_version_that_cannot_be_read_for_now_is_not_passed_over(changed, monkeypatch, name):
    ModelStore(changed).save_memory(KEY, memory_of(3), {})
    with monkeypatch.context() as patched:
        refusing(patched, Path, "open", errno.EMFILE, lambda path, *_: path.parent.name == "4" and path.name == name)
        with pytest.raises(StorageError, match="Too many open files"):
            ModelStore(changed).roll_back(KEY)
    assert served(changed) == (3, None)
    ModelStore(changed).roll_back(KEY)
    assert served(changed) == (2, 0.6)


def test_newest_version_says_so_where_all_are_damaged_and_nothing_changes(changed):
    for file in (changed / "Master1" / "Pattern" / ".versions").glob("*/memory.npz"):
        shutil.copyfile(file, file.with_name("copy"))
        file.with_name("copy").replace(file)
        with file.open("r+b") as kept:
            kept.truncate(100)
    before = snapshot(changed)
    with pytest.raises(StorageError, match="of version 3 is damaged"):
        ModelStore(changed).roll_back(KEY)
    assert snapshot(changed) == before
    assert served(changed) == (2, 0.6)


@pytest.mark.parametrize("keep", [0, 1])
def test_what_is_passed_over_costs_no_version_where_fewer_are_kept_by_now(changed, keep):
    (changed / "Master1" / "Pattern" / ".versions" / "3" / "memory.npz").unlink()
    chosen, _ = ModelStore(changed, keep).roll_back(KEY)
    assert (chosen.number, served(changed)) == (2, (1, 0.4))


@pytest.mark.parametrize("version", [None, 3])
def test_no_version_is_deleted_where_none_can_be_read(changed, version):
    """Fewer versions are to be kept than there are, but a roll-back that fails deletes none of them."""
    for file in (changed / "Master1" / "Pattern" / ".versions").glob("*/memory.npz"):
        file.unlink()
    before = listed(changed)
    with pytest.raises(StorageError, match="of version 3 is gone"):
        ModelStore(changed, 1).roll_back(KEY, version)
    assert listed(changed) == before


@pytest.mark.parametrize("number", ["9" * 18, "9" * 17 + "8"])
def test_a_folder_with_the_greatest_number_that_there_is_stops_no_change(changed, number):
    (changed / "Master1" / "Pattern" / ".versions" / "1").rename(changed / "Master1" / "Pattern" / ".versions" / number)
    for seed in (3, 4, 5):
        store_memory(changed, seed)
        assert served(changed) == (seed, None)
    assert len(listed(changed)) == 5


def test_a_version_of_another_rois_model_is_refused(changed):
    shutil.copytree(changed / "Master1" / "Pattern", changed / "Copied" / "Pattern")
    check_refused(changed, IncompatibleMemory, "fitted for role 'Master1'", RoiKey("Copied", "Pattern"), 2)
    store_memory(changed, 5, RoiKey("Copied", "Pattern"))
    newest = listed(changed, RoiKey("Copied", "Pattern"))[0]
    assert newest == (3, "calibrate", None), "what was never served for this ROI is not kept"


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


# --- what the service makes of it


def served_memory(service, seed):
    return PatchCoreMemory.build(unit_rows(10, 384, seed), (32, 32), 1.0)


@pytest.mark.parametrize(
    ("part", "value"), [("input_size", 518), ("precision", "bfloat16"), ("weights_sha256", "0" * 64), (None, None)]
)
def test_a_version_of_another_extractor_is_refused_and_says_what_differs(service, tmp_path, part, value):
    identity = service.features.identity.as_dict()
    other = memory_of(1) if part is None else served_memory(service, 1)
    service.store.save_memory(KEY, other, {"extractor": identity if part is None else {**identity, part: value}})
    service.store.save_memory(KEY, served_memory(service, 2), {"extractor": identity})
    before = snapshot(tmp_path)
    expected = "16 numbers per embedding instead of 384" if part is None else f"{part} '?{value}"
    with pytest.raises(
        IncompatibleMemory, match=f"version 1 of .* another extractor .*{expected}.*nothing was changed"
    ):
        roll_back(service, KEY)
    assert snapshot(tmp_path) == before
    service.store.save_memory(KEY, served_memory(service, 3), {"extractor": identity})
    version, fitted = roll_back(service, KEY)
    assert (version.number, same_memory(fitted, served_memory(service, 2))) == (2, True)


def test_a_version_of_another_scale_than_the_recipes_is_refused(service, tmp_path):
    for seed, mm_per_px in ((1, 0.3), (2, 0.2)):
        service.store.save_memory(IN_RECIPE, served_memory(service, seed), {"mm_per_px": mm_per_px})
    with service.recipes.locking_scale(IN_RECIPE.recipe_id, 0.2):
        pass
    with pytest.raises(Conflict, match=r"version 1 of .* mm_per_px 0\.3, and its recipe is locked to 0\.2; nothing"):
        roll_back(service, IN_RECIPE)
    service.store.save_memory(IN_RECIPE, served_memory(service, 3), {"mm_per_px": 0.2})
    assert roll_back(service, IN_RECIPE)[0].number == 2


def test_what_was_inferred_before_a_change_is_inferred_after_rolling_back(service, images):
    pngs = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    named = [NamedImage(f"{i}.png", lambda png=png: png) for i, png in enumerate(pngs)]
    fit_images(service, KEY, named[:2], mm_per_px=0.2)
    calibrate_scores(service, KEY, [0.3], [], mm_per_px=0.2)
    before = infer(service, KEY, named[4], Scoring(0.2))
    fit_images(service, KEY, named[2:4], mm_per_px=0.2)
    calibrate_scores(service, KEY, [0.9], [], mm_per_px=0.2)
    between = infer(service, KEY, named[4], Scoring(0.2))
    assert between.inference.score != before.inference.score
    roll_back(service, KEY, 2)
    after = infer(service, KEY, named[4], Scoring(0.2))
    assert (after.inference, after.heatmap_png_base64) == (before.inference, before.heatmap_png_base64)
    assert (after.calibration, after.decision) == (before.calibration, before.decision)


class TestCommands:
    @pytest.fixture
    def run(self, changed, features, monkeypatch, command_line):
        for name in Settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("MODELS_DIR", str(changed))
        return command_line

    def test_versions_are_printed_the_newest_first(self, run, monkeypatch):
        monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("that needs no network"))
        status, printed, _ = run("versions", "Master1", "Pattern")
        versions = [json.loads(line) for line in printed.splitlines()]
        assert status == 0
        assert [(version["version"], version["calibrated"]) for version in versions] == [
            (3, False),
            (2, True),
            (1, False),
        ]
        assert versions[1]["threshold"] == 0.4
        assert run("versions", "Master1", "Nowhere") == (
            0,
            "",
            "no earlier model of 'Master1', 'Nowhere' is kept\n",
        )
        assert run("versions", "Master1", "Pattern", "--recipe", "line 1")[:2] == (0, "")

    def test_a_roll_back_prints_what_is_served_and_refuses_what_there_is_not(self, run, changed, features, monkeypatch):
        def opened(settings):
            return InspectionService(settings, features, ModelStore(settings.models_dir))

        monkeypatch.setattr(InspectionService, "open", opened)
        monkeypatch.setattr("backend.service.roll_back.differences_from", lambda _features, _fitted: [])
        status, printed, _ = run("rollback", "Master1", "Pattern", "--version", "2")
        assert status == 0
        assert json.loads(printed) == {
            "version": 2,
            "memory_id": memory_file.memory_id(memory_of(1)),
            "calibration": "applied",
            "threshold": 0.4,
            "coreset_size": 20,
            "token_shape": [4, 5],
        }
        assert served(changed) == (1, 0.4)
        assert run("rollback", "Master1", "Pattern")[0] == 0
        assert served(changed) == (2, 0.6)
        assert "has no version 9" in run("rollback", "Master1", "Pattern", "--version", "9")[2]
        assert "no model of its own" in run("rollback", "Master1", "Pattern", "--recipe", "line 1")[2]
        assert run("rollback", "Master1", "Pattern", "--version", "0")[0] == 2
