"""Greedy k-center over shards: the picks of one process, whatever lies where and whichever shard is lost."""

import numpy as np
import pytest

from backend import patchcore
from backend.bank import k_center_shards
from backend.bank.k_center_shards import Lacking, LocalShards, Offer, Shard, select
from backend.patchcore import k_center_greedy, l2_normalize


@pytest.fixture(params=["as shipped", "tiny"])
def pools(request, monkeypatch):
    """Pools and offers as shipped, and so small that a few points go through every branch."""
    if request.param == "tiny":
        for module, name, size in (
            (patchcore, "_BLOCK_ROWS", 50),
            (patchcore, "_MIN_POOL", 9),
            (patchcore, "_BLOCK_PICKS", 4),
            (k_center_shards, "_FEWEST_KEPT", 4),
            (k_center_shards, "_MOST_OFFERED", 3),
        ):
            assert size < getattr(module, name)
            monkeypatch.setattr(module, name, size)


def cloud(seed, most=1500):
    """Points of a few clusters, float32 [n, D], L2-normalised, and where each of them lies."""
    random = np.random.default_rng(seed)
    n, dim = int(random.integers(20, most)), int(random.integers(3, 40))
    centres = random.normal(size=(int(random.integers(1, 20)), dim))
    spread = random.choice([0.01, 0.3, 3.0])
    points = centres[random.integers(0, len(centres), n)] + spread * random.normal(size=(n, dim))
    return l2_normalize(points.astype(np.float32)), random.integers(0, int(random.integers(1, 6)), n)


def shards_of(embeddings, where):
    rows = [np.flatnonzero(where == number) for number in np.unique(where)]
    return [Shard(embeddings[own], own) for own in rows]


def radius_after(embeddings, picks):
    """The greatest squared distance to the nearest pick, in float64."""
    exact = embeddings.astype(np.float64)
    return (2 - 2 * (exact @ exact[picks].T).max(axis=1)).max()


@pytest.mark.parametrize("seed", range(12))
def test_shards_pick_what_one_process_picks(seed, pools):
    embeddings, where = cloud(seed)
    n_select = max(1, len(embeddings) // 10)
    expected = k_center_greedy(embeddings, n_select)
    picked = select(LocalShards(shards_of(embeddings, where)), n_select)
    assert np.array_equal(picked.embeddings, embeddings[picked.rows])
    assert len(set(picked.rows.tolist())) == n_select
    if set(picked.rows.tolist()) != set(expected.tolist()):  # two points were as far, within float error
        assert radius_after(embeddings, picked.rows) == pytest.approx(radius_after(embeddings, expected), abs=2e-6)


@pytest.mark.parametrize("seed", range(6))
def test_of_equally_far_points_the_first_is_picked_in_any_shard(seed, pools):
    # Corners of a cube with their copies: every product is a multiple of 1/4, exact in float32 in any order.
    random = np.random.default_rng(seed)
    corners = (random.integers(0, 2, size=(int(random.integers(10, 300)), 4)) - 0.5).astype(np.float32)
    where = random.integers(0, 4, len(corners))
    picked = select(LocalShards(shards_of(corners, where)), len(corners))
    expected = [picked.rows[0]]
    squared = np.full(len(corners), np.inf)
    for _ in corners[1:]:
        squared = np.minimum(squared, ((corners - corners[expected[-1]]) ** 2).sum(axis=1))
        squared[expected[-1]] = -1
        expected.append(np.argmax(squared))
    assert picked.rows.tolist() == expected


class _Mortal(LocalShards):
    """Shards of which one forgets all but its embeddings, before some rounds."""

    def __init__(self, embeddings, where, dies_before):
        self._fresh = lambda: shards_of(embeddings, where)
        super().__init__(self._fresh())
        self.dies_before = dies_before
        self.n_rounds = self.n_lacking = 0

    def offers(self, first, picks, of):
        self.n_rounds += 1
        if self.n_rounds in self.dies_before:
            number = self.n_rounds % len(self.shards)
            self.shards[number] = self._fresh()[number]
        answers = super().offers(first, picks, of)
        self.n_lacking += sum(isinstance(answer, Lacking) for answer in answers)
        return answers


@pytest.mark.parametrize("seed", range(3))
def test_shard_that_is_lost_changes_no_pick(seed, monkeypatch):
    monkeypatch.setattr(k_center_shards, "_MOST_OFFERED", 8)
    embeddings, _ = cloud(seed, most=1200)
    where = np.arange(len(embeddings)) % 3
    n_select = len(embeddings) // 8
    undisturbed = select(LocalShards(shards_of(embeddings, where)), n_select)
    mortal = _Mortal(embeddings, where, dies_before={2, 3, 5, 8})
    picked = select(mortal, n_select)
    assert mortal.n_rounds > 8
    assert mortal.n_lacking >= 3, "each was told what it had missed"
    assert set(picked.rows.tolist()) == set(undisturbed.rows.tolist())


@pytest.mark.slow
def test_shards_of_real_images_pick_what_one_process_picks(embeddings):
    normalised = l2_normalize(embeddings)
    where = np.arange(len(normalised)) // 1024 % 4
    steps = []
    picked = select(LocalShards(shards_of(normalised, where)), 300, lambda done, total: steps.append((done, total)))
    assert set(picked.rows.tolist()) == set(k_center_greedy(normalised, 300).tolist())
    assert steps == sorted(steps)
    assert steps[-1] == (300, 300)


def test_shard_offers_its_farthest_points_with_exact_distances():
    embeddings, _ = cloud(4)
    shard = Shard(embeddings, np.arange(len(embeddings)))
    first = k_center_shards.Picked(np.array([7]), embeddings[[7]])
    offer = shard.offer(0, first)
    assert isinstance(offer, Offer)
    assert np.array_equal(offer.embeddings, embeddings[offer.rows])
    assert offer.cosine == pytest.approx(embeddings[offer.rows] @ embeddings[7], abs=1e-6)
    others = np.setdiff1d(np.arange(len(embeddings)), [*offer.rows, 7])
    assert (embeddings[others] @ embeddings[7]).min(initial=2) >= offer.cosine.max() - 1e-6
    assert shard.offer(5, first) == Lacking(1)
