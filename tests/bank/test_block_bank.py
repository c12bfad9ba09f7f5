"""Banks of several blocks: where patches land, and honest distances, against plain loops."""

from contextlib import nullcontext

import numpy as np
import pytest

from backend.bank import block_bank
from backend.bank.block_bank import BlockBase, build_block_bank
from backend.bank.leave_one_out import hold_out
from backend.bank.patches import LocalPatches
from backend.block_memory import PSEUDO_LANDINGS, block_parts
from backend.patchcore import l2_normalize

GRID, PER_IMAGE, DIM, N_BLOCKS = (3, 3), 9, 6, 2


def parts_of(n_images, seed):
    """Tokens of parts that are alike, float32 [n_images * 9, 12]."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(0).normal(size=(PER_IMAGE, N_BLOCKS * DIM))
    return (
        (places + 0.3 * rng.normal(size=(n_images, PER_IMAGE, N_BLOCKS * DIM))).reshape(-1, N_BLOCKS * DIM).astype("f4")
    )


def built(embeddings, own, rate=0.3, base=None, before=()):
    return build_block_bank(
        embeddings, N_BLOCKS, own, before, GRID, rate, base, nullcontext, lambda _step, _done, _total: None
    )


def landings_by_hand(part, bank, images, without=None):
    """Of each patch the nearest embedding that is not of its own image."""
    owner = np.asarray(images)[bank.patches // PER_IMAGE]
    landed = {}
    for row, patch in enumerate(part):
        image = images[row // PER_IMAGE]
        others = np.flatnonzero(owner != image)
        distances = np.linalg.norm(bank.embeddings[others] - patch, axis=1)
        if image != without:
            landed.setdefault(int(others[distances.argmin()]), []).append(float(distances.min()))
    return landed


def excess_by_hand(landed, row):
    every = [distance for distances in landed.values() for distance in distances]
    mean = np.mean(every)
    own = landed.get(row, [])
    return (sum(own) + PSEUDO_LANDINGS * mean) / (len(own) + PSEUDO_LANDINGS) - mean


@pytest.mark.parametrize("images", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 3]])
def test_landings_and_honest_distances_are_those_of_plain_loops(images):
    """Each image by the banks of the others, less what has landed there but for its own patches."""
    embeddings = parts_of(len(images), 1)
    memory, radii, held_out = built(embeddings, images)
    expected = np.zeros((len(images), PER_IMAGE))
    for part, bank, landings, radius in zip(
        block_parts(embeddings, N_BLOCKS), memory.banks, memory.landings, radii, strict=True
    ):
        landed = landings_by_hand(part, bank, images)
        counts = [len(landed.get(row, [])) for row in range(len(bank.embeddings))]
        assert landings.count.tolist() == counts
        np.testing.assert_allclose(landings.total, [sum(landed.get(row, [])) for row in range(len(counts))], atol=1e-5)
        owner = np.asarray(images)[bank.patches // PER_IMAGE]
        alone = hold_out(LocalPatches(np.ascontiguousarray(part), np.array(images)), bank.embeddings, owner)
        assert radius == alone.covering_radius
        for row, patch in enumerate(part):
            image = images[row // PER_IMAGE]
            others = np.flatnonzero(owner != image)
            distances = np.linalg.norm(bank.embeddings[others] - patch, axis=1)
            honest = alone.distances[divmod(row, PER_IMAGE)]
            excess = excess_by_hand(
                landings_by_hand(part, bank, images, without=image), int(others[distances.argmin()])
            )
            is_gained = honest < distances.min() - 1e-3
            expected[divmod(row, PER_IMAGE)] += (honest - (0 if is_gained else excess)) / N_BLOCKS
    np.testing.assert_allclose(held_out.distances, expected, atol=2e-4)


def test_one_image_has_no_honest_distances_and_nothing_lands():
    memory, _, held_out = built(parts_of(1, 2), [0])
    assert held_out.distances is None
    assert all((landings.count == 0).all() for landings in memory.landings)


def test_of_a_large_fit_patches_at_even_distances_land(monkeypatch):
    embeddings = parts_of(6, 3)
    n_bank = len(built(embeddings.copy(), range(6))[0].embeddings)
    monkeypatch.setattr(block_bank, "MOST_PRODUCTS", len(embeddings) * n_bank * N_BLOCKS // 2)
    memory, _, _ = built(embeddings, range(6))
    # Every second patch of all images, and not the first half of them.
    for part, bank, landings in zip(block_parts(embeddings, N_BLOCKS), memory.banks, memory.landings, strict=True):
        owner, expected = bank.patches // PER_IMAGE, np.zeros(len(bank.embeddings), np.int64)
        for row in range(0, len(part), 2):
            others = np.flatnonzero(owner != row // PER_IMAGE)
            expected[others[np.linalg.norm(bank.embeddings[others] - part[row], axis=1).argmin()]] += 1
        np.testing.assert_array_equal(landings.count, expected)


def test_patches_without_another_image_to_land_on_land_nowhere():
    """A small bank may have embeddings of one image alone."""
    found_one = False
    for seed in range(60):
        embeddings = parts_of(2, 100 + seed)
        memory, _, held_out = built(embeddings, [0, 1], rate=0.12)
        for number, (bank, landings) in enumerate(zip(memory.banks, memory.landings, strict=True)):
            owner = bank.patches // PER_IMAGE
            n_alone = sum(not (owner != image).any() for image in (0, 1))
            found_one |= n_alone > 0
            assert landings.count.sum() == (2 - n_alone) * PER_IMAGE, number
            assert (landings.total <= 2 * landings.count).all()
        assert np.abs(held_out.distances).max() <= 2.1
    assert found_one, "or the test shows nothing"


def test_copies_of_images_of_the_base_do_not_land_on_them():
    embeddings = parts_of(3, 6)
    memory, radii, _ = built(embeddings.copy(), range(3))
    base = BlockBase(memory, radii, 3)
    again = np.concatenate([embeddings[:PER_IMAGE], parts_of(1, 7)])
    longer, _, _ = built(again.copy(), [0, 1], base=base, before=[0, -1, -1])
    for number, bank in enumerate(longer.banks):
        own = np.flatnonzero(np.isin(bank.patches // PER_IMAGE, [0, 3]))
        fresh = longer.landings[number].count.copy()
        fresh[: len(memory.landings[number].count)] -= memory.landings[number].count
        part = l2_normalize(block_parts(again, N_BLOCKS)[number])
        others = np.setdiff1d(np.arange(len(bank.embeddings)), own)
        nearest = others[np.linalg.norm(part[:PER_IMAGE, None] - bank.embeddings[others][None], axis=2).argmin(axis=1)]
        assert (fresh[nearest] > 0).all()


def test_an_append_keeps_the_banks_and_adds_to_what_has_landed():
    memory, radii, _ = built(parts_of(4, 4), range(4))
    base = BlockBase(memory, radii, 4)
    more = parts_of(3, 5)
    longer, same, held_out = built(more, range(3), base=base, before=[-1] * 4)
    assert same == radii
    for number, (bank, before) in enumerate(zip(longer.banks, memory.banks, strict=True)):
        n = len(before.embeddings)
        np.testing.assert_array_equal(bank.embeddings[:n], before.embeddings)
        assert longer.landings[number].count.sum() == memory.landings[number].count.sum() + len(more)
        part = l2_normalize(block_parts(more, N_BLOCKS)[number])
        assert bank.distances(part).max() <= radii[number] + 1e-5
    assert held_out.distances.shape == (3, PER_IMAGE)
