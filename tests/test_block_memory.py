"""Memory banks of several blocks, against plain loops."""

import numpy as np
import pytest

from backend.block_memory import PSEUDO_LANDINGS, BlockMemory, Landings, block_parts, build_banks
from backend.patchcore import PatchCoreMemory, SklearnIndex, l2_normalize

GRID, DIM, N_BLOCKS = (3, 4), 6, 3


def tokens(n, seed):
    return np.random.default_rng(seed).normal(size=(n, N_BLOCKS * DIM)).astype(np.float32)


@pytest.fixture
def memory():
    rng = np.random.default_rng(5)
    banks = build_banks(tokens(48, 0), N_BLOCKS, GRID, 0.4)
    landings = []
    for bank in banks:
        count = rng.integers(0, 50, len(bank.embeddings))
        landings.append(Landings(count, count * rng.uniform(0.2, 0.9, len(count))))
    return BlockMemory(banks, tuple(landings))


def corrected(memory, queries):
    """As the formula says, one query and one block after the other."""
    every = []
    for query in queries:
        total = 0.0
        for part, bank, landings in zip(np.split(query, N_BLOCKS), memory.banks, memory.landings, strict=True):
            distances = np.linalg.norm(bank.embeddings - part / np.linalg.norm(part), axis=1)
            nearest = int(distances.argmin())
            mean = landings.total.sum() / landings.count.sum()
            landed = landings.count[nearest]
            radius = (landings.total[nearest] + PSEUDO_LANDINGS * mean) / (landed + PSEUDO_LANDINGS)
            total += distances[nearest] - (radius - mean)
        every.append(total / N_BLOCKS)
    return every


def test_distances_are_the_mean_of_those_of_the_blocks_less_excess_radii(memory):
    queries = tokens(20, 1)
    np.testing.assert_allclose(memory.distances(queries), corrected(memory, queries), atol=1e-6)


def test_faiss_and_scikit_learn_give_the_same_distances(memory, monkeypatch):
    queries = tokens(700, 2)
    by_faiss = memory.distances(queries)
    monkeypatch.setattr("backend.patchcore.build_index", SklearnIndex)
    banks = tuple(PatchCoreMemory(bank.embeddings, bank.token_hw, bank.patches) for bank in memory.banks)
    assert all(isinstance(bank.index, SklearnIndex) for bank in banks)
    np.testing.assert_array_equal(BlockMemory(banks, memory.landings).distances(queries), by_faiss)


def test_a_patch_on_which_nothing_landed_has_the_mean_radius():
    landings = Landings(np.array([0, 10, 10]), np.array([0.0, 4.0, 6.0]))
    excess = landings.excess_radii()
    assert excess[0] == 0
    assert excess[1] == pytest.approx(-1 / (10 + PSEUDO_LANDINGS))
    assert excess[2] == -excess[1]
    assert (Landings.none(3).excess_radii() == 0).all()


def test_landings_are_counted_added_and_taken_away():
    rows, distances = np.array([2, 0, 2, 1]), np.array([0.5, 0.25, 0.75, 1.0], np.float32)
    every, first = Landings.of(rows, distances, 3), Landings.of(rows[:2], distances[:2], 3)
    assert (every.count.tolist(), every.total.tolist()) == ([1, 1, 2], [0.25, 1.0, 1.25])
    left = every.without(first)
    assert (left.count.tolist(), left.total.tolist()) == ([0, 1, 1], [0.0, 1.0, 0.75])
    longer = Landings.of(np.array([3]), np.array([0.5], np.float32), 4)
    assert every.plus(longer).count.tolist() == [1, 1, 2, 1]


def test_the_bank_of_a_block_is_that_of_its_embeddings_alone():
    embeddings = tokens(48, 3)
    banks = build_banks(embeddings.copy(), N_BLOCKS, GRID, 0.25)
    for part, bank in zip(block_parts(embeddings, N_BLOCKS), banks, strict=True):
        alone = PatchCoreMemory.build(np.ascontiguousarray(part), GRID, 0.25)
        np.testing.assert_array_equal(bank.embeddings, alone.embeddings)
        np.testing.assert_array_equal(bank.patches, alone.patches)


def test_the_nearest_embedding_is_told_with_its_distance():
    bank = PatchCoreMemory.build(l2_normalize(tokens(600, 4)[:, :DIM]), GRID, 1)
    queries = tokens(50, 6)[:, :DIM]
    distances, rows = bank.nearest(queries)
    every = np.linalg.norm(l2_normalize(queries)[:, None] - bank.embeddings[None], axis=2)
    np.testing.assert_array_equal(rows, every.argmin(axis=1))
    np.testing.assert_array_equal(distances, bank.distances(queries))
