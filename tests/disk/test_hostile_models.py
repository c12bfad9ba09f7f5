"""Stored files that somebody damaged or made: refused with a clear error, no code run, memory bounded."""

import contextlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.calib import calibrate
from backend.common.errors import DamagedMemory, IncompatibleMemory, StorageError
from backend.common.roi_key import RoiKey
from backend.disk import memory_file
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.recipes import RecipeStore
from backend.disk.score_cache import ScoreCache
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.storage import ModelStore
from harness.hostile_files import SEED

PIXELS = "0123456789abcdef" * 4  # the hash of an image
KEY = RoiKey("Master1", "Pattern")
OTHER = RoiKey("Master1", "Other")
HEAVY = 1 << 30


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def memory_of(seed: int) -> PatchCoreMemory:
    rows = np.random.default_rng(seed).normal(size=(20, 16)).astype(np.float32)
    return PatchCoreMemory.build(l2_normalize(rows), (4, 5), 1.0)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The folder of a fitted and calibrated ROI."""
    store = ModelStore(tmp_path)
    for seed, key in enumerate((KEY, OTHER)):
        store.save_memory(key, memory_of(seed), {"coreset_rate": 1.0})
        calibration = calibrate(
            [0.4], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=store.memory_id(key)
        )
        store.save_calibration(key, calibration)
    return tmp_path / "Master1" / "Pattern"


def npz(**changed: object) -> bytes:
    """A memory.npz with other arrays in the place of its own; bytes are taken as they are."""
    arrays: dict[str, object] = {
        "emb": memory_of(0).embeddings,
        "token_h": np.int64(4),
        "token_w": np.int64(5),
        "version": np.int64(1),
        "metadata": np.array(json.dumps({"role_id": "Master1", "roi_id": "Pattern"})),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {**arrays, **changed}.items():
            content = io.BytesIO()
            if isinstance(array, bytes):
                content.write(array)
            else:
                np.save(content, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", content.getvalue())
    return buffer.getvalue()


def npy_header(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header


UNIT = memory_of(0).embeddings
NAN = UNIT.copy()
NAN[3, 4] = np.nan

HOSTILE_MEMORIES: dict[str, Callable[[Path], bytes]] = {
    "nothing": lambda _: b"",
    "no archive": lambda _: b"hello" * 100,
    "an array without an archive": lambda _: npy_header("(20, 16)") + UNIT.tobytes(),
    "a pickle": lambda folder: pickle.dumps(Bomb(folder)),
    "a pickle in the archive": lambda folder: npz(emb=pickle.dumps(Bomb(folder))),
    "embeddings that are objects": lambda folder: npz(emb=np.array([[Bomb(folder)]], dtype=object)),
    "metadata that are objects": lambda folder: npz(metadata=np.array(Bomb(folder), dtype=object)),
    "10¹² rows by header": lambda _: npz(emb=npy_header("(1000000000000, 384)")),
    "rows below zero": lambda _: npz(emb=npy_header("(-1, 384)")),
    "a shape of 10⁶ dimensions": lambda _: npz(emb=npy_header("(1,)" + " * 1000000")),
    "a header that is code": lambda _: npz(emb=npy_header("().__class__.__bases__")),
    "a header in brackets": lambda _: npz(emb=npy_header("(" * 5000 + ")" * 5000)),
    "NaN": lambda _: npz(emb=NAN),
    "infinity": lambda _: npz(emb=np.full((20, 16), np.inf, np.float32)),
    "zeros": lambda _: npz(emb=np.zeros((20, 16), np.float32)),
    "float64": lambda _: npz(emb=UNIT.astype(np.float64)),
    "numbers the other way round": lambda _: npz(emb=UNIT.astype(">f4")),
    "texts": lambda _: npz(emb=np.array([["a"]])),
    "records": lambda _: npz(emb=np.zeros(4, [("a", "f4"), ("b", "f4")])),
    "one dimension": lambda _: npz(emb=UNIT[0]),
    "three dimensions": lambda _: npz(emb=UNIT[None]),
    "no row": lambda _: npz(emb=UNIT[:0]),
    "a grid of texts": lambda _: npz(token_h=np.array("four")),
    "a grid of many numbers": lambda _: npz(token_h=np.arange(9)),
    "a grid of NaN": lambda _: npz(token_w=np.float32(np.nan)),
    "a version of texts": lambda _: npz(version=np.array("x")),
    "a version of tomorrow": lambda _: npz(version=np.int64(99)),
    "metadata that are no JSON": lambda _: npz(metadata=np.array("{")),
    "metadata that are a list": lambda _: npz(metadata=np.array("[]")),
    "metadata in deep lists": lambda _: npz(metadata=np.array("[" * 100_000 + "]" * 100_000)),
    "another ROI's": lambda stored: (stored.parent / "Other" / "memory.npz").read_bytes(),
}


@pytest.mark.parametrize("what", HOSTILE_MEMORIES)
def test_a_hostile_memory_is_refused_with_a_clear_error_and_runs_nothing(stored: Path, what: str) -> None:
    marker = stored if what == "another ROI's" else stored / "made-by-a-pickle"
    (stored / "memory.npz").write_bytes(HOSTILE_MEMORIES[what](marker))
    with pytest.raises((StorageError, IncompatibleMemory), match=r"refit|update"):
        ModelStore(stored.parents[1]).load(KEY)
    assert not (stored / "made-by-a-pickle").exists()


@pytest.mark.slow
@pytest.mark.parametrize("packed", [b"\0", b"x"])
def test_an_archive_that_unpacks_to_a_gigabyte_is_refused_before_that(stored: Path, packed: bytes) -> None:
    with (
        zipfile.ZipFile(stored / "memory.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("emb.npy", "w") as part,
    ):
        for _ in range(HEAVY >> 20):
            part.write(packed * (1 << 20))
    assert (stored / "memory.npz").stat().st_size < HEAVY / 100
    tracemalloc.start()
    with pytest.raises(DamagedMemory, match="refit this ROI"):
        ModelStore(stored.parents[1]).load(KEY)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


@pytest.mark.slow
def test_what_looks_at_the_metadata_alone_unpacks_no_gigabyte_either(stored: Path) -> None:
    with (
        zipfile.ZipFile(stored / "memory.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("metadata.npy", "w") as part,
    ):
        header = {"descr": f"<U{HEAVY // 4}", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(part, header)
        for _ in range(HEAVY >> 20):
            part.write(b"a\0\0\0" * (1 << 18))
    tracemalloc.start()
    assert memory_file.written_memory_id(stored / "memory.npz") is None
    assert ModelStore(stored.parents[1]).count_stale() == 0
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_memory_beyond_what_is_free_is_refused_with_the_arithmetic(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_file, "free_memory", lambda: 4000)
    with pytest.raises(StorageError, match="does not fit into memory: it takes 0 MB, but only 0 MB are free"):
        ModelStore(stored.parents[1]).load(KEY)


def test_a_memory_of_gigabytes_of_nothing_is_refused_without_reading_them(stored: Path) -> None:
    with (stored / "memory.npz").open("wb") as file:
        file.truncate(50 * HEAVY)
    tracemalloc.start()
    with pytest.raises(DamagedMemory):
        ModelStore(stored.parents[1]).load(KEY)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_memory_cut_anywhere_is_refused(stored: Path) -> None:
    content = (stored / "memory.npz").read_bytes()
    for percent in range(100):
        (stored / "memory.npz").write_bytes(content[: len(content) * percent // 100])
        with pytest.raises(DamagedMemory):
            ModelStore(stored.parents[1]).load(KEY)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4))
def test_a_damaged_memory_loads_as_it_was_or_is_refused(stored: Path, damages: list[tuple[float, bytes]]) -> None:
    original = npz()
    content = bytearray(original)
    for place, replacement in damages:
        start = int(place * len(content))
        content[start : start + len(replacement)] = replacement
    (stored / "memory.npz").write_bytes(content)
    with contextlib.suppress(StorageError, IncompatibleMemory):
        fitted = ModelStore(stored.parents[1]).load(KEY)
        assert fitted is not None
        assert np.array_equal(fitted.memory.embeddings, memory_of(0).embeddings)


HOSTILE_INDEXES = {
    "nothing": b"",
    "its name": b"IxF2",
    "a dimension of 2³¹": b"IxF2" + b"\xff" * 100,
    "another kind": b"IwFl" + bytes(500),
    "noise": np.random.default_rng(SEED).bytes(5000),
    "a pickle": pickle.dumps([1]),
}


@pytest.mark.parametrize("what", HOSTILE_INDEXES)
def test_a_hostile_index_never_reaches_the_native_reader_and_is_made_anew(stored: Path, what: str) -> None:
    expected = (stored / "index.faiss").read_bytes()
    (stored / "index.faiss").write_bytes(HOSTILE_INDEXES[what])
    fitted = ModelStore(stored.parents[1]).load(KEY)
    assert fitted is not None
    assert fitted.memory.distances(memory_of(0).embeddings).max() == 0
    assert (stored / "index.faiss").read_bytes() == expected


def test_an_index_of_gigabytes_is_made_anew_without_reading_it(stored: Path) -> None:
    expected = (stored / "index.faiss").read_bytes()
    with (stored / "index.faiss").open("wb") as file:
        file.truncate(50 * HEAVY)
    tracemalloc.start()
    assert ModelStore(stored.parents[1]).load(KEY) is not None
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    assert (stored / "index.faiss").read_bytes() == expected


def test_another_rois_index_is_made_anew(stored: Path) -> None:
    expected = (stored / "index.faiss").read_bytes()
    (stored / "index.faiss").write_bytes((stored.parent / "Other" / "index.faiss").read_bytes())
    assert ModelStore(stored.parents[1]).load(KEY) is not None
    assert (stored / "index.faiss").read_bytes() == expected


HOSTILE_CALIBRATIONS = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "not UTF-8": b"\xff\xfe{}",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "an integer of 10,000 digits": b'{"threshold":' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("what", HOSTILE_CALIBRATIONS)
def test_a_hostile_calibration_is_refused(stored: Path, what: str) -> None:
    (stored / "calib.json").write_bytes(HOSTILE_CALIBRATIONS[what])
    with pytest.raises(StorageError, match="calibrate this ROI again"):
        ModelStore(stored.parents[1]).load(KEY)


@pytest.mark.parametrize("threshold", ["NaN", "Infinity", "1e999", "true", "null", '"0.5"', "[0.5]", "1" + "0" * 400])
def test_a_calibration_whose_threshold_is_no_number_is_none(stored: Path, threshold: str) -> None:
    (stored / "calib.json").write_text(f'{{"threshold": {threshold}}}')
    fitted = ModelStore(stored.parents[1]).load(KEY)
    assert fitted is not None
    assert fitted.calibration is None


def test_another_rois_calibration_is_not_applied(stored: Path) -> None:
    (stored / "calib.json").write_bytes((stored.parent / "Other" / "calib.json").read_bytes())
    fitted = ModelStore(stored.parents[1]).load(KEY)
    assert fitted is not None
    assert (fitted.calibration, fitted.calibration_state) == (None, "stale")


def blown_up(path: Path) -> None:
    """A JSON object of a gigabyte, most of it a hole in the file that reads as zeros."""
    with path.open("r+b") as file:
        file.truncate(HEAVY)


def test_small_files_that_are_gigabytes_are_refused_without_reading_them(stored: Path, tmp_path: Path) -> None:
    recipes, datasets = RecipeStore(tmp_path), DatasetStore(tmp_path)
    recipes.adopt("line 1", 0.2, "2026")
    datasets.add(KEY, "ok", [NewSample(lambda: b"\x89PNG", ".png", {"filename": "a.png"})])
    (sample,) = datasets.samples(KEY, "ok")
    scores = ScoreCache(sample.path.parent, {})
    scores.put(PIXELS, None, (0.5,))
    cache = next(sample.path.parent.glob(".scores-*"))
    for path in (
        stored / "calib.json",
        tmp_path / "@recipes" / "line 1" / "recipe.json",
        sample.path.with_name(f"{sample.name}.json"),
        cache,
    ):
        blown_up(path)
    tracemalloc.start()
    for refused in (lambda: ModelStore(tmp_path).load(KEY), lambda: recipes.mm_per_px("line 1"), sample.metadata):
        with pytest.raises(StorageError, match="damaged"):
            refused()
    assert ScoreCache(sample.path.parent, {}).get(PIXELS, None) is None
    assert tracemalloc.get_traced_memory()[1] < 160 << 20
    tracemalloc.stop()


def test_scores_that_are_no_numbers_are_made_again(tmp_path: Path) -> None:
    ScoreCache(tmp_path, {}).put(PIXELS, None, (0.5,))
    file = next(tmp_path.glob(".scores-*"))
    name = json.loads(file.read_bytes())[0]
    for line in (f'["{name}", NaN]', f'["{name}", Infinity]', f'["{name}", "0.5"]', "[" * 100_000, "\xff", "{}"):
        file.write_text(line, encoding="latin-1")
        assert ScoreCache(tmp_path, {}).get(PIXELS, None) is None
    file.write_text(f'["{name}", 0.25]')
    assert ScoreCache(tmp_path, {}).get(PIXELS, None) == (0.25,)
