"""Bytes that the store has lost: nobody is judged by another model, and what mends a model goes on without them."""

import dataclasses
import os

import pytest

from backend.common.errors import DamagedCalibration, DamagedMemory, InvalidImage, StorageError, StoreUnavailable
from backend.disk.calibration_inputs import CalibrationInputs, ScoredImage
from backend.disk.datasets import NewSample
from backend.disk.judgements import JudgementFiles, JudgementQuery
from backend.object_store import bucket
from backend.object_store.manifest import BLOBS, entry_of
from backend.object_store.transfer import check, push
from backend.object_store.units import dataset_unit, model_unit, recipe_unit
from harness.fault_proxy import Fault
from tests.factories import IN_RECIPE, KEY, calibration_of, memory_of, same_memory
from tests.object_store.replicas import judgement

BANK = "Master1/Pattern/memory.npz"
BANK_IN_RECIPE = "@recipes/line 1/models/Master1/Pattern/Pattern/memory.npz"
VERSION_1 = "Master1/Pattern/.versions/1/memory.npz"
CALIBRATION = "Master1/Pattern/calib.json"
WORDS = {"gone": "its bytes are gone from the object store", "other": "the object store holds other bytes"}


def lose(one, path, how="gone", key=KEY):
    lose_of(one, model_unit(key), path, how)


def lose_of(one, unit, path, how="gone"):
    blob = one.mirror.look(unit, now=True).files[path].blob_key
    if how == "gone":
        one.bucket.delete([blob])
    else:
        one.bucket.put(blob, b"other bytes")


def problems(one):
    return check(one.bucket, lambda _: None).problems


@pytest.fixture(params=["a replica that read it", "a replica that never read it"])
def pair(request, replica):
    """Who stored two models, each with a calibration, and a replica that is asked; it may have read what there is."""
    writer, one = replica(), replica()
    for seed in (2, 3):
        writer.models.save_memory(KEY, memory_of(seed), {})
        writer.calibrate(seed / 10)
    if request.param == "a replica that read it":
        one.models.versions(KEY)
    return writer, one


@pytest.fixture(params=WORDS)
def how(request):
    return request.param


def test_error_says_what_is_lost_and_what_mends_it(replica, how):
    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    lose(writer, BANK, how)
    calibration = calibration_of(writer.models.load(KEY))
    for ask in (
        lambda: one.models.load(KEY),
        lambda: one.models.memory_id(KEY),
        lambda: one.models.save_calibration(KEY, calibration),
    ):
        with pytest.raises(DamagedMemory, match=f"^{BANK}: {WORDS[how]}.*; fit this ROI again, or roll it back"):
            ask()


@pytest.mark.slow
def test_fit_mends_a_lost_bank(pair, replica, how):
    writer, one = pair
    lose(writer, BANK, how)
    one.models.check_savable(KEY)
    before = one.models.file_identity(KEY)
    assert one.models.file_identity(KEY) == before
    one.models.save_memory(KEY, memory_of(4), {})
    assert one.models.file_identity(KEY) != before
    assert same_memory(replica().models.load(KEY), memory_of(4))
    assert not [problem for problem in problems(one) if problem.startswith(BANK)]


@pytest.mark.slow
def test_fit_of_the_same_bytes_mends_a_lost_bank(pair, replica, how):
    """The same images give the same file: that it is known already must not keep it from being uploaded."""
    writer, one = pair
    lose(writer, BANK, how)
    one.models.save_memory(KEY, memory_of(3), {})
    found = replica().models.load(KEY)
    assert same_memory(found, memory_of(3))
    assert found.calibration.threshold == 0.3
    assert not [problem for problem in problems(one) if problem.startswith(BANK)]


@pytest.mark.slow
def test_roll_back_mends_a_lost_bank(pair, replica, how):
    writer, one = pair
    lose(writer, BANK, how)
    version, _ = one.models.roll_back(KEY)
    found = replica().models.load(KEY)
    assert found.memory_id == version.facts.memory_id
    assert not [problem for problem in problems(one) if problem.startswith(BANK)]


CHANGES = {
    "fit": (lambda one: one.models.save_memory(KEY, memory_of(4), {}), 4),
    "calibration": (lambda one: one.calibrate(0.9), 3),
    "roll-back": (lambda one: one.models.roll_back(KEY), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_lost_version_keeps_nothing_from_being_changed(replica, how, change):
    writer, one = replica(), replica()
    for seed in (1, 2, 3):
        writer.models.save_memory(KEY, memory_of(seed), {})
    lose(writer, VERSION_1, how)
    work, seed = CHANGES[change]
    work(one)
    fresh = replica()
    assert same_memory(fresh.models.load(KEY), memory_of(seed))
    (problem,) = problems(one)
    assert problem.startswith(f"{VERSION_1}: {WORDS[how]}")
    assert 1 in [version.number for version, _ in fresh.models.versions(KEY)], "its bytes may come back"


def test_roll_back_to_a_lost_version_is_refused_and_changes_nothing(replica, how):
    writer, one = replica(), replica()
    for seed in (1, 2, 3):
        writer.models.save_memory(KEY, memory_of(seed), {})
    lose(writer, VERSION_1, how)
    before = writer.generation()
    with pytest.raises(DamagedMemory, match="version 1 is damaged"):
        one.models.roll_back(KEY, 1)
    assert writer.generation() == before


@pytest.mark.slow
def test_lost_version_goes_with_the_versions_of_its_age(replica):
    one = replica()
    for seed in (1, 2):
        one.models.save_memory(KEY, memory_of(seed), {})
    lose(one, VERSION_1)
    other = replica()
    for seed in range(3, 8):
        other.models.save_memory(KEY, memory_of(seed), {})
    assert problems(one) == []
    assert not [path for path in one.mirror.look(model_unit(KEY)).files if "/.versions/1/" in path]


def test_lost_bank_of_a_recipe_is_not_replaced_by_the_default_one(replica, how):
    writer, one, read_before = replica(), replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    writer.models.save_memory(IN_RECIPE, memory_of(2), {})
    read_before.models.load(IN_RECIPE)
    writer.models.save_memory(IN_RECIPE, memory_of(3), {})
    lose(writer, BANK_IN_RECIPE, how, IN_RECIPE)
    for asked in (one, read_before):
        asked.models.versions(IN_RECIPE)
        asked.catalog.known_rois()
        with pytest.raises(DamagedMemory):
            asked.models.load(IN_RECIPE)
        with asked.mirror.reading(), pytest.raises(DamagedMemory):  # who looked just before
            asked.models._local.load(IN_RECIPE)


def test_recipe_is_fitted_though_the_default_bank_is_lost(replica, how):
    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    lose(writer, BANK, how)
    one.models.check_savable(IN_RECIPE)
    one.models.save_memory(IN_RECIPE, memory_of(2), {})
    one.calibrate(0.4, IN_RECIPE)
    assert replica().models.load(IN_RECIPE).calibration.threshold == 0.4


def long_calibration(one, threshold):
    """One that is too long for the manifest."""
    fitted = one.models.load(KEY, with_calibration=False)
    return dataclasses.replace(calibration_of(fitted, threshold), unusual=tuple(range(1000)))


def test_calibration_mends_a_lost_one(replica, how):
    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    writer.models.save_calibration(KEY, long_calibration(writer, 0.4))
    lose(writer, CALIBRATION, how)
    with pytest.raises(DamagedCalibration, match=f"^{CALIBRATION}: {WORDS[how]}.*; calibrate this ROI again"):
        one.models.load(KEY)
    assert one.models.count_stale() == 1
    one.models.save_calibration(KEY, long_calibration(one, 0.5))
    assert replica().models.load(KEY).calibration.threshold == 0.5
    assert [problem for problem in problems(one) if problem.startswith(CALIBRATION)] == []


def test_fit_sets_a_lost_calibration_aside_for_good(replica, how):
    """As it has no bytes, nothing is left of it that would be found wrong again and again."""
    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    writer.models.save_calibration(KEY, long_calibration(writer, 0.4))
    lose(writer, CALIBRATION, how)
    one.models.save_memory(KEY, memory_of(2), {})
    assert replica().models.load(KEY).calibration_state == "none"
    assert problems(one) == []


def test_lost_scores_of_a_calibration_judge_nothing(replica, how):
    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    scores = tuple(ScoredImage(0.1 + number / 1000, f"image-{number}.png") for number in range(200))
    writer.models.save_calibration(KEY, calibration_of(writer.models.load(KEY), 0.4), CalibrationInputs(scores, ()))
    (path,) = [path for path in writer.mirror.look(model_unit(KEY)).files if path.endswith(".scores.json")]
    lose(writer, path, how)
    found = one.models.load(KEY)
    assert found.calibration.threshold == 0.4
    assert one.models.calibration_inputs(found) is None


def test_bytes_that_are_back_are_served_again(replica):
    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    entry = writer.mirror.manifest(model_unit(KEY)).files[BANK]
    content = writer.bucket.get_large(entry.blob_key)
    lose(writer, BANK)
    with pytest.raises(DamagedMemory):
        one.models.load(KEY)
    writer.bucket.put(entry.blob_key, content)
    assert same_memory(one.models.load(KEY), memory_of(1))


@pytest.mark.parametrize("status", [403, 503])
def test_store_that_refuses_has_lost_nothing(replica, faults, monkeypatch, status):
    monkeypatch.setattr(bucket, "_FIRST_WAIT_S", 0.01)
    writer, one = replica(), replica(faults.endpoint)
    writer.models.save_memory(KEY, memory_of(1), {})
    faults.every = [Fault("status", ("GET",), BLOBS, status=status)]
    for work in (lambda: one.models.save_memory(KEY, memory_of(2), {}), lambda: one.models.check_savable(KEY)):
        with pytest.raises(StoreUnavailable):
            work()
    assert writer.generation() == 1


def test_bytes_that_went_with_their_manifest_are_not_lost(replica):
    """Within its freshness a replica knows an older manifest; what that names may be gone, and the new one is read."""
    writer, one = replica(), replica(fresh_s=3600.0)
    writer.models._keep_versions = 0
    writer.models.save_memory(KEY, memory_of(1), {})
    entry = writer.mirror.manifest(model_unit(KEY)).files[BANK]
    one.catalog.known_rois()
    writer.models.save_memory(KEY, memory_of(2), {})
    writer.bucket.delete([entry.blob_key])
    assert same_memory(one.models.load(KEY), memory_of(2))


@pytest.mark.parametrize("has_links", [True, False], ids=["links", "no links"])
def test_empty_file_of_a_lost_one_is_never_stored(replica, how, has_links, monkeypatch):
    """A version would hold the scores behind a calibration, by another name of their empty file, or by a copy of it."""

    def refused(*_, **__):
        raise OSError("no links here")

    writer, one = replica(), replica()
    writer.models.save_memory(KEY, memory_of(1), {})
    scores = tuple(ScoredImage(0.1 + number / 1000, f"image-{number}.png") for number in range(200))
    writer.models.save_calibration(KEY, calibration_of(writer.models.load(KEY), 0.4), CalibrationInputs(scores, ()))
    (path,) = [path for path in writer.mirror.look(model_unit(KEY)).files if path.endswith(".scores.json")]
    lose(writer, path, how)
    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    one.models.save_memory(KEY, memory_of(2), {})
    one.calibrate(0.6)
    files = one.mirror.look(model_unit(KEY)).files
    assert entry_of(model_unit(KEY), b"", 0).sha256 not in {entry.sha256 for entry in files.values()}
    assert any(name.endswith("/calib.json") and "/.versions/" in name for name in files)
    assert replica().models.load(KEY).calibration.threshold == 0.6


def test_lost_image_can_be_deleted_and_is_not_given(replica, how):
    writer, one = replica(), replica()
    images = [NewSample(lambda n=n: b"\x89PNG" * n, ".png", {"filename": f"{n}.png"}) for n in (2, 3)]
    first, second = (
        stored.name for stored in writer.datasets.add_compared(KEY, "ok", images, None, skip_duplicates=False)
    )
    folder = "@recipes/default/datasets/Master1/Pattern/ok"
    lose_of(writer, dataset_unit(KEY), f"{folder}/{first}", how)
    with pytest.raises(StorageError, match=f"{first}: .*; delete this image and upload it again"):
        one.datasets.samples(KEY, "ok")
    sample = one.datasets.find(KEY, "ok", first)
    with pytest.raises(InvalidImage, match="delete it and upload it again"):
        sample.read()
    assert one.datasets.find(KEY, "ok", second).read() == b"\x89PNG" * 3
    one.datasets.remove(sample)
    assert [kept.name for kept in one.datasets.samples(KEY, "ok")] == [second]
    assert problems(one) == []


def test_lost_layout_is_told_and_replaced_as_if_there_were_none(replica, how):
    writer, one = replica(), replica()
    layout, seen = b'{"a": "' + b"x" * 9000 + b'"}', []
    writer.layouts.write("line 1", layout, lambda _: None)
    writer.layouts.write_picture("line 1", "front", b"\x89PNG")
    lose_of(writer, recipe_unit("line 1"), "@recipes/line 1/layout/layout.json", how)
    with pytest.raises(StorageError, match=r"layout\.json: .*; write it again"):
        one.layouts.read("line 1")
    assert one.layouts.read_picture("line 1", "front") == b"\x89PNG"
    one.layouts.write("line 1", layout, seen.append)
    assert seen == [None]
    assert replica().layouts.read("line 1") == layout


def test_lost_picture_is_told_and_replaced(replica, how):
    writer, one = replica(), replica()
    writer.layouts.write("line 1", b"{}", lambda _: None)
    writer.layouts.write_picture("line 1", "front", b"\x89PNG")
    lose_of(writer, recipe_unit("line 1"), "@recipes/line 1/layout/pictures/front", how)
    with pytest.raises(StorageError, match=r"pictures/front: .*; write it again"):
        one.layouts.read_picture("line 1", "front")
    assert one.layouts.read("line 1") == b"{}"
    assert list(one.layouts.pictures("line 1")) == ["front"]
    one.layouts.write_picture("line 1", "front", b"\x89PNG2")
    assert replica().layouts.read_picture("line 1", "front") == b"\x89PNG2"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".jpgs"])
def test_history_goes_on_without_what_is_lost_of_it(replica, suffix):
    """The segments before and after it are joined meanwhile, and no number comes twice."""
    writer, one = replica(), replica()
    unit = writer.judgements._unit(KEY)
    for number in (1, 2):
        writer.judgements.add(KEY, [judgement(number)], 100)
    before = set(writer.mirror.manifest(unit).files)
    writer.judgements.add(KEY, [judgement(number)._replace(thumbnail=b"\xff" * 200) for number in range(3, 33)], 100)
    (path,) = [path for path in set(writer.mirror.manifest(unit).files) - before if path.endswith(suffix)]
    lose_of(writer, unit, path)
    for number in range(33, 56):
        one.judgements.add(KEY, [judgement(number)], 100)
    fresh = replica()
    kept = fresh.judgements.list(KEY, JudgementQuery())
    assert [judged.at for judged in kept] == [*range(55, 32, -1), 2, 1]
    assert [judged.number for judged in kept[:23]] == [*range(55, 32, -1)]
    assert len({judged.number for judged in kept}) == 25
    assert [fresh.judgements.thumbnail(KEY, kept[place].number) for place in (0, 24)] == [b"jpeg 55", b"jpeg 1"]
    assert len(one.mirror.manifest(unit).files) < 2 * len(kept), "small segments are joined"
    assert problems(one) == []


def test_history_of_a_folder_that_is_lost_goes(replica, tmp_path):
    writer, one = replica(), replica()
    JudgementFiles(tmp_path / "models").add(KEY, [judgement(1), judgement(2)], 10)
    push(tmp_path / "models", writer.bucket, lambda _: None)
    unit = writer.judgements._unit(KEY)
    lose_of(writer, unit, f".history/{unit.names[0]}.sqlite")
    with pytest.raises(StorageError, match="sqlite: its bytes are gone"):
        one.judgements.list(KEY, JudgementQuery())
    one.judgements.add(KEY, [judgement(3)], 10)
    assert [judged.at for judged in replica().judgements.list(KEY, JudgementQuery())] == [3]
    assert problems(one) == []
