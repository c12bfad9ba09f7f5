"""Models in an object store do what models in a folder do, and several replicas tell one story."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from backend.common.errors import Conflict, StaleModel, VersionNotFound
from backend.common.roi_key import RoiKey
from backend.object_store import mirror
from backend.object_store.units import model_unit
from backend.patchcore import PatchCoreMemory
from backend.storage import ModelStore
from tests.factories import IN_RECIPE, KEY, calibration_of, memory_of, same_memory, unit_rows

OTHER_KEY = RoiKey("Master1", "Pattern", "line 1", "second")


def told(store, key):
    """All that a store tells of a ROI, but for times."""
    fitted = store.load(key)
    versions = [
        (version.number, version.facts.replaced_by, version.facts.memory_id, calibration and calibration.threshold)
        for version, calibration in store.versions(key)
    ]
    if fitted is None:
        return None, versions, store.judged_by(key)
    judged_by = store.judged_by(key)
    return (
        (fitted.memory_id, fitted.key, fitted.layout, fitted.metadata, fitted.calibration_state, fitted.calibrated),
        versions,
        (judged_by.memory_id, judged_by.calibration, judged_by.calibrated),
        store.thumbnails(fitted),
        store.memory_id(key),
        store.count_fitted(),
    )


@pytest.mark.slow
def test_store_and_folder_tell_the_same_after_every_change(replica, tmp_path):
    folder, one, other = ModelStore(tmp_path / "folder", 5, 1.0), replica(), replica()

    def calibrate(store, key, threshold):
        store.save_calibration(key, calibration_of(store.load(key), threshold))

    def append(store, key, seed):
        store.save_memory(key, memory_of(seed), {"n_images": 2}, instead_of=store.load(key))

    changes = [
        lambda store: store.save_memory(KEY, memory_of(1), {"n_images": 1}, thumbnails=[b"one"]),
        lambda store: calibrate(store, KEY, 0.4),
        lambda store: calibrate(store, IN_RECIPE, 0.6),
        lambda store: append(store, KEY, 2),
        lambda store: calibrate(store, KEY, 0.5),
        lambda store: store.roll_back(KEY),
        lambda store: store.save_memory(OTHER_KEY, memory_of(3), {}),
        lambda store: store.save_memory(IN_RECIPE, memory_of(4), {}),
        lambda store: calibrate(store, IN_RECIPE, 0.7),
        lambda store: store.roll_back(KEY, 1),
        lambda store: store.save_memory(KEY, memory_of(1), {}),
    ]
    for number, change in enumerate(changes):
        change(folder)
        change((one, other)[number % 2].models)
        for store in (one, other):
            store.catalog._asked_at.clear()  # counts may be seconds old
        for key in (KEY, IN_RECIPE, OTHER_KEY, RoiKey("Master1", "Pattern", "line 2")):
            expected = told(folder, key)
            assert told(one.models, key) == expected, (number, key)
            assert told(other.models, key) == expected, (number, key)
        assert one.models.count_stale() == folder.count_stale(), number
        assert one.models.stale_in_recipes(KEY) == folder.stale_in_recipes(KEY), number


def test_a_bank_of_several_tiles_reaches_other_replicas(replica):
    memory = PatchCoreMemory.build(unit_rows(30, 16, 1), (20, 20), 1.0, places=np.arange(30, 45))
    replica().models.save_memory(KEY, memory, {"extractor": {"detail": 3}, "tiles": [0, 1], "images": [{}, {}]})
    fitted = replica().models.load(KEY)
    assert (fitted.detail, fitted.memory.token_hw, fitted.metadata["tiles"]) == (3, (20, 20), [0, 1])
    np.testing.assert_array_equal(fitted.memory.patches, [*range(30, 45), *range(430, 445)])


def test_what_a_folder_refuses_a_store_refuses(replica):
    one, other = replica(), replica()
    assert one.models.load(KEY) is None
    with pytest.raises(VersionNotFound):
        one.models.roll_back(KEY)
    one.models.save_memory(KEY, memory_of(1), {})
    before = one.models.load(KEY)
    other.models.save_memory(KEY, memory_of(2), {})
    with pytest.raises(StaleModel):
        one.models.save_memory(KEY, memory_of(3), {}, instead_of=before)
    with pytest.raises(StaleModel):
        one.models.save_calibration(KEY, calibration_of(before))
    assert same_memory(one.models.load(KEY), memory_of(2))
    assert one.generation() == 2


@pytest.mark.slow
def test_six_writers_on_one_roi_lose_no_change(replica):
    """Every change that was answered is one generation: none was overwritten by one that had not seen it."""
    replicas, answered, refused = [replica() for _ in range(6)], [0] * 6, []

    def press(number):
        for seed in range(4):
            try:
                replicas[number].models.save_memory(KEY, memory_of(100 * number + seed), {})
            except Conflict as exc:
                refused.append(exc)
            else:
                answered[number] += 1

    threads = [threading.Thread(target=press, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replicas[0].generation() == sum(answered)
    assert sum(answered) + len(refused) == 24
    assert sum(answered) >= 12
    found = {one.models.load(KEY).memory_id for one in replicas}
    assert len(found) == 1


@pytest.mark.slow
def test_no_reader_finds_a_bank_with_the_calibration_of_another(replica):
    """Bank and calibration change in one swap: with feedback, each bank is found with its own threshold."""
    writer, reader = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    writer.calibrate(0.001)
    ids = {writer.models.memory_id(KEY): 0.001}
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            fitted = reader.models.load(KEY)
            seen.add((fitted.memory_id, fitted.calibration and fitted.calibration.threshold))

    thread = threading.Thread(target=read)
    thread.start()
    for seed in range(2, 12):
        before, memory = writer.models.load(KEY), memory_of(seed)
        from backend.calib import calibrate
        from backend.disk.memory_file import memory_id

        calibration = calibrate(
            [seed / 1000], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=memory_id(memory)
        )
        writer.models.save_memory(KEY, memory, {}, instead_of=before, calibration=calibration)
        ids[memory_id(memory)] = calibration.threshold
    done.set()
    thread.join()
    assert len(seen) > 3
    assert all(ids[memory_id] == threshold for memory_id, threshold in seen)


@pytest.mark.slow
def test_a_reader_never_goes_back_in_time(replica):
    """What is read was there, or came, after the reading began: seen by generations that only grow."""
    writer, reader = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {"n": 1})
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            newest = writer.mirror.manifest(model_unit(KEY)).generation
            found = reader.models.load(KEY).metadata["n"]
            if found < newest:
                wrong.append((found, newest))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2, 20):
        writer.models.save_memory(KEY, memory_of(number), {"n": number})
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_inference_looks_at_one_manifest(replica, faults):
    one = replica(faults.endpoint)
    one.models.save_memory(KEY, memory_of(1), {})
    one.models.save_memory(IN_RECIPE, memory_of(2), {})
    for key in (KEY, IN_RECIPE):
        one.models.load(key)
        faults.counts.clear()
        one.models.load(key)
        assert faults.counts == {"GET": 1}


def test_model_of_the_default_recipe_takes_a_look_at_the_own_one_too(replica, faults):
    """Somebody may have fitted the recipe's own model since; that there is none is asked twice, by get and by list."""
    one, other = replica(faults.endpoint), replica()
    one.models.save_memory(KEY, memory_of(1), {})
    assert same_memory(one.models.load(IN_RECIPE), memory_of(1))
    faults.counts.clear()
    one.models.load(IN_RECIPE)
    assert faults.counts == {"GET": 2, "LIST": 1}
    other.models.save_memory(IN_RECIPE, memory_of(2), {})
    assert same_memory(one.models.load(IN_RECIPE), memory_of(2))


@pytest.mark.slow
def test_model_within_its_freshness_is_served_without_a_look(replica, faults):
    one, other = replica(faults.endpoint, fresh_s=0.5), replica()
    other.models.save_memory(KEY, memory_of(1), {})
    assert one.models.load(KEY) is not None
    faults.counts.clear()
    other.models.save_memory(KEY, memory_of(2), {})
    assert same_memory(one.models.load(KEY), memory_of(1))
    assert faults.counts == {}
    time.sleep(0.5)
    assert same_memory(one.models.load(KEY), memory_of(2))


def test_change_that_others_overtake_again_and_again_is_a_conflict(replica, monkeypatch):
    monkeypatch.setattr(mirror, "_PATIENCE_S", 0.3)
    one, other = replica(), replica()
    one.models.save_memory(KEY, memory_of(1), {})
    swap = mirror.swap

    def overtaken(bucket, manifest, etag):
        with monkeypatch.context() as patched:
            patched.setattr(mirror, "swap", swap)
            other.calibrate(0.1 + manifest.generation / 1000)
        return swap(bucket, manifest, etag)

    monkeypatch.setattr(mirror, "swap", overtaken)
    with pytest.raises(Conflict, match="other requests kept changing"):
        one.models.save_memory(KEY, memory_of(2), {})
    assert same_memory(other.models.load(KEY), memory_of(1))


def test_headers_are_those_of_what_is_served(replica):
    one, other = replica(), replica()
    one.models.save_memory(KEY, memory_of(1), {"n_images": 3})
    one.calibrate(0.4)
    found = other.headers.find(IN_RECIPE)
    assert found.header.metadata["n_images"] == 3
    judged_by, state = other.headers.judged_by(IN_RECIPE, found)
    assert (judged_by.calibration.threshold, state) == (0.4, "applied")


def test_rois_and_recipes_are_listed_as_in_a_folder(replica, tmp_path):
    from backend.disk.known_rois import known_rois

    one, other, folder = replica(), replica(), ModelStore(tmp_path / "folder")
    for key in (KEY, IN_RECIPE, OTHER_KEY, RoiKey("A B", "ñ/%~@", "x" * 300)):
        for store in (one.models, folder):
            store.save_memory(key, memory_of(1), {})
    with one.recipes.locking_scale("x" * 300, 0.2):
        pass
    expected = known_rois(tmp_path / "folder")
    found = other.catalog.known_rois()
    assert set(expected.rois) < set(found.rois)
    assert RoiKey("A B", "ñ/%~@", "x" * 300, "ñ/%~@") in found.rois
    assert found.problems == []


def test_ids_that_name_nothing_are_forgotten(replica, monkeypatch):
    """Whoever asks for ever new ids takes no memory for good, and what is there stays known."""
    monkeypatch.setattr(mirror, "_MOST_ABSENT", 5)
    one = replica()
    one.models.save_memory(KEY, memory_of(1), {})
    for number in range(20):
        assert one.models.load(RoiKey("Master1", f"none-{number}")) is None
    assert len(one.mirror._states) <= 6
    assert one.mirror.manifest(model_unit(KEY)).generation == 1


def test_list_is_as_new_as_the_last_listing_however_fresh_a_look_is(replica):
    """What was looked at just before is looked at again where the listing says that it changed; else never."""
    writer, one = replica(), replica(fresh_s=3600.0)
    writer.models.save_memory(KEY, memory_of(1), {})
    one.models.load(KEY)
    writer.calibrate(0.5)
    writer.models.save_memory(KEY, memory_of(2), {})
    assert one.models.count_stale() == 1


def test_calibration_too_long_for_the_manifest_is_not_called_damaged(replica):
    one, other = replica(), replica()
    one.models.save_memory(KEY, memory_of(1), {})
    long = dataclasses.replace(calibration_of(one.models.load(KEY)), unusual=tuple(range(1000)))
    one.models.save_calibration(KEY, long)
    assert (one.models.count_stale(), other.models.count_stale()) == (0, 0)
    one.models.save_memory(KEY, memory_of(2), {})
    other.catalog._asked_at.clear()
    assert (one.models.count_stale(), other.models.count_stale()) == (1, 1)


@pytest.mark.parametrize("key", [KEY, IN_RECIPE])
def test_local_file_that_somebody_deleted_comes_again(replica, key):
    """Systems tidy temporary folders: a ROI is not judged by the default recipe's model then, nor found unfitted."""
    one = replica()
    for seed, place in enumerate((KEY, IN_RECIPE), start=1):
        one.models.save_memory(place, memory_of(seed), {})
        one.calibrate(seed / 10, place)
    before = one.models.load(key)
    for name in ("memory.npz", "calib.json"):
        for file in one.mirror.root.rglob(name):
            file.unlink()
        after = one.models.load(key)
        assert (after.memory_id, after.calibration, after.key) == (before.memory_id, before.calibration, before.key)
    one.models.save_memory(key, memory_of(3), {})
