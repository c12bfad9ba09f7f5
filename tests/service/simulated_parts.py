"""Patch embeddings of simulated parts, and their image scores."""

import numpy as np

from backend.patchcore import l2_normalize

TOKEN_HW, DIM = (3, 3), 6
PLACES = np.random.default_rng(7).normal(size=(9, DIM))
SPREAD = 0.3
REPETITIONS, N_FRESH = 400, 500


def parts(rng, n, spread=SPREAD):
    """Patch embeddings of parts that differ as a whole and from patch to patch: float32 [n * 9, 6], L2-normalised."""
    of_part = spread * rng.normal(size=(n, 1, DIM)) * rng.lognormal(sigma=0.5, size=(n, 1, 1))
    patches = PLACES + of_part + 0.1 * rng.normal(size=(n, 9, DIM))
    return l2_normalize(patches.reshape(-1, DIM).astype(np.float32))


def scores(distances):
    """The image scores of patch distances."""
    return np.percentile(np.reshape(distances, (-1, 9)), 99, axis=1)
