"""Leave-one-image-out distances of a sample of the images of a fit, if those of all would take too long.

They equal the distances of `hold_out` for these images. `hold_out` searches all patches for those that only one image
covers, by comparing each with the whole bank. A few images do not need this: such a patch is within the covering radius
of a selected patch of the image. So only patches within that radius are compared with the rest of the bank, and only
until an embedding of the rest covers them.
"""

from collections.abc import Callable

import numpy as np

from backend.bank.leave_one_out import MOST_PRODUCTS, HeldOut, gained_without
from backend.bank.patches import Patches, Rows, rows_of_image
from backend.common.arrays import Embeddings
from backend.patchcore import ROUNDING, distance_of_cosine

# The p99 of fewer scores says hardly more than the largest of them; this many take some 6 % of the network's time.
LEAST_SAMPLED = 30
# Products for an image of the sample, in those of its patches with the bank: its own, those of all patches with its
# picks, and those of patches near its picks with the rest of the bank. Measured: 2 to 3.5, docs/accuracy.md.
_TIMES_ITS_OWN = 4


def choose_sample(images: Rows, per_image: int, n_bank: int, n_blocks: int = 1) -> Rows:
    """Draw the images that are scored in a fit that is too large to score all: as many as take a minute, at least 30.

    The draw is always the same for the same sizes, and random over the order of the upload.

    Args:
        images: int64 [n_images], a number for each; copies of one image have the same number, and are drawn together.
        per_image: patches of an image.
        n_bank: embeddings in the bank.
        n_blocks: number of blocks with banks.

    Returns:
        int64 [n], their numbers, rising.
    """
    numbers = np.unique(images)
    keeps_all = n_bank == len(images) * per_image  # then no image covers patches of others
    products = (1 if keeps_all else _TIMES_ITS_OWN) * per_image * n_bank * n_blocks
    n_images = max(LEAST_SAMPLED, MOST_PRODUCTS // products)
    n = max(LEAST_SAMPLED, n_images * len(numbers) // len(images))
    return np.sort(np.random.default_rng(0).permutation(numbers)[:n])


def hold_out_sample(
    patches: Patches,
    bank: Embeddings,
    owner: Rows,
    sample: Rows,
    covering_radius: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """Compare some images of a fit with the bank of the others.

    Args:
        patches, bank, owner: as for `hold_out`.
        sample: int64 [n], numbers of the images that are compared, rising.
        covering_radius: distance, 0..2, within which the bank covers all patches, or an upper bound of it.
        on_progress: called with (images compared, images of the sample).
    """
    images, per_image = patches.images, patches.per_image
    if len(np.unique(images)) == 1 and not np.any(owner < 0):
        return HeldOut(covering_radius, None, np.full(len(images), per_image))
    enough = np.float32(1 - covering_radius**2 / 2) - ROUNDING
    keeps_all = len(bank) == len(images) * per_image  # then each patch covers itself
    covered = patches.covered_by_one(bank, owner, sample[:0] if keeps_all else sample, enough)
    positions = np.flatnonzero(np.isin(images, sample))
    cosine = np.empty((len(positions), per_image), np.float32)
    for done, number in enumerate(sample, start=1):
        is_its, own = covered.by == number, rows_of_image(patches, number)
        found = patches.land(bank, owner, own).cosine
        gained = gained_without(patches, covered.rows[is_its], covered.other[is_its], enough + ROUNDING)
        if len(gained):
            found = np.maximum(found, patches.cosine_to(gained, own))
        cosine[images[positions] == number] = found.reshape(-1, per_image)
        if on_progress is not None:
            on_progress(done, len(sample))
    n_unique = np.count_nonzero(cosine < enough, axis=1)
    return HeldOut(
        covering_radius, distance_of_cosine(cosine), n_unique, positions if len(positions) < len(images) else None
    )
