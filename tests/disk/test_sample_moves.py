"""A moved image is in one class or the other at every instant, and nowhere twice."""

import multiprocessing
import os
from pathlib import Path

import pytest

from backend.common.errors import Conflict, InvalidImage, StorageError
from backend.disk import sample_moves
from backend.disk.datasets import LABELS, DatasetStore, NewSample
from tests.factories import KEY, refusing


def stored(root, content=b"image", **metadata):
    store = DatasetStore(root)
    (name,) = store.add(
        KEY, "ok", [NewSample(lambda: content, ".png", {"label": "ok", "filename": "a.png", **metadata})]
    )
    return store, store.find(KEY, "ok", name)


def classes(root):
    store = DatasetStore(root)
    return {label: list(store.names(KEY, label)) for label in LABELS}


def test_a_moved_image_leaves_nothing_behind(tmp_path):
    store, sample = stored(tmp_path)
    moved = store.move(sample, "ng")
    assert (moved.label, moved.name, moved.read()) == ("ng", sample.name, b"image")
    assert classes(tmp_path) == {"ok": [], "ng": [sample.name]}
    left = [path.name for path in sample.path.parent.iterdir() if path.name != ".lock"]
    assert left == []
    assert moved.metadata() == {"label": "ng", "filename": "a.png"}


def test_image_that_somebody_put_into_the_folder_moves_without_metadata(tmp_path):
    store, sample = stored(tmp_path)
    own = sample.path.with_name("own.png")
    own.write_bytes(b"own")
    moved = store.move(store.find(KEY, "ok", "own.png"), "ng")
    assert moved.read() == b"own"
    assert {path.name for path in moved.path.parent.iterdir()} - {".lock"} == {"own.png"}


def test_metadata_without_a_label_stay_as_they_are(tmp_path):
    store, sample = stored(tmp_path)
    file = sample.path.with_name(f"{sample.name}.json")
    file.write_text('{ "filename" : "a.png" }')
    assert store.move(sample, "ng").metadata_bytes() == b'{ "filename" : "a.png" }'


def test_damaged_metadata_keep_an_image_where_it_is(tmp_path):
    store, sample = stored(tmp_path)
    sample.path.with_name(f"{sample.name}.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        store.move(sample, "ng")
    assert classes(tmp_path) == {"ok": [sample.name], "ng": []}


def test_an_image_that_was_deleted_or_moved_meanwhile_is_told(tmp_path):
    store, sample = stored(tmp_path)
    store.move(sample, "ng")
    with pytest.raises(Conflict, match="nothing was moved"):
        store.move(sample, "ng")
    store.remove(store.find(KEY, "ng", sample.name))
    with pytest.raises(InvalidImage, match="deleted meanwhile"):
        store.move(sample, "ng")


@pytest.mark.parametrize("step", ["write_atomic", "replace"])
def test_a_full_disk_leaves_image_and_metadata_where_they_were(tmp_path, monkeypatch, step):
    store, sample = stored(tmp_path)
    with monkeypatch.context() as broken:
        refusing(broken, sample_moves, step, 28)
        with pytest.raises(StorageError, match="No space left"):
            store.move(sample, "ng")
    assert classes(tmp_path) == {"ok": [sample.name], "ng": []}
    assert sample.metadata() == {"label": "ok", "filename": "a.png"}
    other = sample.path.parent.parent / "ng"
    assert not [path for path in other.iterdir() if path.name != ".lock"]


def _die_at(root, name, step):
    """Move an image, and die at the n-th change of a file."""
    changes = 0

    def counted(call):
        def change(*arguments, **options):
            nonlocal changes
            changes += 1
            if changes == step:
                os._exit(9)
            return call(*arguments, **options)

        return change

    for owner, function in ((Path, "replace"), (Path, "unlink"), (Path, "open")):
        setattr(owner, function, counted(getattr(owner, function)))
    store = DatasetStore(root)
    store.move(store.find(KEY, "ok", name), "ng")
    os._exit(0)


@pytest.mark.slow
def test_a_process_that_dies_while_it_moves_leaves_one_image(tmp_path):
    context = multiprocessing.get_context("spawn")  # this process has threads, which a fork would lose
    seen, step, status = set(), 0, 9
    while status == 9:
        step += 1
        root = tmp_path / str(step)
        _, sample = stored(root)
        process = context.Process(target=_die_at, args=(root, sample.name, step))
        process.start()
        process.join()
        status = process.exitcode
        there = classes(root)
        assert sorted([*there["ok"], *there["ng"]]) == [sample.name], step
        label = "ok" if there["ok"] else "ng"
        seen.add(label)
        store = DatasetStore(root)
        metadata = store.find(KEY, label, sample.name).metadata()
        assert metadata == {"label": label, "filename": "a.png"}
        for other in LABELS:  # the next upload clears what is left
            store.add(KEY, other, [NewSample(lambda: b"next", ".png", {})])
            folder = sample.path.parent.parent / other
            names = {path.name for path in folder.iterdir()} - {".lock"}
            assert {name.removesuffix(".json") for name in names} <= names
    assert status == 0
    assert seen == {"ok", "ng"}
    assert step > 4
