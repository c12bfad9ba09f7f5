"""Which calibrations no longer apply: counted in every folder, without reading twice what did not change."""

import errno
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.common.roi_key import RoiKey
from backend.disk import candidates, stale
from backend.storage import ModelStore
from tests.factories import KEY, calibration_of, memory_of, older_files, store_threshold, unit_rows, write_memory


def test_what_is_known_of_models_that_were_deleted_is_forgotten(tmp_path):
    store = ModelStore(tmp_path)
    for number in range(5):
        key = RoiKey("Master1", f"{number}")
        store.save_memory(key, memory_of(1), {})
        store.save_calibration(key, calibration_of(store.load(key)))
        store.save_memory(key, memory_of(2), {})
        assert store.count_stale() == 1
        assert len(store._stale._memory_ids) == 1
        shutil.rmtree(tmp_path / "Master1" / f"{number}")
    assert store.count_stale() == 0
    assert store._stale._memory_ids == {}


def test_recipe_calibration_is_stale_once_the_default_model_is_refitted(tmp_path, monkeypatch):
    """Stale calibrations that recipes have of the default model are counted without reading unchanged files again."""
    store, reads = ModelStore(tmp_path), []
    line, other = RoiKey("Master1", "Pattern", "line 1"), RoiKey("Master1", "Pattern", "line 2")
    long_name = RoiKey("Master1", "Pattern", "é" * 200)
    with_key = RoiKey("Master1", "Pattern", "line 1", "K")
    read = stale.written_memory_id
    monkeypatch.setattr(stale, "written_memory_id", lambda path: reads.append(path) or read(path))

    store.save_memory(KEY, memory_of(1), {})
    store.save_memory(other, memory_of(5), {})
    store.save_memory(replace(with_key, recipe_id="default"), memory_of(6), {})
    for key in (line, other, long_name, with_key):
        store_threshold(tmp_path, 0.6, key)
    store_threshold(tmp_path, 0.6, RoiKey("Master1", "Never fitted", "line 1"))
    assert (store.count_stale(), store.stale_in_recipes(KEY)) == (0, [])

    store.save_memory(KEY, memory_of(2), {})
    assert store.load(line).calibration_state == store.load(long_name).calibration_state == "stale"
    reads.clear()
    assert store.count_stale() == store.count_stale() == 2
    assert len(reads) == 1, "files that did not change are not read again"
    assert replace(line, model_key="Pattern") in store.stale_in_recipes(KEY)
    assert len(store.stale_in_recipes(KEY)) == 2
    assert store.stale_in_recipes(line) == store.stale_in_recipes(other) == []

    store_threshold(tmp_path, 0.7, line)
    assert store.count_stale() == 1
    store_threshold(tmp_path, 0.7, KEY)
    assert store.load(long_name).calibration.threshold == 0.7
    assert store.count_stale() == 0, "that of the default recipe is applied"
    (tmp_path / "@recipes" / "line 1" / "models" / "Master1" / "Pattern" / "Pattern" / "calib.json").write_text("{")
    assert store.count_stale() == 1


@pytest.mark.parametrize("root", ["models/line1", "./models/a"])
def test_stale_calibrations_are_counted_wherever_the_models_folder_lies(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    root, unfitted = Path(root), RoiKey("Master1", "Never fitted")
    store, line = ModelStore(root), RoiKey("Master1", "Pattern", "line 1")
    for key in (KEY, unfitted, line):
        store.save_calibration(key, calibration_of(None))
    assert ModelStore(root.resolve()).count_stale() == store.count_stale() == 0, "there is nothing to be stale of"
    store.save_memory(KEY, memory_of(1), {})
    assert ModelStore(root.resolve()).count_stale() == store.count_stale() == 2
    assert store.stale_in_recipes(KEY) == [replace(line, model_key="Pattern")]


def test_calibration_without_recipe_is_counted_though_the_model_has_a_key(tmp_path):
    """A client without recipes calibrated a model that has a key; its calibration is stale after the next fit."""
    store, with_key = ModelStore(tmp_path), RoiKey("Master1", "Pattern", "default", "K")
    store.save_memory(with_key, memory_of(1), {})
    store_threshold(tmp_path, 0.6, KEY)
    assert (store.load(KEY).key, store.count_stale()) == (with_key, 0)
    store.save_memory(with_key, memory_of(2), {})
    assert (store.load(KEY).calibration_state, store.count_stale()) == ("stale", 1)


def test_stale_count_passes_over_unstorable_ids_and_strange_folders(tmp_path):
    """Ids that no older backend could store, folders that are no recipe and links to themselves stop no count."""
    store, long_ids = ModelStore(tmp_path), RoiKey("a" * 120, "b" * 120, "line 1")
    store.save_calibration(long_ids, calibration_of(None))
    strange = tmp_path / "@recipes" / os.fsdecode(b"\xff") / "models" / "Master1" / "Pattern" / "Pattern"
    strange.mkdir(parents=True)
    (strange / "calib.json").write_text('{"threshold": 0.5, "memory_id": "another"}')
    (tmp_path / "itself").symlink_to("itself")
    store.save_memory(KEY, memory_of(1), {})
    assert (store.count_stale(), store.stale_in_recipes(KEY)) == (0, [])


def test_older_backends_calibrations_are_counted_without_a_walk(tmp_path, monkeypatch):
    """The count does not walk through the folders of the older backend."""
    store, line = ModelStore(tmp_path), RoiKey("Master1", "Pattern", "line 1")
    name = older_files(tmp_path, "L2", KEY)[0].name
    write_memory(tmp_path / "recipes" / "line 1" / "Pattern" / name, unit_rows(12, 16, 8), (3, 4))
    store_threshold(tmp_path, 0.6, line)
    monkeypatch.setattr(candidates, "older_of_recipe", lambda *_: pytest.fail("walked"))
    assert store.count_stale() == 0


def test_stale_calibrations_in_an_unreadable_folder_are_not_taken_for_none(fitted_folder, tmp_path, monkeypatch):
    store, scandir = ModelStore(tmp_path), os.scandir
    for name in ("lost+found", ".Trash"):
        (tmp_path / name).mkdir()
    closed = {tmp_path / "lost+found", tmp_path / ".Trash"}

    def guarded(folder):
        if folder in closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    assert store.count_stale() == 0, "what a file system keeps beside them is none of ours"
    closed.add(tmp_path / "Master1")
    with pytest.raises(PermissionError):
        store.count_stale()


def test_a_stored_memory_says_its_id_without_its_embeddings_being_read(service, images, tmp_path):
    store = service.store
    assert store.count_stale() == 0
    with TestClient(create_app(service.settings, service)) as client:
        png = cv2.imencode(".png", images[0])[1].tobytes()
        ids = {"role_id": "Master1", "roi_id": "Pattern", "mm_per_px": 0.2}
        client.post("/fit_ok", data=ids, files={"images": ("a.png", png, "image/png")})
    (tmp_path / "Master1" / "Pattern" / "calib.json").write_text(json.dumps({"threshold": 0.5, "memory_id": "another"}))
    assert store.count_stale() == 1
    (tmp_path / "Old" / "Roi").mkdir(parents=True)
    (tmp_path / "Old" / "Roi" / "memory.npz").write_bytes(b"damaged")
    (tmp_path / "Old" / "Roi" / "calib.json").write_text('{"threshold": 0.5}')
    assert store.count_stale() == 1, "what says no id is not judged"


def test_a_count_reads_no_file_that_did_not_change(tmp_path, monkeypatch):
    store, reads = ModelStore(tmp_path), []
    for number in range(3):
        key = RoiKey("Master1", f"{number}")
        store.save_memory(key, memory_of(1), {})
        store_threshold(tmp_path, 0.5, key)
    store.save_memory(RoiKey("Master1", "1"), memory_of(2), {})
    read = stale.read_calibration
    monkeypatch.setattr(stale, "read_calibration", lambda path: reads.append(path.parent.name) or read(path))
    assert store.count_stale() == 1
    assert sorted(reads) == ["0", "1", "2"]
    reads.clear()
    assert store.count_stale() == 1
    assert reads == []
    store_threshold(tmp_path, 0.6, RoiKey("Master1", "1"))
    assert store.count_stale() == 0
    assert reads == ["1"]


def test_a_model_that_came_within_a_step_of_the_folder_time_is_counted(tmp_path):
    """The time of a folder has steps; a change within the same step as the count before leaves it as it was."""
    store, now = ModelStore(tmp_path), time.time()
    for number in range(2):
        key = RoiKey("Master1", f"{number}")
        store.save_memory(key, memory_of(1), {})
        store_threshold(tmp_path, 0.5, key)
        store.save_memory(key, memory_of(2), {})
        os.utime(tmp_path / "Master1", (now, now))
        assert store.count_stale() == number + 1
