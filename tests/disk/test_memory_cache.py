"""Memory banks are read once for all who ask, kept up to a limit, and their index is mended."""

import errno
import gc
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk import memory_cache
from backend.storage import ModelStore
from tests.factories import KEY, index_bytes, load, memory_of, same_memory, unit_rows


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


@pytest.mark.slow
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
