"""Push and pull between a folder and a store, check and gc."""

import hashlib
import shutil
from datetime import timedelta

import pytest

from backend.common.errors import StoreUnavailable
from backend.common.roi_key import RoiKey
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.drift_files import DriftFiles
from backend.disk.gui_layouts import GuiLayoutStore
from backend.disk.judgements import JudgementFiles, JudgementQuery
from backend.disk.recipes import RecipeStore
from backend.object_store import transfer
from backend.object_store.manifest import BLOBS
from backend.object_store.transfer import Counts, check, collect_garbage, manifests, pull, push
from backend.object_store.units import is_stored, model_unit
from backend.scores.drift_statistics import NOT_KNOWN, RoiDrift
from backend.storage import ModelStore
from harness.fault_proxy import Fault
from tests.factories import IN_RECIPE, KEY, calibration_of, load, memory_of, same_memory, unit_rows, write_memory
from tests.object_store.replicas import judgement


def contents(folder):
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if is_stored(name)}


@pytest.fixture
def folder(tmp_path):
    """A models folder with a bit of everything."""
    root = tmp_path / "models"
    store = ModelStore(root)
    for seed in (1, 2, 3):
        store.save_memory(KEY, memory_of(seed), {"n_images": 3}, thumbnails=[b"\xff" * 9])
        store.save_calibration(KEY, calibration_of(store.load(KEY), 0.4))
    store.save_calibration(IN_RECIPE, calibration_of(store.load(IN_RECIPE), 0.6))
    with RecipeStore(root).locking_scale("line 1", 0.2):
        image = NewSample(lambda: b"\x89PNG" * 2000, ".png", {"filename": "ä.png"})
        DatasetStore(root).add(IN_RECIPE, "ok", [image, image])
    GuiLayoutStore(root).write("line 1", b'{"a": 1}', lambda _: None)
    GuiLayoutStore(root).write_picture("line 1", "ä", b"\x89PNG")
    JudgementFiles(root).add(KEY, [judgement(1), judgement(2)], 10)
    drift = DriftFiles(root)
    drift.update(drift.path(KEY), lambda _: RoiDrift.starting(KEY, "conditions", 0.4, NOT_KNOWN, 1.0))
    return root


def silent(problem):
    raise AssertionError(problem)


@pytest.mark.slow
def test_folder_that_was_pushed_comes_back_byte_for_byte(replica, folder, tmp_path):
    one = replica()
    pushed = push(folder, one.bucket, silent)
    assert (pushed.units, pushed.changed) == (6, 6)
    pulled = pull(one.bucket, tmp_path / "other", silent)
    assert pulled.units == 6
    assert contents(tmp_path / "other") == contents(folder)
    assert load(tmp_path / "other").calibration == load(folder).calibration
    again = push(tmp_path / "other", one.bucket, silent), pull(one.bucket, folder, silent)
    assert [(counts.changed, counts.files) for counts in again] == [(0, 0), (0, 0)]
    checked = check(one.bucket, silent)
    assert checked.files == len(contents(folder))


def test_store_that_was_pulled_serves_the_same_from_a_folder(replica, tmp_path):
    """What replicas stored, a service without a store serves; and back again."""
    one = replica()
    for seed in (1, 2):
        one.models.save_memory(KEY, memory_of(seed), {})
    one.calibrate(0.4)
    with one.recipes.locking_scale("line 1", 0.2):
        pass
    one.judgements.add(KEY, [judgement(1), judgement(2)], 100)
    pull(one.bucket, tmp_path / "folder", silent)
    store = ModelStore(tmp_path / "folder")
    assert store.load(KEY).calibration.threshold == 0.4
    assert [version.number for version, _ in store.versions(KEY)] == [2, 1]
    assert RecipeStore(tmp_path / "folder").mm_per_px("line 1") == 0.2
    kept = JudgementFiles(tmp_path / "folder")
    assert kept.list(KEY, JudgementQuery()) == one.judgements.list(KEY, JudgementQuery())
    assert kept.thumbnail(KEY, 2) == b"jpeg 2"
    store.roll_back(KEY, 1)
    kept.add(KEY, [judgement(3)], 100)
    push(tmp_path / "folder", one.bucket, silent)
    other = replica()
    assert same_memory(other.models.load(KEY), memory_of(1))
    other.judgements.add(KEY, [judgement(4)], 100)
    assert [found.number for found in one.judgements.list(KEY, JudgementQuery())] == [4, 3, 2, 1]
    assert [one.judgements.thumbnail(KEY, number) for number in (4, 1)] == [b"jpeg 4", b"jpeg 1"]


def test_files_that_the_store_does_not_have_go_with_a_pull(replica, folder):
    one = replica()
    push(folder, one.bucket, silent)
    one.models.save_memory(KEY, memory_of(4), {})
    (folder / "Master1/Pattern/calib.json.old").write_text("left")
    (folder / "Other/Roi").mkdir(parents=True)
    (folder / "Other/Roi/memory.npz").write_text("another ROI's")
    pull(one.bucket, folder, silent)
    assert not (folder / "Master1/Pattern/calib.json.old").exists()
    assert (folder / "Other/Roi/memory.npz").exists()
    assert same_memory(load(folder), memory_of(4))


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1, 3])
def test_push_and_pull_that_were_stopped_go_on(replica, folder, faults, tmp_path, left):
    one = replica(faults.endpoint)
    faults.every = [Fault("slow", ("PUT",), seconds=0, left=left), Fault("status", ("PUT",), status=403)]
    with pytest.raises(StoreUnavailable):
        push(folder, one.bucket, silent)
    faults.every = []
    push(folder, one.bucket, silent)
    faults.every = [Fault("slow", ("GET",), BLOBS, seconds=0, left=left), Fault("status", ("GET",), BLOBS, status=403)]
    with pytest.raises(StoreUnavailable):
        pull(one.bucket, tmp_path / "other", silent)
    faults.every = []
    pull(one.bucket, tmp_path / "other", silent)
    assert contents(tmp_path / "other") == contents(folder)


def test_what_an_older_backend_wrote_is_not_pushed_and_told(replica, tmp_path):
    write_memory(tmp_path / "models/Master1/Old/memory.npz", unit_rows(5, 16, 1), (1, 5))
    write_memory(tmp_path / "models/Master1_Old.npz", unit_rows(5, 16, 1), (1, 5))
    told = []
    counts = push(tmp_path / "models", replica().bucket, told.append)
    assert counts.units == 0
    assert len(told) == 2
    assert all("an older backend wrote it" in problem for problem in told)


def test_check_names_every_file_whose_bytes_are_others_or_gone(replica, folder):
    one, told = replica(), []
    push(folder, one.bucket, silent)
    files = one.mirror.look(model_unit(KEY)).files
    one.bucket.put(files["Master1/Pattern/memory.npz"].blob_key, b"other")
    one.bucket.delete([files["Master1/Pattern/.versions/2/memory.npz"].blob_key])
    one.bucket.put(model_unit(IN_RECIPE).key, b"no manifest")
    counts = check(one.bucket, told.append)
    assert counts.problems == told
    others = [problem for problem in told if "holds other bytes" in problem]
    gone = [problem for problem in told if "its bytes are gone" in problem]
    (damaged,) = [problem for problem in told if "is damaged" in problem]
    assert any(problem.startswith("Master1/Pattern/memory.npz: ") for problem in others)
    assert any(problem.startswith("Master1/Pattern/.versions/2/memory.npz: ") for problem in gone)
    assert str(model_unit(IN_RECIPE)) in damaged
    assert len(told) == len(others) + len(gone) + 1


def test_what_nothing_names_is_deleted_after_a_day(replica, folder, monkeypatch):
    one = replica()
    push(folder, one.bucket, silent)
    one.bucket.put(f"{BLOBS}00/unnamed", b"left by a killed writer")
    before = {item.key for item in one.bucket.list(BLOBS.rstrip("/"))}
    assert collect_garbage(one.bucket, silent).files == 0, "it is young"
    monkeypatch.setattr(transfer, "GARBAGE_AFTER", timedelta(seconds=-10))
    assert collect_garbage(one.bucket, silent).files == 1
    assert before - {item.key for item in one.bucket.list(BLOBS.rstrip("/"))} == {f"{BLOBS}00/unnamed"}
    assert check(one.bucket, silent).files == len(contents(folder))


def test_nothing_is_deleted_where_a_manifest_cannot_be_read(replica, folder, monkeypatch):
    monkeypatch.setattr(transfer, "GARBAGE_AFTER", timedelta(seconds=-10))
    one, told = replica(), []
    push(folder, one.bucket, silent)
    one.bucket.put(model_unit(KEY).key, b"damaged")
    before = list(one.bucket.list(BLOBS.rstrip("/")))
    assert collect_garbage(one.bucket, told.append).files == 0
    assert len(told) == 1
    assert list(one.bucket.list(BLOBS.rstrip("/"))) == before


def test_bytes_that_come_again_are_written_again_and_survive_a_gc(replica, monkeypatch):
    """A blob that nothing names may be deleted at any moment: nobody names it again, but writes its bytes anew."""
    monkeypatch.setattr(transfer, "GARBAGE_AFTER", timedelta(seconds=-10))
    one = replica()
    one.models._keep_versions = 0
    one.models.save_memory(KEY, memory_of(1), {})
    first = one.mirror.manifest(model_unit(KEY)).files["Master1/Pattern/memory.npz"]
    one.models.save_memory(KEY, memory_of(2), {})
    one.models.save_memory(KEY, memory_of(1), {})
    again = one.mirror.manifest(model_unit(KEY)).files["Master1/Pattern/memory.npz"]
    assert again.sha256 == first.sha256
    assert again.blob != first.blob
    collect_garbage(one.bucket, silent)
    shutil.rmtree(one.mirror.root)
    assert same_memory(replica().models.load(KEY), memory_of(1))


def test_scale_that_a_killed_process_left_goes_to_the_store_and_comes_back(replica, tmp_path):
    """Nobody knows what it stored with it, here or there: the recipe stays locked to it."""
    settings = tmp_path / "models/@recipes/line 1/recipe.json.pending"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"recipe_id": "line 1", "mm_per_px": 0.2, "created_at_utc": "2026"}')
    one = replica()
    push(tmp_path / "models", one.bucket, silent)
    assert one.recipes.mm_per_px("line 1") == 0.2
    pull(one.bucket, tmp_path / "other", silent)
    assert contents(tmp_path / "other") == contents(tmp_path / "models")
    with one.recipes.locking_scale("line 1", 0.2):
        pass
    pull(one.bucket, tmp_path / "other", silent)
    assert not list((tmp_path / "other").rglob("*.pending"))
    assert RecipeStore(tmp_path / "other").mm_per_px("line 1") == 0.2


def test_pull_lists_the_folder_once_however_many_units_there_are(replica, tmp_path, monkeypatch):
    one, listed = replica(), []
    for role in ("a", "b", "c"):
        one.models.save_memory(RoiKey(role, "roi"), memory_of(1), {})
    rglob = type(tmp_path).rglob
    monkeypatch.setattr(type(tmp_path), "rglob", lambda path, pattern: listed.append(path) or rglob(path, pattern))
    pull(one.bucket, tmp_path / "other", silent)
    assert len(listed) == 1


def test_push_that_was_stopped_sends_nothing_twice(places, folder, faults):
    """It was stopped before it named what it had sent: that is copied, so that no gc takes it away."""
    whole = push(folder, places()().bucket, silent).files
    one = places()(faults.endpoint)
    faults.every = [Fault("status", ("PUT",), "manifests/models/", status=403)]
    with pytest.raises(StoreUnavailable):
        push(folder, one.bucket, silent)
    sent = {item.key for item in one.bucket.list(BLOBS.rstrip("/"))}
    faults.every = []
    assert 1 < len(sent) < whole
    assert push(folder, one.bucket, silent).files == whole - len(sent)
    one.bucket.delete([key for key in sent if key not in named_in(one)])
    assert check(one.bucket, silent).files == len(contents(folder))


def named_in(one):
    return {entry.blob_key for manifest in manifests(one.bucket, Counts(), silent) for entry in manifest.files.values()}


def test_push_mends_what_is_lost_and_a_manifest_that_is_damaged(replica, folder):
    one = replica()
    push(folder, one.bucket, silent)
    files = one.mirror.look(model_unit(KEY)).files
    one.bucket.delete([files["Master1/Pattern/memory.npz"].blob_key])
    one.bucket.put(files["Master1/Pattern/.versions/2/memory.npz"].blob_key, b"other")
    one.bucket.put(model_unit(IN_RECIPE).key, b"damaged")
    pushed = push(folder, one.bucket, silent)
    assert (pushed.changed, pushed.files) == (2, 2)
    assert check(one.bucket, silent).files == len(contents(folder))
    assert push(folder, one.bucket, silent).changed == 0


@pytest.mark.parametrize("suffix", ["", ".pending"])
def test_recipe_of_another_scale_than_the_store_settled_is_not_pushed(replica, folder, suffix):
    """Replicas ask for a scale once, as it is settled for good: they would go on with the one before."""
    one, told = replica(), []
    settings = folder / "@recipes/line 1/recipe.json"
    settings.rename(settings.with_name(f"recipe.json{suffix}"))
    with one.recipes.locking_scale("line 1", 0.3):
        pass
    assert one.recipes.mm_per_px("line 1") == 0.3
    counts = push(folder, one.bucket, told.append)
    (problem,) = told
    assert problem.startswith("recipe 'line 1': not pushed: its mm_per_px is 0.2, but the store is locked to 0.3")
    assert {manifest.unit.kind for manifest in manifests(one.bucket, Counts(), silent)} == {
        "recipes",
        "models",
        "drift",
        "history",
    }
    assert counts.units == 3
    assert replica().recipes.mm_per_px("line 1") == 0.3
    assert replica().models.load(KEY) is not None


def test_scale_that_is_settled_stays_though_the_folder_has_none(replica, tmp_path):
    one = replica()
    with one.recipes.locking_scale("line 1", 0.3):
        pass
    GuiLayoutStore(tmp_path / "models").write("line 1", b'{"a": 1}', lambda _: None)
    push(tmp_path / "models", one.bucket, silent)
    assert (replica().recipes.mm_per_px("line 1"), replica().layouts.read("line 1")) == (0.3, b'{"a": 1}')
