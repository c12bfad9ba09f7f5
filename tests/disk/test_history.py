"""Which earlier model a roll-back chooses: what it refuses, and what it passes over."""

import errno
import shutil
from pathlib import Path

import pytest

from backend.common.errors import Conflict, IncompatibleMemory, StorageError, VersionNotFound
from backend.common.roi_key import RoiKey
from backend.storage import ModelStore
from tests.factories import (
    IN_RECIPE,
    KEY,
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
    write_memory,
)


def check_refused(root, error, match, key=KEY, version=None, **options):
    before = snapshot(root)
    with pytest.raises(error, match=match):
        ModelStore(root).roll_back(key, version, **options)
    after = snapshot(root)
    assert {name: after[name] for name in before} == before
    assert {Path(name).name for name in after.keys() - before.keys()} <= {".lock"}


def test_versions_that_there_are_not_are_not_found(changed, tmp_path):
    check_refused(changed, VersionNotFound, "has no version 7; its versions are 1, 2, 3", version=7)
    check_refused(changed, VersionNotFound, "no earlier model of role 'A', roi 'B' is kept", RoiKey("A", "B"))
    assert not (changed / "A").exists()
    store_memory(changed, 1, RoiKey("Once", "Fitted"))
    check_refused(changed, VersionNotFound, "not replaced yet", RoiKey("Once", "Fitted"))


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
    check_refused(changed, StorageError, "version 3 is missing", version=3)
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
    with pytest.raises(StorageError, match="of version 3 is missing"):
        ModelStore(changed, 1).roll_back(KEY, version)
    assert listed(changed) == before


def test_a_version_of_another_rois_model_is_refused(changed):
    shutil.copytree(changed / "Master1" / "Pattern", changed / "Copied" / "Pattern")
    check_refused(changed, IncompatibleMemory, "fitted for role 'Master1'", RoiKey("Copied", "Pattern"), 2)
    store_memory(changed, 5, RoiKey("Copied", "Pattern"))
    newest = listed(changed, RoiKey("Copied", "Pattern"))[0]
    assert newest == (3, "calibrate", None), "what was never served for this ROI is not kept"
