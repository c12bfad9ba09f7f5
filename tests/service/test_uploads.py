"""Uploads of images whose pixels are stored already: said, and on request not stored; found quickly, and by pixels."""

import json
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from backend.bit_depth import whole_pixels_sha256
from backend.common.config import Settings
from backend.common.errors import InvalidImage
from backend.disk.datasets import DatasetStore, NewSample
from backend.service import uploads
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import ImageLimits, NamedImage
from tests.factories import KEY, snapshot

LIMITS = ImageLimits(1 << 26, 1 << 26)


@pytest.fixture
def service(tmp_path):
    """A service that stores and does not infer."""
    network = SimpleNamespace(runtime=SimpleNamespace(batch=1, forward=None))
    return service_of(network, tmp_path)


def service_of(network, folder):
    return InspectionService(Settings(models_dir=folder), network, ModelStore(folder))


@pytest.fixture
def another_worker(service, tmp_path):
    return service_of(service.features, tmp_path)


def picture(number):
    return np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def upload(service, contents, label="ok", metas=(), **options):
    images = [NamedImage(f"{number}.png", lambda content=content: content) for number, content in enumerate(contents)]
    return uploads.store_images(service, KEY, label, images, list(metas), **options)


def stored_by_an_earlier_version(service, contents, label="ok"):
    """Images whose metadata says nothing about their pixels."""
    samples = [NewSample(lambda content=content: content, ".png", {"filename": "old.png"}) for content in contents]
    return DatasetStore(service.settings.models_dir).add(KEY, label, samples)


def duplicates(done):
    return [image.duplicate_of for image in done.images]


def names(service, label="ok"):
    return list(service.datasets.names(KEY, label))


def test_an_upload_whose_pixels_are_stored_says_so_and_is_stored(service):
    first = upload(service, [png(picture(1)), png(picture(2))])
    assert duplicates(first) == [None, None]
    again = upload(service, [png(picture(3)), png(picture(2))])
    assert duplicates(again) == [None, first.images[1].name]
    assert len(names(service)) == 4
    third = upload(service, [png(picture(2))])
    assert duplicates(third) == [first.images[1].name], "the one that was stored first"
    assert (third.n_not_compared, third.warning) == (0, None)


def test_images_are_told_apart_by_their_decoded_pixels(service):
    """Not by format, alpha or name; a pixel that differs by one makes another image."""
    image = picture(1)
    (first,) = upload(service, [png(image)]).images
    alpha = np.dstack([image, np.full(image.shape[:2], 7, np.uint8)])
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    others = [cv2.imencode(".bmp", image)[1].tobytes(), png(alpha), png(changed), png(image.reshape(32, 24, 3))]
    assert duplicates(upload(service, others)) == [first.name, first.name, None, None]


def test_images_of_16_bits_are_compared_with_all_of_their_bits(service):
    """The upper 8 of dark images are the same."""
    dark = np.random.default_rng(0).integers(0, 200, (24, 32), np.uint16)
    other = dark + 1
    first, second = upload(service, [png(dark), png(other)]).images
    assert second.duplicate_of is None
    assert duplicates(upload(service, [png(other)])) == [second.name]
    assert whole_pixels_sha256(png(dark), "", LIMITS) != whole_pixels_sha256(png(other), "", LIMITS)
    assert first.name != second.name


def test_images_of_one_upload_are_compared_with_each_other(service):
    done = upload(service, [png(picture(1)), png(picture(2)), png(picture(1))])
    assert duplicates(done) == [None, None, done.images[0].name]
    skipping = upload(service, [png(picture(3)), png(picture(3))], skip_duplicates=True)
    assert [image.name is None for image in skipping.images] == [False, True]
    assert skipping.images[1].duplicate_of == skipping.images[0].name


def test_duplicates_are_not_stored_where_that_is_asked(service, tmp_path):
    (first,) = upload(service, [png(picture(1))]).images
    before = snapshot(tmp_path)
    done = upload(service, [png(picture(1))], skip_duplicates=True)
    assert [(image.name, image.uploaded_as, image.duplicate_of) for image in done.images] == [
        (None, "0.png", first.name)
    ]
    assert snapshot(tmp_path) == before
    mixed = upload(service, [png(picture(1)), png(picture(2))], skip_duplicates=True)
    assert [image.duplicate_of for image in mixed.images] == [first.name, None]
    assert names(service) == [first.name, mixed.images[1].name]


def test_an_image_that_was_deleted_is_no_duplicate_any_more(service):
    (first,) = upload(service, [png(picture(1))]).images
    service.datasets.remove(service.datasets.find(KEY, "ok", first.name))
    (again,) = upload(service, [png(picture(1))], skip_duplicates=True).images
    assert (again.duplicate_of, names(service)) == (None, [again.name])


def test_what_another_worker_stored_is_compared_too(service, another_worker):
    upload(service, [png(picture(1))])
    (theirs,) = upload(another_worker, [png(picture(2))]).images
    assert duplicates(upload(service, [png(picture(2))])) == [theirs.name]


def test_of_many_uploads_of_an_image_at_once_one_is_stored(service, another_worker):
    done = []
    ready = threading.Barrier(8)

    def send(worker):
        ready.wait(30)
        done.extend(upload(worker, [png(picture(1))], skip_duplicates=True).images)

    threads = [threading.Thread(target=send, args=(worker,)) for worker in (service, another_worker) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (name,) = names(service)
    assert sorted((image.name, image.duplicate_of) for image in done if image.name) == [(name, None)]
    assert [image.duplicate_of for image in done if image.name is None] == [name] * 7


def test_images_of_earlier_versions_are_compared_and_left_as_they_are(service, another_worker, tmp_path):
    old = stored_by_an_earlier_version(service, [png(picture(number)) for number in range(3)])
    before = snapshot(tmp_path)
    done = upload(service, [png(picture(1))], skip_duplicates=True)
    assert (duplicates(done), done.n_not_compared) == ([old[1]], 0)
    assert snapshot(tmp_path) == before
    assert duplicates(upload(another_worker, [png(picture(2))])) == [old[2]]


def test_where_time_is_short_the_reply_says_how_many_were_not_compared(service, monkeypatch):
    old = stored_by_an_earlier_version(service, [png(picture(number)) for number in range(3)])
    stored_by_an_earlier_version(service, [png(picture(9))], "ng")
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "_COMPARES_FOR_S", 0.0)
        done = upload(service, [png(picture(1))])
        assert (duplicates(done), done.n_not_compared) == ([None], 4)
    done = upload(service, [png(picture(2))])
    assert (duplicates(done), done.n_not_compared) == ([old[2]], 0)


def test_stored_images_are_read_only_where_their_pixels_are_not_known(service, monkeypatch):
    upload(service, [png(picture(number)) for number in range(20)])
    read = []
    hash_stored = uploads._hash_stored
    monkeypatch.setattr(uploads, "_hash_stored", lambda *which: read.append(which) or hash_stored(*which))
    upload(service, [png(picture(30))])
    assert read == []
    upload(service, [png(picture(3))])
    assert len(read) == 1, "what is said to be the same is looked at"


def test_an_image_that_somebody_replaced_is_not_called_a_duplicate(service):
    (first,) = upload(service, [png(picture(1))]).images
    path = service.datasets.find(KEY, "ok", first.name).path
    path.write_bytes(png(picture(2)))
    assert duplicates(upload(service, [png(picture(1))])) == [None]
    path.write_bytes(b"damaged")
    assert duplicates(upload(service, [png(picture(4))])) == [None]


def test_hash_in_the_metadata_is_ours_whatever_the_client_sends(service):
    forged = whole_pixels_sha256(png(picture(2)), "", LIMITS)
    (one,) = upload(service, [png(picture(1))], metas=[{"pixels_sha256": forged, "filename": "a.png"}]).images
    metadata = service.datasets.find(KEY, "ok", one.name).metadata()
    assert metadata["pixels_sha256"] == whole_pixels_sha256(png(picture(1)), "", LIMITS)
    assert (one.uploaded_as, metadata["filename"]) == ("a.png", "a.png")
    assert duplicates(upload(service, [png(picture(2))])) == [None]


def test_an_image_of_both_classes_is_warned_of_and_stored(service):
    (good,) = upload(service, [png(picture(1))]).images
    done = upload(service, [png(picture(2)), png(picture(1))], "ng", skip_duplicates=True)
    assert duplicates(done) == [None, None]
    assert done.warning == (
        f"1 image has the same pixels as one stored as ok: 1.png ({good.name} (uploaded as 0.png)); a part is "
        "either good or defective: delete the ng or the ok image"
    )
    many = upload(service, [png(picture(number)) for number in range(10, 15)])
    assert many.warning is None
    warning = upload(service, [png(picture(number)) for number in range(10, 15)], "ng").warning
    assert warning.startswith("5 images have the same pixels as one stored as ok: 0.png (")
    assert " and 2 more; a part" in warning


def test_a_broken_image_stores_nothing_of_an_upload(service, tmp_path):
    upload(service, [png(picture(1))])
    before = snapshot(tmp_path)
    with pytest.raises(InvalidImage, match=r"^1\.png: "):
        upload(service, [png(picture(2)), png(picture(3))[:100]])
    assert snapshot(tmp_path) == before


def test_the_hash_is_kept_with_what_was_sent_and_not_sent_back(service):
    sent = {"angle": 1.5, "shape_json": "", "created_at_utc": "2026-01-01T00:00:00Z"}
    (one,) = upload(service, [png(picture(1))], metas=[sent]).images
    sample = service.datasets.find(KEY, "ok", one.name)
    as_sent = {
        "role_id": KEY.role_id,
        "roi_id": KEY.roi_id,
        "label": "ok",
        "filename": "0.png",
        **sent,
    }
    assert json.loads(sample.sent_metadata()) == as_sent
    assert sample.metadata() == {**as_sent, "pixels_sha256": whole_pixels_sha256(png(picture(1)), "", LIMITS)}
