"""Embeddings of a fit that lie in three shards."""

import numpy as np

PER_IMAGE, DIM = 16, 12
IMAGES = np.array([0, 1, 2, 3, 1, 4, 5, 6, 7, 8, 9, 10])  # the fifth is a copy of the second
CUTS = [0, 3, 4, 12]


def embeddings_of(seed, n_blocks):
    """Embeddings of images whose patches are of some kinds, float32 [N, n_blocks * DIM]."""
    random = np.random.default_rng(seed)
    kinds = random.normal(size=(12, n_blocks * DIM))
    found = kinds[random.integers(0, 12, len(IMAGES) * PER_IMAGE)]
    found = (found + 0.3 * random.normal(size=found.shape)).astype(np.float32)
    found[4 * PER_IMAGE : 5 * PER_IMAGE] = found[PER_IMAGE : 2 * PER_IMAGE]
    return found
