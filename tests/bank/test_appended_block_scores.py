"""What an image scores that is appended to banks of several blocks: what the bank before gave it."""

from contextlib import nullcontext

import numpy as np

from backend.bank.block_bank import BlockBase, build_block_bank
from backend.patchcore import l2_normalize

GRID, PER_IMAGE, DIM, N_BLOCKS = (4, 4), 16, 6, 2


def parts_of(n_images, seed):
    """Tokens of parts that are alike, float32 [n_images * 16, 12], of each block L2-normalised."""
    places = np.random.default_rng(0).normal(size=(PER_IMAGE, N_BLOCKS * DIM))
    noise = np.random.default_rng(seed).normal(size=(n_images, PER_IMAGE, N_BLOCKS * DIM))
    rows = (places + 0.3 * noise).reshape(-1, DIM).astype(np.float32)
    return l2_normalize(rows).reshape(n_images * PER_IMAGE, N_BLOCKS * DIM)


def built(embeddings, own, base=None, before=()):
    return build_block_bank(
        embeddings, N_BLOCKS, own, before, GRID, 0.3, base, nullcontext, lambda _step, _done, _total: None
    )


def test_an_appended_image_is_as_far_as_from_the_bank_before_it():
    """What had landed on the bank before counts, as in an inference; without it the distances were too large."""
    memory, radii, _ = built(parts_of(6, 1), range(6))
    new = parts_of(1, 2)
    by_the_bank_before = memory.distances(new.copy())

    _, _, held_out = built(new.copy(), [0], BlockBase(memory, radii, 6), [-1] * 6)

    np.testing.assert_allclose(held_out.distances[0], by_the_bank_before, atol=1e-5)
    plain = np.mean(
        [bank.nearest(part)[0] for bank, part in zip(memory.banks, np.split(new, 2, axis=1), strict=True)], axis=0
    )
    assert np.abs(plain - by_the_bank_before).max() > 1e-3, "the landings decide"
