import errno
import gc
import io
import json
import os
import shutil
import threading
import time
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from structlog.testing import capture_logs

from backend import storage
from backend.calib import Calibration, calibrate
from backend.common import files
from backend.common.config import Settings
from backend.common.errors import Conflict, IncompatibleMemory, InvalidRequest, MemoryNotFound, StorageError
from backend.common.roi_key import RoiKey
from backend.disk import calibration_file, candidates, memory_cache, stale
from backend.disk import fitted as fitted_module
from backend.disk.layout import folder_name
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer as infer_image
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import (
    AWKWARD,
    KEY,
    LAYOUTS,
    calibration_of,
    encoded,
    index_bytes,
    load,
    memory_of,
    older_files,
    same_memory,
    snapshot,
    store_threshold,
    unit_rows,
    write_memory,
)

# --- formats


def test_a_memory_is_readable_with_plain_numpy_faiss_and_json(fitted_folder):
    folder, memory = fitted_folder
    with np.load(folder / "memory.npz", allow_pickle=False) as arrays:
        assert {"emb", "token_h", "token_w"} <= set(arrays)
        assert arrays["emb"].dtype == np.float32
        assert np.array_equal(arrays["emb"], memory.embeddings)
        assert np.linalg.norm(arrays["emb"], axis=1) == pytest.approx(1, abs=1e-6)
        assert (int(arrays["token_h"]), int(arrays["token_w"])) == (4, 5)
        assert json.loads(str(arrays["metadata"])) == {
            "role_id": "Master1",
            "roi_id": "Pattern",
            "coreset_rate": 1.0,
            "memory_id": ModelStore(folder.parents[1]).memory_id(KEY),
        }
    index = faiss.read_index(str(folder / "index.faiss"))
    assert isinstance(index, faiss.IndexFlatL2)
    assert np.array_equal(index.reconstruct_n(0, index.ntotal), memory.embeddings)
    assert {path.name for path in folder.iterdir()} - {".lock"} == {"memory.npz", "index.faiss"}


def test_a_memory_reads_back_as_it_was_written(fitted_folder, tmp_path):
    fitted = load(tmp_path)
    assert same_memory(fitted, fitted_folder[1])
    assert fitted.metadata["coreset_rate"] == 1.0
    assert (fitted.layout, fitted.calibration, fitted.calibration_state) == ("current", None, "none")
    queries = unit_rows(7, 16, 99)
    assert np.array_equal(fitted.memory.distances(queries), fitted_folder[1].distances(queries))


def test_a_calibration_has_the_playbooks_keys_and_reads_back(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    calibration = calibrate(
        [0.3, 0.4],
        [0.8, 0.9],
        mm_per_px=0.2,
        area_mm2_thr=1.0,
        score_percentile=99.0,
        memory_id=load(tmp_path).memory_id,
    )
    store.save_calibration(KEY, calibration)
    text = (fitted_folder[0] / "calib.json").read_text(encoding="utf-8")
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["threshold"] == pytest.approx((0.399 + 0.805) / 2)
    assert values["p99_ok"] == pytest.approx(0.399)
    assert values["p5_ng"] == pytest.approx(0.805)
    assert (values["mm_per_px"], values["area_mm2_thr"]) == (0.2, 1.0)
    assert values["score_percentile"] == 99
    assert type(values["score_percentile"]) is int
    assert load(tmp_path).calibration == calibration
    assert load(tmp_path).calibration_state == "applied"


def test_a_calibration_without_ng_scores_leaves_their_keys_out(fitted_folder, tmp_path):
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(load(tmp_path)))
    values = json.loads((fitted_folder[0] / "calib.json").read_bytes())
    assert not {"p5_ng", "ng_mean"} & set(values)
    assert None not in values.values()
    fitted = load(tmp_path)
    assert fitted.calibration is not None
    assert fitted.calibration.p5_ng is None


def test_the_same_fit_twice_writes_the_same_bytes(tmp_path, monkeypatch):
    ModelStore(tmp_path / "a").save_memory(KEY, memory_of(1), {"n_images": 2, "coreset_rate": 0.5})
    later = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    ModelStore(tmp_path / "b").save_memory(KEY, memory_of(1), {"coreset_rate": 0.5, "n_images": 2})
    first, second = (tmp_path / name / "Master1" / "Pattern" / "memory.npz" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_same_images_fitted_twice_write_the_same_memory(features, images, tmp_path):
    content = [encoded(image) for image in images[:2]]
    written = []
    for name in ("once", "again"):
        service = InspectionService(Settings(models_dir=tmp_path / name), features, ModelStore(tmp_path / name))
        named = [NamedImage(f"{i}.png", lambda i=i: content[i]) for i in range(2)]
        result = fit(service, KEY, named, mm_per_px=0.2)
        assert (result.n_embeddings, result.coreset_size, result.token_hw) == (2048, 41, (32, 32))
        written.append((tmp_path / name / "Master1" / "Pattern" / "memory.npz").read_bytes())
    assert written[0] == written[1]


def test_a_roi_that_was_never_fitted_has_no_model(tmp_path):
    assert ModelStore(tmp_path).load(KEY) is None
    assert ModelStore(tmp_path / "not there").load(KEY) is None
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert ModelStore(tmp_path).load(RoiKey("Master1", "Other")) is None
    assert ModelStore(tmp_path).load(RoiKey("Master1", "pattern")) is None


def test_fitted_rois_are_counted_in_every_layout(tmp_path):
    store = ModelStore(tmp_path)
    assert store.count_fitted() == 0
    store.save_memory(KEY, memory_of(1), {})
    store.save_memory(RoiKey("Master1", "Other"), memory_of(2), {})
    write_memory(tmp_path / "Old_Roi.npz", unit_rows(3, 8, 0), (1, 3))
    assert store.count_fitted() == 3


# --- crashes and damage


class Killed(BaseException):
    """The process dies here."""


def test_a_crash_at_any_step_of_a_fit_leaves_the_old_model_or_the_new(tmp_path, monkeypatch):
    old, new = memory_of(1), memory_of(2)
    outcomes = []
    for fatal_step in range(1, 50):
        root = tmp_path / str(fatal_step)
        ModelStore(root).save_memory(KEY, old, {})
        steps = iter(range(1, 1000))

        def dying(call, steps=steps, fatal_step=fatal_step):
            def step(*arguments, **options):
                if next(steps) == fatal_step:
                    raise Killed
                return call(*arguments, **options)

            return step

        with monkeypatch.context() as patched:
            for owner, name in [(os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")]:
                patched.setattr(owner, name, dying(getattr(owner, name)))
            try:
                ModelStore(root).save_memory(KEY, new, {})
                died = False
            except Killed:
                died = True
        fitted = load(root)
        assert same_memory(fitted, old) or same_memory(fitted, new)
        # Whatever the crash left of the index, the next reader repairs it.
        folder = root / "Master1" / "Pattern"
        assert (folder / "index.faiss").read_bytes() == index_bytes(fitted.memory.embeddings)
        outcomes.append("old" if same_memory(fitted, old) else "new")
        if not died:
            break
    assert not died, "every step was tried"
    assert outcomes == sorted(outcomes, reverse=True), "first the old, from some step on the new"
    assert {"old", "new"} == set(outcomes)


def test_what_a_killed_writer_left_is_cleared_by_the_next_and_never_read(fitted_folder, tmp_path):
    folder, memory = fitted_folder
    (folder / ".tmp-0123").write_bytes(b"half a memory")
    assert same_memory(load(tmp_path), memory)
    ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("unwritable", ["memory.npz", "index.faiss"])
def test_a_fit_that_cannot_be_written_whole_changes_nothing(fitted_folder, tmp_path, monkeypatch, unwritable):
    _, memory = fitted_folder
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(load(tmp_path)))
    replace = Path.replace

    def full_disk(path, target):
        if Path(target).name == unwritable:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full_disk)
        with pytest.raises(StorageError, match="No space left"):
            ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
    fitted = load(tmp_path)
    assert same_memory(fitted, memory)
    assert fitted.calibration_state == "applied"


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage", "stale", "of another dimension"])
def test_index_that_is_not_of_the_memory_is_repaired_and_not_used(fitted_folder, tmp_path, damage):
    """An index that is missing, damaged or of another memory is written anew, and distances are right."""
    folder, memory = fitted_folder
    file = folder / "index.faiss"
    right = file.read_bytes()
    assert right == index_bytes(memory.embeddings)
    wrong = {
        "empty": b"",
        "truncated": right[: len(right) // 2],
        "garbage": os.urandom(len(right)),
        "stale": index_bytes(unit_rows(20, 16, 77)),
        "of another dimension": index_bytes(unit_rows(5, 3, 77)),
    }
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(wrong[damage])
    fitted = load(tmp_path)
    assert file.read_bytes() == right
    queries = unit_rows(9, 16, 5)
    expected = np.sqrt(((queries[:, None] - memory.embeddings[None]) ** 2).sum(-1)).min(1)
    assert fitted.memory.distances(queries) == pytest.approx(expected, abs=1e-5)


def test_model_on_a_read_only_disk_is_served_without_its_index(fitted_folder, tmp_path, monkeypatch):
    folder, memory = fitted_folder
    (folder / "index.faiss").unlink()

    def read_only(*_arguments, **_options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    assert same_memory(load(tmp_path), memory)


def npz(compressed=False, **arrays):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


GOOD = {"emb": unit_rows(6, 8, 3), "token_h": 2, "token_w": 3}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip",
        npz(**GOOD)[:-40],
        npz(**GOOD)[:200],
        npz(token_h=2, token_w=3),
        npz(emb=GOOD["emb"], token_w=3),
        npz(**{**GOOD, "token_h": np.array([1, 2])}),
        npz(**{**GOOD, "token_h": np.array("two")}),
        npz(**{**GOOD, "emb": np.array([{"a": 1}], dtype=object)}),
        npz(**{**GOOD, "emb": GOOD["emb"].astype(np.float64)}),
        npz(**{**GOOD, "emb": GOOD["emb"].astype(np.float16)}),
        npz(**{**GOOD, "emb": np.array(["a", "b"])}),
        npz(**{**GOOD, "emb": GOOD["emb"][0]}),
        npz(**{**GOOD, "emb": GOOD["emb"][:0]}),
        npz(**{**GOOD, "emb": GOOD["emb"] * np.float32(3)}),
        npz(**{**GOOD, "emb": np.where(GOOD["emb"] == GOOD["emb"][2, 3], np.float32(np.nan), GOOD["emb"])}),
        npz(**{**GOOD, "emb": np.zeros((6, 8), np.float32)}),
        npz(**GOOD, version=1, metadata=np.array("{")),
        npz(**GOOD, version=1, metadata=np.array("[]")),
        npz(**GOOD, version=1, metadata=np.array('"text"')),
        npz(**GOOD, version=1, metadata=np.array({"role_id": "Master1"}, dtype=object)),
        npz(**GOOD, version=1),
    ],
    ids=[
        "empty",
        "text",
        "without its end",
        "truncated",
        "no emb",
        "no token_h",
        "two token_h",
        "token_h text",
        "pickled",
        "float64",
        "float16",
        "text embeddings",
        "one-dimensional",
        "no rows",
        "not normalised",
        "NaN",
        "zeros",
        "metadata no JSON",
        "metadata a list",
        "metadata a text",
        "metadata pickled",
        "version without metadata",
    ],
)
def test_a_damaged_memory_is_refused_with_refit(tmp_path, content):
    folder = tmp_path / "Master1" / "Pattern"
    folder.mkdir(parents=True)
    (folder / "memory.npz").write_bytes(content)
    with pytest.raises((StorageError, IncompatibleMemory), match="refit"):
        ModelStore(tmp_path).load(KEY)
    assert (folder / "memory.npz").read_bytes() == content
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert same_memory(load(tmp_path), memory_of(1)), "and a refit heals it"


def test_a_pickle_in_a_memory_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    folder = tmp_path / "Master1" / "Pattern"
    folder.mkdir(parents=True)
    for arrays in ({**GOOD, "emb": np.array([Trap()])}, {**GOOD, "version": 1, "metadata": np.array(Trap())}):
        (folder / "memory.npz").write_bytes(npz(**arrays))
        with pytest.raises(StorageError):
            ModelStore(tmp_path).load(KEY)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "compressed"])
def test_a_flipped_byte_anywhere_is_found_or_harmless(tmp_path, compressed):
    content = npz(compressed, **GOOD)
    folder = tmp_path / "Master1" / "Pattern"
    folder.mkdir(parents=True)
    refused = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (folder / "memory.npz").write_bytes(damaged)
        try:
            fitted = ModelStore(tmp_path).load(KEY)
        except StorageError as error:
            refused += int("refit" in str(error))
        else:
            assert fitted is not None
            assert np.array_equal(fitted.memory.embeddings, GOOD["emb"])
            assert fitted.memory.token_hw == (2, 3)
    assert refused > len(content) / 3


def test_a_memory_of_a_newer_format_is_refused(tmp_path):
    folder = tmp_path / "Master1" / "Pattern"
    folder.mkdir(parents=True)
    (folder / "memory.npz").write_bytes(npz(**GOOD, version=2, metadata=np.array("{}")))
    with pytest.raises(StorageError, match=r"version 2.*refit"):
        ModelStore(tmp_path).load(KEY)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"threshold": 0.5', "[" * 100_000])
def test_a_damaged_calibration_is_a_storage_error_that_says_calibrate(fitted_folder, tmp_path, text):
    (fitted_folder[0] / "calib.json").write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match="calibrate this ROI again"):
        ModelStore(tmp_path).load(KEY)


@pytest.mark.parametrize("seed", [1, 2], ids=["same images", "other images"])
def test_a_fit_mends_a_damaged_calibration_by_setting_it_aside(fitted_folder, tmp_path, seed):
    folder, _ = fitted_folder
    (folder / "calib.json").write_bytes(b"{")
    ModelStore(tmp_path).save_memory(KEY, memory_of(seed), {})
    fitted = load(tmp_path)
    assert (same_memory(fitted, memory_of(seed)), fitted.calibration_state) == (True, "none")
    (aside,) = (folder / "history").iterdir()
    assert aside.read_bytes() == b"{"
    ModelStore(tmp_path).save_calibration(KEY, calibration_of(fitted))
    ModelStore(tmp_path).save_memory(KEY, memory_of(3), {})
    assert load(tmp_path).calibration_state == "stale"
    assert list((folder / "history").iterdir()) == [aside], "one that can be read stays where it is"


def test_a_fit_is_stored_where_a_damaged_calibration_cannot_be_set_aside(fitted_folder, tmp_path):
    folder, _ = fitted_folder
    (folder / "calib.json").write_bytes(b"{")
    (folder / "history").write_text("in the way")
    ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
    assert same_memory(ModelStore(tmp_path).load(KEY, with_calibration=False), memory_of(2))


def test_fit_leaves_a_calibration_it_cannot_read_for_now_where_it_is(fitted_folder, tmp_path, monkeypatch):
    """Too many files are open: the calibration is not damaged and must not be set aside as if it were."""

    def too_many_files(*_arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    store_threshold(tmp_path, 0.6, KEY)
    with monkeypatch.context() as patched:
        patched.setattr(calibration_file, "read_small", too_many_files)
        ModelStore(tmp_path).save_memory(KEY, memory_of(1), {"n_images": 3})
    assert load(tmp_path).calibration.threshold == 0.6


def test_ids_that_differ_in_case_only_never_share_a_model(fitted_folder, tmp_path):
    """On a disk that takes both ids for one folder the second is refused. A copied folder can be fitted anew."""
    # As a case-insensitive file system shows it: the folder of the other id holds this one's memory.
    shutil.copytree(fitted_folder[0], tmp_path / "master1" / "pattern")
    twin, other = RoiKey("master1", "pattern"), RoiKey("Copied", "Pattern")
    for use in (ModelStore(tmp_path).load, ModelStore(tmp_path).memory_id):
        with pytest.raises(IncompatibleMemory, match=r"refit.*fitted for role 'Master1', roi 'Pattern'"):
            use(twin)
    with pytest.raises(InvalidRequest, match="use other ids"):
        ModelStore(tmp_path).check_savable(twin)

    # A folder that somebody copied is another matter: a refit makes it this ROI's own.
    shutil.copytree(fitted_folder[0], tmp_path / "Copied" / "Pattern")
    ModelStore(tmp_path).check_savable(other)
    ModelStore(tmp_path).save_memory(other, memory_of(2), {})
    assert same_memory(ModelStore(tmp_path).load(other), memory_of(2))


def test_unusable_models_folder_is_a_storage_error_without_its_path(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StorageError) as caught:
        ModelStore(tmp_path / "models").save_memory(KEY, memory_of(1), {})
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(StorageError):
        ModelStore(tmp_path / "models").save_calibration(KEY, calibration_of(None))


# --- calibrations and the memory they belong to


def test_a_calibration_made_for_an_earlier_fit_is_stale_and_not_applied(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(store.load(KEY)))
    assert load(tmp_path).calibration_state == "applied"
    store.save_memory(KEY, memory_of(2), {})
    for reader in (store, ModelStore(tmp_path)):
        fitted = reader.load(KEY)
        assert fitted is not None
        assert (fitted.calibration, fitted.calibration_state) == (None, "stale")
    store.save_calibration(KEY, calibration_of(store.load(KEY), 0.6))
    assert load(tmp_path).calibration == calibration_of(load(tmp_path), 0.6)


def test_the_same_memory_fitted_again_keeps_its_calibration(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(store.load(KEY)))
    store.save_memory(KEY, memory_of(1), {"n_images": 3})
    assert load(tmp_path).calibration_state == "applied"


def test_an_older_calibration_never_replaces_that_of_a_newer_fit(fitted_folder, tmp_path):
    slow, other = ModelStore(tmp_path), ModelStore(tmp_path)
    older = calibration_of(slow.load(KEY), 0.4)
    other.save_memory(KEY, memory_of(2), {})
    other.save_calibration(KEY, calibration_of(other.load(KEY), 0.6))
    with pytest.raises(Conflict, match="fitted anew since it was scored"):
        slow.save_calibration(KEY, older)
    fitted = load(tmp_path)
    assert (fitted.calibration_state, fitted.calibration) == ("applied", calibration_of(fitted, 0.6))


def test_fit_just_before_a_calibration_is_written_is_noticed_at_once(fitted_folder, tmp_path, monkeypatch):
    """Another fit comes between the load and the write of a calibration; the calibration is refused without waiting."""
    store = ModelStore(tmp_path)
    older, writing = calibration_of(store.load(KEY)), storage.writing

    def after_another_fit(folder, what):
        monkeypatch.setattr(storage, "writing", writing)
        ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
        (folder / "index.faiss").unlink()  # which a read would mend, if it did not wait for the lock that is held
        return writing(folder, what)

    monkeypatch.setattr(storage, "writing", after_another_fit)
    start = time.monotonic()
    with pytest.raises(Conflict):
        store.save_calibration(KEY, older)
    assert time.monotonic() - start < 5
    assert same_memory(store.load(KEY), memory_of(2))
    assert (fitted_folder[0] / "index.faiss").exists(), "the next read mends it"


def test_fit_and_calibration_that_come_during_a_read_are_read_together(fitted_folder, tmp_path, monkeypatch):
    read, store = fitted_module.read_calibration, ModelStore(tmp_path)

    def after_another_fit(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        other = ModelStore(tmp_path)
        other.save_memory(KEY, memory_of(2), {})
        other.save_calibration(KEY, calibration_of(other.load(KEY), 0.6))
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_another_fit)
    fitted = store.load(KEY)
    assert same_memory(fitted, memory_of(2))
    assert (fitted.calibration_state, fitted.calibration) == ("applied", calibration_of(fitted, 0.6))


def test_recipe_model_that_comes_during_a_read_is_not_mixed_with_default(fitted_folder, tmp_path, monkeypatch):
    """A recipe gets its first model while it is read; the reader gets that model with its own calibration."""
    line, read, store = RoiKey("Master1", "Pattern", "line 1"), fitted_module.read_calibration, ModelStore(tmp_path)
    store_threshold(tmp_path, 0.4, KEY)
    store_threshold(tmp_path, 0.6, line)
    assert store.load(line).calibration.threshold == 0.6

    def after_its_own_fit(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        ModelStore(tmp_path).save_memory(line, memory_of(2), {})
        store_threshold(tmp_path, 0.9, line)
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_its_own_fit)
    fitted = store.load(line)
    assert (same_memory(fitted, memory_of(2)), fitted.calibration.threshold) == (True, 0.9)


@pytest.mark.parametrize("layout", ["L0", "L1", "L2"])
def test_first_fit_during_a_read_is_not_mixed_with_an_older_backends_model(tmp_path, monkeypatch, layout):
    """The reader gets the new model with its own calibration and nothing of the older backend's."""
    read, store = fitted_module.read_calibration, ModelStore(tmp_path)
    memory_file, _, calibration_file = older_files(tmp_path, layout, KEY)
    write_memory(memory_file, unit_rows(12, 16, 8), (3, 4))
    calibration_file.write_text('{"threshold": 0.4}', encoding="utf-8")
    if layout != "L0":  # there the first calibration of this service takes the place of the older one
        store_threshold(tmp_path, 0.6, KEY)

    def after_a_fit(path):
        monkeypatch.setattr(fitted_module, "read_calibration", read)
        ModelStore(tmp_path).save_memory(KEY, memory_of(2), {})
        store_threshold(tmp_path, 0.9, KEY)
        return read(path)

    monkeypatch.setattr(fitted_module, "read_calibration", after_a_fit)
    fitted = store.load(KEY)
    assert (same_memory(fitted, memory_of(2)), fitted.calibration.threshold) == (True, 0.9)


def test_a_calibration_made_before_any_fit_is_stale_once_there_is_one(tmp_path):
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(None))
    assert store.load(KEY) is None
    store.save_memory(KEY, memory_of(1), {})
    fitted = load(tmp_path)
    assert (fitted.calibration, fitted.calibration_state) == (None, "stale")


# --- several processes


def test_two_stores_on_one_folder_see_each_others_writes_at_the_next_load(tmp_path):
    here, there = ModelStore(tmp_path), ModelStore(tmp_path)
    assert there.load(KEY) is None
    for seed in range(1, 6):
        here.save_memory(KEY, memory_of(seed), {})
        seen = there.load(KEY)
        assert seen is not None
        assert same_memory(seen, memory_of(seed))
        assert seen.calibration is None
        there.save_calibration(KEY, calibration_of(seen, seed / 10))
        fitted = here.load(KEY)
        assert fitted is not None
        assert fitted.calibration is not None
        assert fitted.calibration.threshold == seed / 10
        here, there = there, here


def test_a_memory_that_did_not_change_is_read_once(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    first, second = store.load(KEY), store.load(KEY)
    assert first is not None
    assert second is not None
    assert first.memory is second.memory


def test_many_who_ask_for_a_memory_at_once_share_one_read(tmp_path, monkeypatch):
    """One of them reads the memory and mends its index, the others wait for it."""
    ModelStore(tmp_path).save_memory(KEY, memory_of(1, n=20_000), {})
    (tmp_path / "Master1" / "Pattern" / "index.faiss").unlink()
    read, reads, found = memory_cache.read_memory, [], []
    store, start = ModelStore(tmp_path), threading.Barrier(16)

    def counted(file, name):
        reads.append(name)
        return read(file, name)

    def ask():
        start.wait()
        found.append(store.load(KEY).memory)

    monkeypatch.setattr(memory_cache, "read_memory", counted)
    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == ["memory.npz"]
    assert len(found) == 16
    assert len(set(map(id, found))) == 1
    assert (tmp_path / "Master1" / "Pattern" / "index.faiss").exists(), "and it mends the index"
    assert len(store._cache._readers) == 0, "and nothing is left of their waiting"


def test_a_memory_that_cannot_be_read_keeps_nobody_waiting(fitted_folder, tmp_path):
    folder, memory = fitted_folder
    content = (folder / "memory.npz").read_bytes()
    (folder / "memory.npz").write_bytes(content[:100])
    store = ModelStore(tmp_path)
    for _ in range(2):
        with pytest.raises(StorageError):
            store.load(KEY)
    (folder / "memory.npz").write_bytes(content)
    assert same_memory(store.load(KEY), memory)


def test_the_memories_that_were_used_last_are_kept_up_to_a_limit_of_bytes(tmp_path, monkeypatch):
    memory = memory_of(1)
    monkeypatch.setattr(memory_cache, "_CACHE_BYTES", 3 * 2 * memory.embeddings.nbytes)  # the index holds them again
    store, keys = ModelStore(tmp_path), [RoiKey("Master1", f"{number}") for number in range(5)]
    for key in keys:
        store.save_memory(key, memory, {})

    def held(key):
        fitted = store.load(key)
        assert fitted is not None
        return weakref.ref(fitted.memory)

    memories = [held(key) for key in keys[:3]]
    held(keys[0])  # so that the second is the one that was not used for longest
    memories += [held(key) for key in keys[3:]]
    gc.collect()
    assert [memory() is not None for memory in memories] == [True, False, False, True, True]


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


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_model_of_an_older_backend_is_looked_for_once_at_a_load(tmp_path, monkeypatch, calibrated):
    line, walk, walked = RoiKey("Master1", "Pattern", "line 1"), candidates.older_of_recipe, []
    name = older_files(tmp_path, "L2", KEY)[0].name
    write_memory(tmp_path / "recipes" / "line 1" / "Pattern" / name, unit_rows(12, 16, 8), (3, 4))
    if calibrated:
        store_threshold(tmp_path, 0.6, line)
    monkeypatch.setattr(candidates, "older_of_recipe", lambda *ids: walked.append(ids) or walk(*ids))
    assert load(tmp_path, line).calibration_state == ("applied" if calibrated else "none")
    assert len(walked) == 1


def test_calibration_of_an_older_model_is_not_taken_for_the_defaults(tmp_path):
    """A recipe's calibration of an older backend's model stays applied when the default recipe is fitted."""
    store = ModelStore(tmp_path)
    line = RoiKey("Master1", "Pattern", "line 1")
    memory_file = older_files(tmp_path, "L2", KEY)[0]
    write_memory(tmp_path / "recipes" / "line 1" / "Pattern" / memory_file.name, unit_rows(12, 16, 8), (3, 4))
    assert store.load(line).layout == "L3"
    store_threshold(tmp_path, 0.6, line)
    store.save_memory(KEY, memory_of(1), {})
    assert store.load(line).calibration_state == "applied"
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


def test_a_model_that_was_deleted_is_gone_at_the_next_load(fitted_folder, tmp_path):
    store = ModelStore(tmp_path)
    assert store.load(KEY) is not None
    shutil.rmtree(fitted_folder[0])
    assert store.load(KEY) is None


# --- older layouts


OLD_KEYS = [KEY, RoiKey("A B", "ro.i"), RoiKey("Línea-3", "tapa_ñ")]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", OLD_KEYS, ids=str)
def test_a_model_of_an_older_backend_is_read_and_never_written(tmp_path, layout, key):
    embeddings = unit_rows(12, 1152, 8)
    memory_file, index_file, calibration_file = older_files(tmp_path, layout, key)
    write_memory(memory_file, embeddings, (3, 4), metadata=np.array('{"anything": "else"}'))
    index_file.write_bytes(b"stale against its npz")
    calibration_file.write_text(
        '{"threshold": 20.0, "p99_ok": 12.0, "p5_ng": 28.0, "mm_per_px": 0.2, '
        '"area_mm2_thr": 1.0, "score_percentile": 99}',
        encoding="utf-8",
    )
    before = snapshot(tmp_path)
    fitted = load(tmp_path, key)
    assert fitted.layout == layout
    assert np.array_equal(fitted.memory.embeddings, embeddings)
    assert fitted.memory.token_hw == (3, 4)
    assert fitted.calibration == Calibration(20.0, 99, 1.0, mm_per_px=0.2, p99_ok=12.0, p5_ng=28.0)
    assert fitted.calibration_state == "applied"
    assert snapshot(tmp_path) == before

    # A new calibration and then a new fit go to the current place, and win.
    store = ModelStore(tmp_path)
    store.save_calibration(key, calibration_of(fitted, 0.7))
    recalibrated = load(tmp_path, key)
    assert recalibrated.layout == layout
    assert recalibrated.calibration is not None
    assert recalibrated.calibration.threshold == 0.7
    store.save_memory(key, memory_of(4), {})
    refitted = load(tmp_path, key)
    assert refitted.layout == "current"
    assert same_memory(refitted, memory_of(4))
    assert (refitted.calibration, refitted.calibration_state) == (None, "stale")
    if layout != "L0":
        after = snapshot(tmp_path)
        assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_calibration_of_an_older_memory_is_never_applied_to_a_new_one(tmp_path, layout):
    memory_file, _, calibration_file = older_files(tmp_path, layout, KEY)
    write_memory(memory_file, unit_rows(12, 16, 8), (3, 4))
    calibration_file.write_text('{"threshold": 0.5}', encoding="utf-8")
    assert load(tmp_path).calibration_state == "applied"
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert load(tmp_path).calibration is None


def test_the_newest_layout_wins(tmp_path):
    for dim, layout in enumerate(LAYOUTS, start=3):
        write_memory(older_files(tmp_path, layout, KEY)[0], unit_rows(4, dim, 0), (2, 2))
    before = snapshot(tmp_path)
    found = []
    for layout in ["L2", "L1", "L0"]:
        fitted = load(tmp_path)
        found.append((fitted.layout, fitted.memory.embeddings.shape[1]))
        older_files(tmp_path, layout, KEY)[0].rename(tmp_path / f"{layout}.away")
    assert found == [("L2", 5), ("L1", 4), ("L0", 3)]
    assert ModelStore(tmp_path).load(KEY) is None
    for layout in LAYOUTS:
        (tmp_path / f"{layout}.away").rename(older_files(tmp_path, layout, KEY)[0])
    assert snapshot(tmp_path) == before
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    assert load(tmp_path).layout == "current"


@pytest.mark.parametrize(
    ("text", "calibration"),
    [
        ('{"threshold": 0.5}', Calibration(0.5)),
        ('{"threshold": 1, "p99_ok": NaN, "p5_ng": null, "mm_per_px": Infinity}', Calibration(1)),
        ('{"threshold": 0.5, "score_percentile": 150, "area_mm2_thr": -1}', Calibration(0.5)),
        ('{"threshold": 0.5, "score_percentile": 0, "area_mm2_thr": 0}', Calibration(0.5, area_mm2_thr=0)),
        (
            '{"threshold": 0.5, "score_percentile": 95, "area_mm2_thr": 2.5, "ok_mean": 0.3, "ng_mean": NaN, '
            '"request_id": "x", "recipe_id": "default", "n_ok": 12}',
            Calibration(0.5, 95, 2.5, ok_mean=0.3, n_ok=12),
        ),
        ('{"threshold": NaN, "p99_ok": 0.4}', None),
        ('{"p99_ok": 0.4}', None),
        ('{"threshold": "0.5"}', None),
        ('{"threshold": true}', None),
        ("{}", None),
        ('{"threshold": 1' + "0" * 400 + "}", None),
    ],
    ids=[
        "threshold only",
        "NaN",
        "out of range",
        "at the edge of the range",
        "later keys",
        "NaN threshold",
        "no threshold",
        "text",
        "bool",
        "empty",
        "beyond floats",
    ],
)
def test_calibrations_of_older_backends_are_read_without_what_they_lack(tmp_path, text, calibration):
    memory_file, _, calibration_file = older_files(tmp_path, "L0", KEY)
    write_memory(memory_file, unit_rows(4, 8, 0), (2, 2))
    calibration_file.write_text(text, encoding="utf-8")
    fitted = load(tmp_path)
    assert fitted.calibration == calibration
    assert fitted.calibration_state == ("none" if calibration is None else "applied")


# --- ids


@pytest.mark.parametrize("identifier", ["", "x" * 241, "x" * 300, "日" * 27, "/" * 81])
def test_ids_that_no_folder_can_carry_are_invalid_requests(identifier, tmp_path):
    with pytest.raises(InvalidRequest, match=r"ids must not be empty.*240"):
        folder_name(identifier)
    for key in (RoiKey(identifier, "roi"), RoiKey("role", identifier)):
        with pytest.raises(InvalidRequest):
            ModelStore(tmp_path).load(key)
        with pytest.raises(InvalidRequest):
            ModelStore(tmp_path).save_memory(key, memory_of(1), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key",
    [RoiKey("a" * 128, "b" * 128), RoiKey("ñ" * 40, "x" * 128), RoiKey("a" * 240, "b" * 240)],
    ids=lambda key: key.role_id[:3],
)
def test_long_ids_are_served_though_older_layouts_could_not_hold_them(key, tmp_path):
    """A folder can carry ids of these lengths."""
    store = ModelStore(tmp_path)
    assert store.load(key) is None, "not fitted, which is no storage error"
    store.save_memory(key, memory_of(1), {})
    assert same_memory(load(tmp_path, key), memory_of(1))


@pytest.mark.parametrize("identifier", AWKWARD, ids=ascii)
def test_nothing_is_read_or_written_outside_the_models_folder(identifier, tmp_path):
    root = tmp_path / "deep" / "models"
    outside = tmp_path / "memory.npz"
    write_memory(outside, unit_rows(4, 8, 0), (2, 2))
    write_memory(tmp_path / "deep" / "memory.npz", unit_rows(4, 8, 0), (2, 2))
    before = snapshot(tmp_path)
    store = ModelStore(root)
    for key in (RoiKey(identifier, identifier), RoiKey(identifier, "x"), RoiKey("x", identifier)):
        assert store.load(key) is None
        store.save_memory(key, memory_of(1), {})
        store.save_calibration(key, calibration_of(store.load(key)))
        fitted = store.load(key)
        assert fitted is not None
        assert same_memory(fitted, memory_of(1))
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / name for name in before}
    assert written
    assert all(path.resolve().is_relative_to(root.resolve()) for path in written)
    assert {name: state for name, state in snapshot(tmp_path).items() if name in before} == before


# --- what the service makes of a stored memory


def infer(service, images):
    content = encoded(images[0])
    return infer_image(service, KEY, NamedImage("part.png", lambda: content), Scoring(0.2))


def test_a_roi_without_a_memory_is_memory_not_found(service, images):
    with pytest.raises(MemoryNotFound):
        infer(service, images)


@pytest.mark.parametrize(
    ("dim", "token_hw"),
    [(1152, (32, 32)), (384, (37, 37)), (384, (32, 31))],
    ids=["dimension", "grid", "one column less"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_older_memory_of_another_dimension_or_grid_is_refused_with_refit(
    service, images, tmp_path, dim, token_hw, layout
):
    memory_file, _, calibration_file = older_files(tmp_path, layout, KEY)
    write_memory(memory_file, unit_rows(10, dim, 0), token_hw)
    calibration_file.write_text('{"threshold": 0.5}', encoding="utf-8")
    with pytest.raises(IncompatibleMemory, match=r"(?i)refit.*run /fit_ok again"):
        infer(service, images)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", "vit_base_patch14_dinov2.lvd142m"),
        ("weights_sha256", "0" * 64),
        ("input_size", 518),
        ("preprocessing", "letterbox"),
        ("precision", "bfloat16"),
    ],
)
def test_memory_of_another_extractor_is_refused_with_what_differs(service, images, part, value):
    """The error names the part of the extractor and asks for a refit."""
    identity = service.features.identity.as_dict()
    assert identity[part] != value
    memory = PatchCoreMemory.build(unit_rows(10, 384, 0), (32, 32), 1.0)
    service.store.save_memory(KEY, memory, {"extractor": {**identity, part: value}})
    with pytest.raises(IncompatibleMemory, match=rf"(?i)refit.*{part}.*{value}"):
        infer(service, images)
    service.store.save_memory(KEY, memory, {"extractor": identity})
    assert 0 < infer(service, images).inference.score <= 2


def test_fit_of_default_warns_of_recipes_with_stale_calibrations(service, images):
    """A fit of the default recipe logs which recipes have calibrations of its model that are stale now."""
    line = RoiKey("Master1", "Pattern", "line 1")
    for numbers in ((0, 1), (2, 3)):
        content = [encoded(images[number]) for number in numbers]
        named = [NamedImage(f"{i}.png", lambda i=i, content=content: content[i]) for i in range(2)]
        with capture_logs() as logged:
            fit(service, KEY, named, mm_per_px=0.2)
        if service.store.load(line).calibration is None:
            service.store.save_calibration(line, calibration_of(service.store.load(line)))
    assert [line["recipe_id"] for line in logged if line["event"] == "calibration.stale"] == ["line 1"]


def test_first_fit_of_a_recipe_that_fails_once_stored_locks_the_recipe(service, images, monkeypatch):
    """The disk fails after the model was stored, so the recipe keeps the scale of that model."""
    line, sync, content = RoiKey("Master1", "Pattern", "line 1"), files.sync_folder, encoded(images[0])

    def fails(folder):
        if (folder / "memory.npz").exists():
            raise OSError(errno.EIO, "Input/output error")
        sync(folder)

    monkeypatch.setattr(files, "sync_folder", fails)
    with pytest.raises(StorageError, match="Input/output error"):
        fit(service, line, [NamedImage("a.png", lambda: content)], mm_per_px=0.2)
    assert service.store.load(line) is not None
    assert service.recipes.mm_per_px("line 1") == 0.2


def test_older_memory_of_the_running_dimension_and_grid_is_served(service, images, tmp_path):
    embeddings, token_hw = service.features.extract(images[0])
    write_memory(older_files(tmp_path, "L1", KEY)[0], l2_normalize(embeddings), token_hw)
    assert infer(service, images).inference.score == pytest.approx(0, abs=1e-5)


def test_what_judges_a_roi_is_told_without_its_embeddings(tmp_path, monkeypatch):
    line, unfitted = RoiKey("Master1", "Pattern", "line 1"), RoiKey("Master1", "Other")
    store = ModelStore(tmp_path)

    def as_loaded(key):
        found = load(tmp_path, key)
        return found.memory_id, found.calibration, found.calibrated

    def told(key):
        with monkeypatch.context() as patch:
            patch.setattr(memory_cache, "read_memory", None)
            return store.judged_by(key)

    store.save_memory(KEY, memory_of(1), {})
    assert told(KEY) == as_loaded(KEY)
    assert told(unfitted) is None
    store.save_calibration(KEY, calibration_of(load(tmp_path), 0.5))
    assert told(line) == as_loaded(line) == told(KEY)
    assert told(KEY).calibrated == KEY
    store.save_calibration(line, calibration_of(load(tmp_path), 0.7))
    assert told(line) == as_loaded(line)
    assert (told(line).calibrated, told(line).calibration.threshold) == (line.owner, 0.7)
    store.save_memory(KEY, memory_of(2), {})
    assert told(line) == as_loaded(line)
    assert told(line).calibration is None
