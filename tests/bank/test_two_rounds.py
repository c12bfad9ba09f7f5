"""A selection in two rounds: what a plain reference keeps and picks, within the bound that it states."""

from itertools import pairwise

import numpy as np
import pytest

from backend.bank import block_bank, building, leave_one_out_sample, patches
from backend.bank.building import bank_metadata, two_rounds_warning
from backend.bank.leave_one_out import hold_out, owners
from backend.bank.patches import LocalPatches
from backend.bank.sharded import FitShard, ShardedBlock, bank_of_shards
from backend.bank.two_rounds import KeptShard, Pieces
from backend.block_memory import block_parts
from backend.patchcore import l2_normalize
from tests.bank.shards import CUTS, IMAGES, PER_IMAGE, embeddings_of

RATE, N_SELECT = 0.1, 18
PIECES = Pieces(2, N_SELECT, len(IMAGES), PER_IMAGE)


def parts_of(seed, n_blocks):
    """Embeddings of each block, float32 [N, DIM], L2-normalised."""
    return [l2_normalize(part) for part in block_parts(embeddings_of(seed, n_blocks), n_blocks)]


class Shards:
    """Shards of this process, some of which forget what they kept before some calls."""

    def __init__(self, parts, pieces=PIECES, dies_before=()):
        self._parts, self._pieces, self._dies_before = parts, pieces, dies_before
        self._shards = [self._fresh(number) for number in range(len(CUTS) - 1)]
        self.asked = []

    def _fresh(self, number):
        first, end = CUTS[number : number + 2]
        own = [part[first * PER_IMAGE : end * PER_IMAGE] for part in self._parts]
        return FitShard(own, first, IMAGES[first:end], self._pieces)

    def ask(self, method, block, arguments):
        self.asked.append(method)
        if len(self.asked) in self._dies_before:
            dead = len(self.asked) % len(self._shards)
            self._shards[dead] = self._fresh(dead)
        return {number: self._shards[number].ask(method, block, *given) for number, given in arguments.items()}

    def bank(self, tell=lambda *_: None):
        blocks = [ShardedBlock(self.ask, block, IMAGES, PER_IMAGE, CUTS) for block in range(len(self._parts))]
        return bank_of_shards(blocks, (4, 4), RATE, tell, None, self._pieces)


def banks_of(found):
    return list(getattr(found.memory, "banks", [found.memory]))


def squared_distances(points, others):
    return ((points[:, None].astype(np.float64) - others[None].astype(np.float64)) ** 2).sum(axis=2)


def plain_greedy(points, n_select):
    """Indices of the picks, and the distance of the farthest point to its nearest pick."""
    mean = points.astype(np.float64).mean(axis=0)
    picks = [int(np.argmax(points @ mean.astype(np.float32)))]
    squared = squared_distances(points, points)
    while len(picks) < n_select:
        nearest = squared[:, picks].min(axis=1)
        nearest[picks] = -1
        picks.append(int(np.argmax(nearest)))
    return picks, float(np.sqrt(squared[:, picks].min(axis=1).max()))


def reference(part):
    """The picks of two plain rounds, the rows that the first keeps, and the sum of both radii."""
    kept, radii = [], []
    for first, end in pairwise(CUTS):
        n_pieces = -(-(end - first) // 2)
        for piece in range(n_pieces):
            images = np.arange(first, end)[piece::n_pieces]
            rows = (images[:, None] * PER_IMAGE + np.arange(PER_IMAGE)).ravel()
            n_kept = min(len(rows), -(-4 * N_SELECT * len(images) // len(IMAGES)))
            picks, radius = plain_greedy(part[rows], n_kept)
            kept.extend(rows[picks].tolist())
            radii.append(radius)
    kept = np.sort(kept)
    picks, radius = plain_greedy(part[kept], N_SELECT)
    return kept[picks].tolist(), kept, max(radii) + radius


@pytest.mark.parametrize("n_blocks", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_two_rounds_select_what_a_plain_reference_selects(seed, n_blocks):
    parts, steps = parts_of(seed, n_blocks), []
    found = Shards(parts).bank(lambda *step: steps.append(step))
    assert len(found.radius_bounds) == n_blocks
    for number, (part, memory) in enumerate(zip(parts, banks_of(found), strict=True)):
        picks, _, bound = reference(part)
        assert memory.patches.tolist() == picks
        assert np.array_equal(memory.embeddings, part[picks])
        assert found.radius_bounds[number] == pytest.approx(bound, abs=1e-4)
        nearest = np.sqrt(squared_distances(part, part[picks]).min(axis=1))
        assert found.covering_radii[number] == pytest.approx(nearest.max(), abs=1e-4)
        assert np.all(nearest <= found.radius_bounds[number] + 1e-6)
    coreset = [(done, total) for step, done, total in steps if step == "coreset"]
    assert coreset == sorted(coreset)
    assert coreset[-1][0] == coreset[-1][1] == n_blocks * (sum(map(PIECES.n_kept_of, np.diff(CUTS))) + N_SELECT)


def test_shard_keeps_what_a_plain_reference_keeps():
    (part,) = parts_of(5, 1)
    _, kept, _ = reference(part)
    own = kept[kept >= CUTS[2] * PER_IMAGE]
    total, count = KeptShard(part[CUTS[2] * PER_IMAGE :], CUTS[2] * PER_IMAGE, PIECES).shard().total()
    assert count == len(own) == PIECES.n_kept_of(CUTS[3] - CUTS[2])
    assert total == pytest.approx(part[own].sum(axis=0), abs=1e-4)


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_scores_of_a_sample_are_those_of_all_by_the_same_bank(n_blocks, monkeypatch):
    for module in (building, block_bank, leave_one_out_sample):
        monkeypatch.setattr(module, "MOST_PRODUCTS", 500)
    monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", 4)
    parts = parts_of(6, n_blocks)
    shards = Shards(parts)
    found = shards.bank()
    assert "least_cosine" in shards.asked, "the bound would be too large for honest scores"
    assert 0 < len(found.held_out.positions) < len(IMAGES)
    for number, (part, memory) in enumerate(zip(parts, banks_of(found), strict=True)):
        nearest = np.sqrt(squared_distances(part, memory.embeddings).min(axis=1))
        assert found.covering_radii[number] == pytest.approx(nearest.max(), abs=1e-4)
    if n_blocks == 1:
        everything = hold_out(LocalPatches(parts[0], IMAGES), memory.embeddings, owners(memory, IMAGES))
        expected = everything.distances[found.held_out.positions]
        assert found.held_out.distances == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dies_before", [{2}, {3, 8}, {5, 6, 7, 9, 12}])
def test_shard_that_is_lost_in_either_round_changes_nothing(dies_before):
    parts = parts_of(7, 2)
    undisturbed, found = Shards(parts).bank(), Shards(parts, dies_before=dies_before).bank()
    for own, other in zip(banks_of(found), banks_of(undisturbed), strict=True):
        assert own.patches.tolist() == other.patches.tolist()
    assert found.radius_bounds == undisturbed.radius_bounds
    assert np.array_equal(found.held_out.distances, undisturbed.held_out.distances)


def test_pieces_that_are_kept_whole_give_the_bank_of_one_round():
    parts = parts_of(8, 1)
    found = Shards(parts, PIECES._replace(n_select=len(IMAGES) * PER_IMAGE)).bank()
    one_round = Shards(parts, None).bank()
    assert found.memory.patches.tolist() == one_round.memory.patches.tolist()
    assert found.radius_bounds == pytest.approx(found.covering_radii, abs=1e-5)
    assert one_round.radius_bounds is None


@pytest.mark.parametrize("seed", range(3))
def test_farthest_patch_is_found_piece_by_piece(seed, monkeypatch):
    monkeypatch.setattr(patches, "PRODUCTS_AT_ONCE", 20 * 15)
    (part,) = parts_of(seed, 1)
    bank = part[::13]
    assert LocalPatches(part, IMAGES).least_cosine(bank) == pytest.approx((part @ bank.T).max(axis=1).min(), abs=1e-6)


@pytest.mark.parametrize(("n_blocks", "whose"), [(1, "the memory bank"), (2, "the 2 memory banks")])
def test_metadata_and_the_warning_say_that_there_were_two_rounds(n_blocks, whose):
    parts = parts_of(9, n_blocks)
    found, one_round = Shards(parts).bank(), Shards(parts, None).bank()
    added = {"selection_rounds": 2, "covering_radius_bounds": found.radius_bounds}
    metadata, before = (bank_metadata(bank, None, [], 12, 192, RATE, 0.1) for bank in (found, one_round))
    assert {name: metadata[name] for name in metadata.keys() - before.keys()} == added
    warning = two_rounds_warning(found)
    assert f"two rounds selected {whose}" in warning
    assert all(f"{radius:.3f}" in warning for radius in [*found.covering_radii, *found.radius_bounds])
    assert two_rounds_warning(one_round) is None
