"""A memory bank from shards: that of one process, with the scores of one process, whatever lies where."""

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest

from backend.bank import block_bank, building, leave_one_out_sample
from backend.bank.building import build_bank
from backend.bank.sharded import FitShard, ShardedBlock, bank_of_shards
from backend.block_memory import block_parts
from backend.patchcore import l2_normalize
from tests.bank.shards import CUTS, IMAGES, PER_IMAGE, embeddings_of


def sharded(embeddings, n_blocks):
    parts = [l2_normalize(part) for part in block_parts(embeddings, n_blocks)]
    shards = [
        FitShard([part[first * PER_IMAGE : end * PER_IMAGE] for part in parts], first, IMAGES[first:end])
        for first, end in pairwise(CUTS)
    ]

    def ask(method, block, arguments):
        return {number: shards[number].ask(method, block, *given) for number, given in arguments.items()}

    return [ShardedBlock(ask, block, IMAGES, PER_IMAGE, CUTS) for block in range(n_blocks)]


@pytest.mark.parametrize("n_blocks", [1, 2])
@pytest.mark.parametrize("is_sampled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_shards_give_the_bank_and_the_scores_of_one_process(seed, is_sampled, n_blocks, monkeypatch):
    if is_sampled:
        for module in (building, block_bank, leave_one_out_sample):
            monkeypatch.setattr(module, "MOST_PRODUCTS", 2000)
        monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", 4)
    embeddings = embeddings_of(seed, n_blocks)
    steps = {}
    found = bank_of_shards(
        sharded(embeddings, n_blocks), (4, 4), 0.2, lambda step, done, total: steps.update({step: (done, total)})
    )
    alone = build_bank(
        embeddings, list(map(str, IMAGES)), (4, 4), 0.2, None, nullcontext, lambda *_: None, n_blocks=n_blocks
    )
    ours, theirs = ([memory] if n_blocks == 1 else memory.banks for memory in (found.memory, alone.memory))
    for own, other in zip(ours, theirs, strict=True):
        assert own.patches.tolist() == other.patches.tolist()
        assert own.embeddings == pytest.approx(other.embeddings, abs=1e-6)
        assert own.token_hw == other.token_hw
    if n_blocks > 1:
        for own, other in zip(found.memory.landings, alone.memory.landings, strict=True):
            assert own.count.tolist() == other.count.tolist()
            assert own.total == pytest.approx(other.total, abs=1e-4)
    assert found.covering_radii == pytest.approx(alone.covering_radii, abs=1e-5)
    assert found.held_out.distances == pytest.approx(alone.held_out.distances, abs=1e-4)
    assert found.held_out.n_unique.tolist() == alone.held_out.n_unique.tolist()
    assert found.held_out.scored_positions.tolist() == alone.held_out.scored_positions.tolist()
    assert (found.held_out.positions is not None) == is_sampled
    assert all(done == total for done, total in steps.values())
    assert set(steps) == {"coreset", "score"}


def test_fit_of_one_image_has_no_others_to_be_compared_with():
    own = l2_normalize(embeddings_of(0, 1)[:PER_IMAGE])
    shard = FitShard([own], 0, np.array([0]))
    block = ShardedBlock(
        lambda method, number, given: {0: shard.ask(method, number, *given[0])}, 0, np.array([0]), PER_IMAGE, [0, 1]
    )
    found = bank_of_shards([block], (4, 4), 0.2, lambda *_: None)
    assert found.held_out.distances is None
    assert len(found.memory.embeddings) == 4
