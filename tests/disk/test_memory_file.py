"""The file of a memory bank: what it holds, and what of it is refused."""

import io
import json
import time
import zipfile
from pathlib import Path

import faiss
import numpy as np
import pytest

from backend.common.errors import IncompatibleMemory, StorageError
from backend.storage import ModelStore
from tests.factories import KEY, load, memory_of, same_memory, unit_rows


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


def test_the_same_fit_twice_writes_the_same_bytes(tmp_path, monkeypatch):
    ModelStore(tmp_path / "a").save_memory(KEY, memory_of(1), {"n_images": 2, "coreset_rate": 0.5})
    later = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    ModelStore(tmp_path / "b").save_memory(KEY, memory_of(1), {"coreset_rate": 0.5, "n_images": 2})
    first, second = (tmp_path / name / "Master1" / "Pattern" / "memory.npz" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


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


@pytest.mark.slow
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
