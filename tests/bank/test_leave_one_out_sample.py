"""Honest distances of a sample of a fit's images: those that all images would have got."""

from contextlib import nullcontext

import numpy as np
import pytest

from backend.bank import block_bank, leave_one_out_sample
from backend.bank.building import build_bank
from backend.bank.leave_one_out import hold_out
from backend.bank.leave_one_out_sample import choose_sample, hold_out_sample
from backend.bank.patches import LocalPatches
from backend.patchcore import PatchCoreMemory, l2_normalize
from tests.factories import unit_rows

PATCHES = 16
GRID, PER_IMAGE, DIM, N_BLOCKS = (3, 3), 9, 6, 2


def fitted(images, rate, seed=0, dim=8):
    """Patches of images, those with the same number alike, and the bank that a fit picks from them."""
    rows = unit_rows((max(images) + 1) * PATCHES, dim, seed).reshape(-1, PATCHES, dim)
    embeddings = np.ascontiguousarray(rows[images].reshape(-1, dim))
    memory = PatchCoreMemory.build(embeddings, (4, 4), rate)
    return embeddings, memory.embeddings, np.asarray(images)[memory.patches // PATCHES]


@pytest.mark.parametrize(
    ("images", "rate"),
    [
        (list(range(12)), 0.1),
        (list(range(30)), 0.05),
        (list(range(6)), 0.5),
        (list(range(5)), 1.0),
        ([0, 1, 2, 3, 4, 5, 0, 1, 2, 0], 0.1),
    ],
)
def test_a_sample_has_the_distances_that_all_images_would_have(images, rate):
    embeddings, bank, owner = fitted(images, rate)
    numbers = np.array(images)
    everything = hold_out(LocalPatches(embeddings, numbers), bank, owner)
    sample = np.array([0, 2, 3])
    found = hold_out_sample(LocalPatches(embeddings, numbers), bank, owner, sample, everything.covering_radius)
    assert found.positions.tolist() == [place for place, number in enumerate(images) if number in (0, 2, 3)]
    np.testing.assert_allclose(found.distances, everything.distances[found.positions], atol=1e-5)
    assert found.n_unique.tolist() == everything.n_unique[found.positions].tolist()
    assert [found.row_of(place) for place in range(len(images)) if found.row_of(place) is not None] == list(
        range(len(found.positions))
    )
    assert found.row_of(1) is None
    if rate < 1:
        holes = [
            1 - (embeddings[place * PATCHES : (place + 1) * PATCHES] @ bank[owner != images[place]].T).max(axis=1)
            for place in found.positions
        ]
        assert np.abs(np.sqrt(2 * np.array(holes)) - found.distances).max() > 0.01, "or no image left a hole to fill"


def test_images_of_an_earlier_fit_are_others_to_a_sample():
    earlier, embeddings = unit_rows(5, 8, 9), unit_rows(4 * PATCHES, 8, 1)
    found = hold_out_sample(LocalPatches(embeddings, np.arange(4)), earlier, np.full(5, -1), np.array([1, 3]), 2.0)
    expected = np.linalg.norm(embeddings[:, None] - earlier[None], axis=2).min(axis=1).reshape(4, PATCHES)
    np.testing.assert_allclose(found.distances, expected[[1, 3]], atol=1e-5)


def test_a_bound_of_the_radius_makes_no_distance_smaller():
    """Fewer patches of the others are picked where the bank has to cover them less closely."""
    embeddings, bank, owner = fitted(list(range(12)), 0.1)
    images, sample = np.arange(12), np.array([1, 4, 7])
    exact = hold_out(LocalPatches(embeddings, images), bank, owner)
    found = hold_out_sample(LocalPatches(embeddings, images), bank, owner, sample, exact.covering_radius * 1.1)
    assert (found.distances >= exact.distances[sample] - 1e-5).all()
    assert (found.distances > exact.distances[sample] + 1e-3).any()


def test_copies_of_one_image_have_no_others_in_a_sample():
    embeddings = np.tile(unit_rows(PATCHES, 8, 0), (3, 1))
    found = hold_out_sample(
        LocalPatches(embeddings, np.zeros(3, np.int64)), embeddings[:2], np.zeros(2, np.int64), np.array([0]), 0.5
    )
    assert found.distances is None


def test_a_sample_of_all_images_is_none():
    embeddings, bank, owner = fitted(list(range(4)), 0.1)
    found = hold_out_sample(LocalPatches(embeddings, np.arange(4)), bank, owner, np.arange(4), 1.5)
    assert found.positions is None
    assert found.row_of(3) == 3


def test_the_work_on_a_sample_is_cut_into_turns_and_told():
    embeddings, bank, owner = fitted(list(range(12)), 0.1)
    told, inside, turns = [], [], []

    class Turn:
        def __enter__(self):
            assert not inside, "a turn within a turn never lets others in"
            inside.append(1)
            turns.append(1)

        def __exit__(self, *_exc):
            inside.pop()

    sample = np.array([1, 4, 7])
    hold_out_sample(
        LocalPatches(embeddings, np.arange(12), Turn), bank, owner, sample, 0.9, lambda *done: told.append(done)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(turns) >= 4


class TestChoice:
    def test_as_many_are_drawn_as_take_a_minute_and_always_the_same(self):
        drawn = choose_sample(np.arange(1000), 1024, 20480)
        assert drawn.tolist() == choose_sample(np.arange(1000), 1024, 20480).tolist()
        assert len(set(drawn.tolist())) == len(drawn) == 10**10 // (4 * 1024 * 20480)
        assert abs(np.mean(drawn) - 500) < 3 * 1000 / np.sqrt(12 * len(drawn)), "at random over the order"

    def test_thirty_are_drawn_of_the_largest_fits(self):
        assert len(choose_sample(np.arange(20_000), 1024, 400_000)) == 30
        assert len(choose_sample(np.arange(700), 1024, 700 * 1024)) == 30

    def test_four_banks_take_four_times_as_long(self):
        assert len(choose_sample(np.arange(1000), 1024, 10240, 4)) == 10**10 // (4 * 4 * 1024 * 10240)

    def test_a_bank_of_every_patch_takes_no_search_for_holes(self):
        assert len(choose_sample(np.arange(200), 1024, 200 * 1024)) == 10**10 // (1024 * 200 * 1024)

    def test_copies_are_drawn_together_and_count_as_many(self):
        drawn = choose_sample(np.repeat(np.arange(250), 4), 1024, 20480)
        assert len(drawn) == 30
        assert len(choose_sample(np.repeat(np.arange(20), 50), 1024, 20480)) == 20


def parts_of(n_images, seed):
    """Tokens of parts that are alike, of two blocks: float32 [n_images * 9, 12]."""
    places = np.random.default_rng(0).normal(size=(PER_IMAGE, N_BLOCKS * DIM))
    noise = 0.3 * np.random.default_rng(seed).normal(size=(n_images, PER_IMAGE, N_BLOCKS * DIM))
    return (places + noise).reshape(-1, N_BLOCKS * DIM).astype(np.float32)


def several_blocks(monkeypatch, embeddings, n_images, least):
    """A bank of two blocks, of a fit that is twice too large."""
    n_bank = len(build(embeddings.copy(), n_images).memory.embeddings)
    monkeypatch.setattr(block_bank, "MOST_PRODUCTS", len(embeddings) * n_bank * N_BLOCKS // 2)
    monkeypatch.setattr(leave_one_out_sample, "MOST_PRODUCTS", 0)
    monkeypatch.setattr(leave_one_out_sample, "LEAST_SAMPLED", least)
    return build(embeddings.copy(), n_images)


def build(embeddings, n_images):
    return build_bank(
        embeddings, list(map(str, range(n_images))), GRID, 0.3, None, nullcontext, lambda *_: None, n_blocks=N_BLOCKS
    )


def test_sampled_distances_of_several_blocks_are_less_the_excess_radii(monkeypatch):
    """Against plain loops; patches at even distances landed, without those of the image itself."""
    n_images = 8
    embeddings = parts_of(n_images, 3)
    bank = several_blocks(monkeypatch, embeddings, n_images, 3)
    found = bank.held_out
    assert len(found.positions) == 3
    expected = np.zeros((3, PER_IMAGE))
    for number, memory in enumerate(bank.memory.banks):
        part = l2_normalize(embeddings[:, number * DIM : (number + 1) * DIM])
        owner = memory.patches // PER_IMAGE
        radius = bank.covering_radii[number]
        exact = hold_out_sample(
            LocalPatches(part, np.arange(n_images)), memory.embeddings, owner, found.positions, radius
        )
        every = np.linalg.norm(part[:, None] - memory.embeddings[None], axis=2)
        every[np.arange(len(part))[:, None] // PER_IMAGE == owner] = np.inf
        nearest, landed = every.argmin(axis=1), range(0, len(part), 2)
        for row, position in enumerate(found.positions):
            others = [patch for patch in landed if patch // PER_IMAGE != position]
            mean = np.mean([every[patch, nearest[patch]] for patch in others])
            for place in range(PER_IMAGE):
                patch = position * PER_IMAGE + place
                honest = exact.distances[row, place]
                here = [every[p, nearest[p]] for p in others if nearest[p] == nearest[patch]]
                excess = (sum(here) - mean * len(here)) / (len(here) + 30)
                is_gained = honest < every[patch, nearest[patch]] - 1e-3
                expected[row, place] += (honest - (0 if is_gained else excess)) / N_BLOCKS
    np.testing.assert_allclose(found.distances, expected, atol=2e-4)


def test_a_sample_of_several_blocks_leaves_the_banks_as_they_were(monkeypatch):
    embeddings = parts_of(8, 4)
    bank = several_blocks(monkeypatch, embeddings, 8, 3)
    everything = several_blocks(monkeypatch, embeddings, 8, 8)
    assert everything.held_out.positions is None
    np.testing.assert_allclose(
        bank.held_out.distances, everything.held_out.distances[bank.held_out.positions], atol=1e-6
    )
    assert bank.covering_radii == everything.covering_radii
    for one, other in zip(bank.memory.landings, everything.memory.landings, strict=True):
        assert (one.count == other.count).all()
        assert (one.total == other.total).all()
