"""Distances to the memory bank: the true nearest neighbour's, whatever searches and however close the others are."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from backend import patchcore
from backend.patchcore import FaissIndex, PatchCoreMemory, SklearnIndex, l2_normalize


@pytest.fixture(params=[FaissIndex, SklearnIndex])
def memory_of(request, monkeypatch):
    """Makes a memory of every one of the given embeddings, searched by FAISS or by scikit-learn."""
    monkeypatch.setattr(patchcore, "build_index", request.param)

    def build(embeddings):
        memory = PatchCoreMemory(embeddings, (32, 32))
        assert isinstance(memory.index, request.param)
        return memory

    return build


def brute_force(queries, bank):
    """Nearest-neighbour distances in float64, from differences and not from products."""
    bank, queries = bank.astype(np.float64), l2_normalize(queries).astype(np.float64)
    return np.array([np.sqrt(((bank - query) ** 2).sum(axis=1).min()) for query in queries])


def nudged(rows, by, seed=0):
    """Unit vectors at a distance of some `by` from the given ones."""
    noise = np.random.default_rng(seed).normal(size=rows.shape).astype(np.float32)
    return l2_normalize(rows + np.float32(by) * l2_normalize(noise))


@pytest.mark.slow
@pytest.mark.parametrize("n_queries", [1, 2, 511, 513, 1369])
@pytest.mark.parametrize("n_bank", [1, 3, 700, 4000])
def test_distances_are_those_of_brute_force_for_any_bank_and_queries(memory_of, embeddings, n_queries, n_bank):
    bank = l2_normalize(embeddings[:n_bank])
    queries = embeddings[-n_queries:]
    distances = memory_of(bank).distances(queries)
    assert distances.dtype == np.float32
    assert distances.shape == (n_queries,)
    some = slice(None, None, 1 + n_queries // 200)
    assert np.abs(distances[some] - brute_force(queries[some], bank)).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("crowd", [3, 4, 5, 40, 300])
def test_true_neighbour_is_found_in_a_crowd_of_near_equal_embeddings(memory_of, embeddings, crowd):
    """The crowd is so dense that float32 products cannot tell its members apart."""
    wanted = l2_normalize(embeddings[::600])
    crowds = [nudged(np.repeat(row[None], crowd, axis=0), 1.5e-4, seed) for seed, row in enumerate(wanted)]
    bank = np.concatenate([*crowds, nudged(wanted, 1e-4), l2_normalize(embeddings[300:900])])
    # FAISS multiplies matrices from some number of queries on; few are compared by their differences.
    distances = memory_of(bank).distances(np.repeat(wanted, 60, axis=0))[::60]
    expected = brute_force(wanted, bank)
    assert expected.max() < 1.1e-4
    assert np.abs(distances - expected).max() < 1e-6


@pytest.mark.parametrize("copies", [2, 50])
def test_an_embedding_that_is_in_the_bank_has_distance_exactly_0(memory_of, embeddings, copies):
    rows = l2_normalize(embeddings[:100])
    bank = np.concatenate([nudged(rows, 3e-4), np.repeat(rows, copies, axis=0)])
    assert not memory_of(bank).distances(embeddings[:100]).any()


def test_a_bank_of_nothing_but_copies_is_searched_to_its_end(memory_of, embeddings):
    bank = np.repeat(l2_normalize(embeddings[:1]), 600, axis=0)
    distances = memory_of(bank).distances(embeddings[1:20])
    assert np.abs(distances - brute_force(embeddings[1:20], bank)).max() < 1e-6


def test_lengths_that_are_not_quite_1_count(memory_of, embeddings):
    # As in the memory of another backend; storage accepts lengths within 0.001.
    bank = l2_normalize(embeddings[:2000])
    bank *= np.random.default_rng(1).uniform(0.9991, 1.0009, (2000, 1)).astype(np.float32)
    queries = embeddings[2000:2100]
    assert np.abs(memory_of(bank).distances(queries) - brute_force(queries, bank)).max() < 1e-6


def test_many_threads_search_one_memory_at_once(memory_of, embeddings):
    memory = memory_of(l2_normalize(embeddings[:1000]))
    parts = [embeddings[start : start + 1024] for start in range(0, 6144, 1024)]
    alone = [memory.distances(part).tobytes() for part in parts]
    with ThreadPoolExecutor(6) as threads:
        assert [found.tobytes() for found in threads.map(memory.distances, parts)] == alone
