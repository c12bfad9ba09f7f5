"""Stored images in an object store do what those in a folder do."""

import hashlib
import time
from pathlib import Path

import pytest

from backend.common.errors import Conflict, SampleNotFound
from backend.common.roi_key import RoiKey
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.sample_facts import PIXELS
from backend.object_store.manifest import BLOBS
from tests.factories import IN_RECIPE, KEY

IMAGES = [b"\x89PNG one" * 900, b"\x89PNG two", b"\x89PNG three"]


def sample(content, name, **more):
    pixels = hashlib.sha256(content).hexdigest()
    return NewSample(lambda: content, ".png", {"filename": name, "label": "ok", PIXELS: pixels, **more})


def hashed(image: Path):
    return hashlib.sha256(image.read_bytes()).hexdigest()


def upload(store, key, contents, label="ok", skip=False, compared=None):
    samples = [sample(content, f"{number}.png") for number, content in enumerate(contents)]
    return store.add_compared(key, label, samples, compared, skip_duplicates=skip)


def test_images_come_back_byte_for_byte_on_every_replica(replica):
    one, other = replica(), replica()
    names = [image.name for image in upload(one.datasets, KEY, IMAGES)]
    assert other.datasets.names(KEY, "ok") == dict.fromkeys(names, True)
    assert other.datasets.uploaded_as(KEY, "ok", names) == {name: f"{n}.png" for n, name in enumerate(names)}
    found = other.datasets.samples(KEY, "ok")
    assert [image.read() for image in found] == IMAGES
    assert [image.metadata()["filename"] for image in found] == ["0.png", "1.png", "2.png"]
    assert other.datasets.find(KEY, "ok", "1.png").read() == IMAGES[1]
    assert other.datasets.find(KEY, "ok", names[2]).read() == IMAGES[2]
    assert other.datasets.names(KEY, "ng") == other.datasets.names(IN_RECIPE, "ok") == {}
    with pytest.raises(SampleNotFound):
        other.datasets.find(KEY, "ok", "none.png")


def test_names_are_listed_without_fetching_an_image(replica, faults):
    one, other = replica(), replica(faults.endpoint)
    upload(one.datasets, KEY, IMAGES)
    other.datasets.uploaded_as(KEY, "ok", other.datasets.names(KEY, "ok"))
    assert faults.counts == {"GET": 2}, "a look for each"


def test_duplicates_are_told_as_in_a_folder(replica, tmp_path):
    one, other, folder = replica(), replica(), DatasetStore(tmp_path / "folder")
    for store in (folder, one.datasets):
        upload(store, KEY, IMAGES[:2])
    told = []
    for store in (folder, other.datasets):
        first = list(store.names(KEY, "ok"))
        pixels = {hashlib.sha256(content).hexdigest() for content in IMAGES}
        compared = store.compare(KEY, "ok", pixels, hashed, time.monotonic() + 10)
        stored = upload(store, KEY, [*IMAGES[1:], IMAGES[2]], skip=True, compared=compared)
        names = [*first, *(image.name for image in stored if image.name)]
        told.append([(image.name is None, image.duplicate_of and names.index(image.duplicate_of)) for image in stored])
        told.append((compared.n_unknown, sorted(names.index(name) for name in compared.by_pixels.values())))
    assert told[:2] == told[2:]
    assert told[0] == [(True, 1), (False, None), (True, 2)]


def test_images_are_moved_removed_and_cleared_by_any_replica(replica, faults):
    one, other = replica(), replica(faults.endpoint)
    names = [image.name for image in upload(one.datasets, KEY, IMAGES)]
    faults.counts.clear()
    moved = other.datasets.move(other.datasets.find(KEY, "ok", names[0]), "ng")
    assert faults.counts["PUT"] == 1, "the manifest alone"
    assert (moved.label, moved.read(), moved.metadata()["label"]) == ("ng", IMAGES[0], "ng")
    assert one.datasets.find(KEY, "ng", "0.png").metadata()["label"] == "ng"
    one.datasets.remove(one.datasets.find(KEY, "ok", names[1]))
    assert list(other.datasets.names(KEY, "ok")) == [names[2]]
    assert (one.datasets.clear(KEY, "ok"), one.datasets.clear(KEY, "ok")) == (1, 0)
    assert (other.datasets.names(KEY, "ok"), list(other.datasets.names(KEY, "ng"))) == ({}, [names[0]])


def test_image_whose_name_the_other_class_has_is_not_moved(replica):
    one = replica()
    (stored,) = upload(one.datasets, KEY, IMAGES[:1])
    found = one.datasets.find(KEY, "ok", stored.name)
    one.datasets.move(found, "ng")
    with pytest.raises(Conflict, match="nothing was moved"):
        one.datasets.move(found, "ng")


def test_images_under_the_role_before_it_was_turned_are_found(replica):
    one, other = replica(), replica()
    sent, asked = RoiKey("Master1", "inspection 1", "line 1"), RoiKey("Inspection", "inspection 1", "line 1")
    upload(one.datasets, sent, IMAGES[:1])
    assert [image.read() for image in other.datasets.samples(asked, "ok")] == IMAGES[:1]
    assert other.datasets.folder(asked) == other.mirror.root / "@recipes/line 1/datasets/Master1/inspection 1"
    upload(one.datasets, RoiKey("Other", "inspection 1", "line 1"), IMAGES[:1])
    with pytest.raises(Conflict, match="under the roles"):
        other.datasets.names(asked, "ok")


def test_uploads_of_several_replicas_add_up(replica):
    replicas = [replica() for _ in range(3)]
    for number in range(9):
        upload(replicas[number % 3].datasets, KEY, [b"\x89PNG %d" % number])
    assert len({image.read() for image in replica().datasets.samples(KEY, "ok")}) == 9
    assert len(list(replicas[0].bucket.list(BLOBS.rstrip("/")))) == 9
