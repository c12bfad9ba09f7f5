"""Honest distances of a sample where the embeddings lie in shards: those of one process."""

from itertools import pairwise

import numpy as np
import pytest

from backend.bank.held_out_shards import FitShard, hold_out_of_shards
from backend.bank.leave_one_out_sample import hold_out_sample
from backend.patchcore import k_center_greedy, l2_normalize

PER_IMAGE, DIM = 30, 12


class Together:
    """Shards of this process."""

    def __init__(self, shards):
        self.shards = shards

    def lost(self, bank):
        return [shard.lost(bank) for shard in self.shards]

    def cosines(self, bank, gained):
        return [shard.cosines(bank, gained) for shard in self.shards]


@pytest.mark.parametrize("seed", range(6))
def test_sample_of_shards_has_the_distances_of_one_process(seed):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(15, DIM))
    images = np.array([0, 1, 2, 3, 1, 4, 5, 6, 7, 8, 9, 10])  # the fifth is a copy of the second
    embeddings = centres[random.integers(0, 15, len(images) * PER_IMAGE)]
    embeddings = l2_normalize((embeddings + 0.2 * random.normal(size=embeddings.shape)).astype(np.float32))
    embeddings[4 * PER_IMAGE : 5 * PER_IMAGE] = embeddings[PER_IMAGE : 2 * PER_IMAGE]
    picks = k_center_greedy(embeddings, 40)
    bank, owner = embeddings[picks], images[picks // PER_IMAGE]
    sample = np.array([0, 1, 5, 9])
    radius = float(np.sqrt(np.maximum(2 - 2 * (embeddings @ bank.T).max(axis=1), 0)).max())
    expected = hold_out_sample(embeddings, images, bank, owner, sample, radius)

    cuts = [0, 3, 4, 12]
    shards = [
        FitShard(embeddings[first * PER_IMAGE : last * PER_IMAGE], first, images[first:last])
        for first, last in pairwise(cuts)
    ]
    steps = []
    found = hold_out_of_shards(
        Together(shards), images, bank, owner, sample, radius, lambda done, total: steps.append((done, total))
    )
    assert found.positions is not None
    assert found.positions.tolist() == expected.positions.tolist() == [0, 1, 4, 6, 10]
    assert found.distances == pytest.approx(expected.distances, abs=1e-5)
    assert found.n_unique.tolist() == expected.n_unique.tolist()
    assert found.covering_radius == radius
    assert steps[-1] == (8, 8)


def test_fit_of_one_image_has_no_others_to_be_compared_with():
    embeddings = l2_normalize(np.random.default_rng(0).normal(size=(PER_IMAGE, DIM)).astype(np.float32))
    shard = FitShard(embeddings, 0, np.array([0]))
    found = hold_out_of_shards(Together([shard]), np.array([0]), embeddings[:3], np.zeros(3, int), np.array([0]), 0.5)
    assert found.distances is None
