"""Paths that are too long for Windows are refused before anything is written."""

import os
from pathlib import Path

import pytest

from backend.common.errors import InvalidRequest
from backend.common.roi_key import RoiKey
from backend.disk import path_lengths
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.layout import current_files
from backend.disk.recipes import RecipeStore
from backend.storage import ModelStore
from tests.factories import memory_of, store_memory, store_threshold

IMAGE = NewSample(lambda: b"an image", ".png", {"filename": "1.png"})


@pytest.fixture
def longest(tmp_path, monkeypatch):
    """As on Windows, with room for the models folder of the test and 150 characters more."""
    limit = len(str(tmp_path)) + 150
    monkeypatch.setattr(path_lengths, "longest_path", lambda: limit)
    return limit


def test_ids_that_make_too_long_a_path_are_refused_and_store_nothing(tmp_path, longest):
    key = RoiKey("R" * 40, "P" * 40, "line 1")
    refused = [
        lambda: ModelStore(tmp_path).check_savable(key),
        lambda: ModelStore(tmp_path).save_memory(key, memory_of(1), {}),
        lambda: DatasetStore(tmp_path).add(key, "ok", [IMAGE]),
        lambda: RecipeStore(tmp_path).locking_scale("l" * 80, 0.2).__enter__(),
    ]
    for call in refused:
        with pytest.raises(InvalidRequest, match=rf"up to \d+ characters, and Windows allows {longest}: use shorter"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_ids_that_fit_are_stored_with_versions_and_images(tmp_path, longest):
    key = RoiKey("R" * 20, "P" * 20)
    ModelStore(tmp_path).check_savable(key)
    store_memory(tmp_path, 1, key)
    DatasetStore(tmp_path).add(RoiKey("R", "P"), "ok", [IMAGE])


@pytest.mark.slow
def test_no_file_of_a_model_or_an_image_has_a_longer_path_than_counted(tmp_path, monkeypatch):
    key = RoiKey("Master1", "Pattern", "line 1")
    written = set()
    for name in ("open", "replace", "mkdir"):
        call = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda path, *a, c=call, **o: (written.add(path), c(path, *a, **o))[1])
    for seed in range(1, 4):
        store_memory(tmp_path, seed, key)
        store_threshold(tmp_path, 0.5, key)
    ModelStore(tmp_path).roll_back(key)
    folder = current_files(tmp_path, key).memory.parent
    images = DatasetStore(tmp_path)
    images.add(key, "ok", [IMAGE])
    folders = (folder, images.folder(key) / "ok")
    below = {len(str(path)) - len(str(top)) for top in folders for path in written if top in path.parents}
    assert max(below) == path_lengths._BELOW


def test_other_systems_refuse_no_path_for_its_length(tmp_path):
    if os.name == "posix":
        key = RoiKey("R" * 128, "P" * 128, "l" * 128, "M" * 128)
        store_memory(tmp_path, 1, key)
        assert ModelStore(tmp_path).memory_id(key) is not None
