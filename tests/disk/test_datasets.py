"""Stored images: their bytes, names and metadata, through every failure."""

import io
import json
import os
import shutil
import threading

import pytest

from backend.common import files
from backend.common.errors import Conflict, InvalidImage, SampleNotFound, StorageError
from backend.common.roi_key import RoiKey
from backend.disk import datasets
from backend.disk.datasets import DatasetStore, NewSample

KEY = RoiKey("Master1", "Pattern", "line 1")


def sample(number, **metadata):
    content = b"image %d" % number
    return NewSample(lambda: content, ".png", {"filename": f"{number}.png", **metadata})


def folder_of(root, label="ok"):
    return root / "@recipes" / "line 1" / "datasets" / "Master1" / "Pattern" / label


def test_images_come_back_byte_for_byte_with_metadata_in_upload_order(tmp_path):
    store = DatasetStore(tmp_path)
    names = [name for start in (0, 3) for name in store.add(KEY, "ok", [sample(start + n, n=n) for n in range(3)])]
    assert names == sorted(names)
    assert len(set(names)) == 6
    assert store.names(KEY, "ok") == dict.fromkeys(names, True)
    assert store.names(KEY, "ng") == {}
    stored = DatasetStore(tmp_path).samples(KEY, "ok")
    assert [item.read() for item in stored] == [b"image %d" % number for number in range(6)]
    assert [item.metadata() for item in stored] == [{"filename": f"{n}.png", "n": n % 3} for n in range(6)]


def test_every_recipe_role_roi_and_label_has_images_of_its_own(tmp_path):
    store = DatasetStore(tmp_path)
    keys = [KEY, RoiKey("Master1", "Pattern"), RoiKey("Master1", "Other", "line 1"), RoiKey("M", "Pattern", "line 1")]
    for number, key in enumerate(keys):
        store.add(key, "ok", [sample(number)])
        store.add(key, "ng", [sample(100 + number)])
    for number, key in enumerate(keys):
        assert [item.read() for item in store.samples(key, "ok")] == [b"image %d" % number]
        assert [item.read() for item in store.samples(key, "ng")] == [b"image %d" % (100 + number)]


def test_images_put_into_the_folder_by_hand_are_there_without_metadata(tmp_path):
    folder_of(tmp_path).mkdir(parents=True)
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "a.jpg.txt"):
        (folder_of(tmp_path) / name).write_bytes(b"x")
    store = DatasetStore(tmp_path)
    assert store.names(KEY, "ok") == {"a.jpg": False, "b.PNG": False}
    assert store.find(KEY, "ok", "a.jpg").metadata() == {}


def test_a_crash_at_any_step_leaves_no_image_without_its_metadata(tmp_path, monkeypatch):
    """Dies before the nth write, sync or rename of an upload and of a deletion."""
    steps_that_were_survived = 0
    for fatal_step in range(1, 40):
        root = tmp_path / str(fatal_step)
        (name,) = DatasetStore(root).add(KEY, "ok", [sample(0)])
        steps = [0]

        def dying(call, steps=steps, fatal_step=fatal_step):
            def step(*arguments, **options):
                steps[0] += 1
                if steps[0] >= fatal_step:
                    raise SystemExit("killed")
                return call(*arguments, **options)

            return step

        with monkeypatch.context() as patched:
            patched.setattr(files.Path, "open", dying(files.Path.open))
            patched.setattr(files.Path, "replace", dying(files.Path.replace))
            patched.setattr(files.Path, "unlink", dying(files.Path.unlink))
            patched.setattr(os, "fsync", dying(os.fsync))
            try:
                store = DatasetStore(root)
                store.add(KEY, "ok", [sample(1), sample(2)])
                store.remove(store.find(KEY, "ok", name))
                steps_that_were_survived = steps[0]
            except SystemExit:
                pass
        found = DatasetStore(root).samples(KEY, "ok")
        assert found or fatal_step > 1
        for item in found:
            number = int(item.read().split()[1])
            assert item.metadata() == {"filename": f"{number}.png"}
        assert all(DatasetStore(root).names(KEY, "ok").values())
        if steps_that_were_survived:
            break
        # The next upload works, and clears what the dead one left half written.
        DatasetStore(root).add(KEY, "ok", [sample(3)])
        assert not list(folder_of(root).glob(".tmp-*"))
    assert 10 < steps_that_were_survived < fatal_step + 1
    assert len(found) == 2


def test_a_disk_that_is_full_stores_neither_image_nor_metadata(tmp_path, monkeypatch):
    store = DatasetStore(tmp_path)
    store.add(KEY, "ok", [sample(0)])

    def full(_descriptor):
        if next(steps, None) is None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    steps = iter(range(8))  # three for each image: its metadata, itself, their folder
    with pytest.raises(StorageError, match="No space left on device"):
        store.add(KEY, "ok", [sample(n) for n in (1, 2, 3)])
    assert len(store.names(KEY, "ok")) == 1
    assert len([path for path in folder_of(tmp_path).iterdir() if not path.name.startswith(".")]) == 2


def test_an_image_is_found_by_its_name_or_by_the_one_in_its_metadata(tmp_path):
    store = DatasetStore(tmp_path)
    one, two, twice, again = store.add(KEY, "ok", [sample(1), sample(2), sample(3), sample(3)])
    store.add(KEY, "ok", [sample(4, filename=one)])
    assert store.find(KEY, "ok", one).name == one, "a name goes before what another's metadata says"
    assert store.find(KEY, "ok", "2.png").name == two
    with pytest.raises(Conflict, match=rf"2 ok images .*'3\.png': name one of {twice}, {again}"):
        store.find(KEY, "ok", "3.png")
    for name in (
        "9.png",
        "",
        ".",
        "..",
        "../ok/" + one,
        str(folder_of(tmp_path) / one),
        one + ".json",
        ".lock",
        "x" * 300 + ".png",
    ):
        with pytest.raises(SampleNotFound):
            store.find(KEY, "ok", name)
    with pytest.raises(SampleNotFound):
        store.find(KEY, "ng", one)


def test_clearing_deletes_the_images_of_one_class_and_nothing_else(tmp_path):
    store = DatasetStore(tmp_path)
    store.add(KEY, "ok", [sample(1), sample(2)])
    store.add(KEY, "ng", [sample(3)])
    (folder_of(tmp_path) / "folder.png").mkdir()
    (folder_of(tmp_path) / "notes.txt").write_text("keep me")
    (folder_of(tmp_path) / "20260101-never-completed.png.json").write_text("{}")
    assert store.clear(KEY, "ok") == 2
    assert {path.name for path in folder_of(tmp_path).iterdir()} == {"notes.txt", "folder.png", ".lock"}
    assert len(store.names(KEY, "ng")) == 1
    assert store.clear(RoiKey("Nobody", "Pattern", "line 1"), "ok") == 0
    assert not (tmp_path / "@recipes" / "line 1" / "datasets" / "Nobody").exists()


def test_unreadable_folder_is_a_storage_error_for_listing_and_clearing(tmp_path, monkeypatch):
    store = DatasetStore(tmp_path)
    store.add(KEY, "ok", [sample(1)])

    def denied(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", denied)
        patched.setattr(datasets.Path, "stat", denied)
        for use in (store.names, store.clear):
            with pytest.raises(StorageError, match=r"cannot be listed \(Permission denied\); check the models folder"):
                use(KEY, "ok")
    assert len(store.names(KEY, "ok")) == 1


def test_upload_removes_orphan_metadata_whatever_the_image_was_called(tmp_path):
    """A killed deletion left metadata without its image. Files that only look like such metadata stay."""
    store = DatasetStore(tmp_path)
    store.copy(KEY, "ok", "part 7.PNG", sample(7))
    store.copy(KEY, "ok", "part 8.jpg", sample(8))
    (folder_of(tmp_path) / "part 7.PNG").unlink()
    for name in ("notes.json", "part 8.json"):
        (folder_of(tmp_path) / name).write_text("{}")
    (name,) = store.add(KEY, "ok", [sample(1)])
    files = {path.name for path in folder_of(tmp_path).iterdir()}
    kept = {"part 8.jpg", "part 8.jpg.json", "part 8.json", "notes.json"}
    assert files == {name, f"{name}.json", ".lock"} | kept


def test_an_image_that_is_deleted_while_it_is_used_is_an_invalid_image(tmp_path):
    store = DatasetStore(tmp_path)
    store.add(KEY, "ok", [sample(1)])
    (stored,) = store.samples(KEY, "ok")
    store.remove(stored)
    with pytest.raises(InvalidImage, match=stored.name):
        stored.read()
    store.remove(stored)  # by two at once: both may say that it is gone


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", "[" * 100_000])
def test_damaged_metadata_is_a_storage_error_that_names_the_image(tmp_path, text):
    store = DatasetStore(tmp_path)
    (name,) = store.add(KEY, "ok", [sample(1)])
    (folder_of(tmp_path) / f"{name}.json").write_text(text)
    with pytest.raises(StorageError, match=f"metadata of {name} is damaged"):
        store.find(KEY, "ok", name).metadata()
    (other,) = store.add(KEY, "ok", [sample(2)])
    assert store.find(KEY, "ok", "2.png").name == other, "it hides no other image"


def test_images_of_inspection_roi_are_found_under_the_role_they_came_with(tmp_path):
    """Clients turn the role of such a ROI: its images are found under the other role, but are not deleted under it."""
    store = DatasetStore(tmp_path)
    came, asked = (RoiKey(role, "Inspection 1", "line 1") for role in ("Master1", "Inspection"))
    store.add(came, "ok", [sample(1)])
    assert len(store.names(asked, "ok")) == 1
    assert store.names(RoiKey("Inspection", "Inspection 1"), "ok") == {}, "without a recipe nothing is turned"
    assert store.names(RoiKey("Inspection", "Pattern", "line 1"), "ok") == {}
    assert store.clear(asked, "ok") == 0, "what is deleted is named exactly"
    store.add(RoiKey("Master2", "Inspection 1", "line 1"), "ng", [sample(2)])
    with pytest.raises(Conflict, match="'Master1', 'Master2'"):
        store.names(asked, "ok")
    store.add(asked, "ok", [sample(3), sample(4)])
    assert len(store.names(asked, "ok")) == 2, "its own role goes before all others"


def test_names_are_unique_when_many_upload_at_the_same_instant(tmp_path, monkeypatch):
    instant = datasets.utc_now()
    monkeypatch.setattr(datasets, "utc_now", lambda: instant)
    names = []
    threads = [
        threading.Thread(target=lambda n=n: names.extend(DatasetStore(tmp_path).add(KEY, "ok", [sample(n)])))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8
    contents = {item.name: item.read() for item in DatasetStore(tmp_path).samples(KEY, "ok")}
    assert sorted(contents.values()) == [b"image %d" % number for number in range(8)]


def test_a_copied_image_keeps_its_name_and_is_never_replaced(tmp_path):
    store = DatasetStore(tmp_path)
    store.copy(KEY, "ng", "scratch 7.png", sample(1))
    store.copy(KEY, "ng", "scratch 7.png", sample(2))
    assert store.find(KEY, "ng", "scratch 7.png").read() == b"image 1"


def test_the_folder_can_be_read_by_anybody(tmp_path):
    (name,) = DatasetStore(tmp_path).add(KEY, "ok", [sample(1)])
    assert (folder_of(tmp_path) / name).read_bytes() == b"image 1"
    assert json.load(io.StringIO((folder_of(tmp_path) / f"{name}.json").read_text())) == {"filename": "1.png"}
    shutil.rmtree(tmp_path / "@recipes")
    assert DatasetStore(tmp_path).names(KEY, "ok") == {}
