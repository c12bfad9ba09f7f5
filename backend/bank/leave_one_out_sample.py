"""Leave-one-image-out distances of a sample of the images of a fit, if those of all would take too long.

They equal the distances of `hold_out` for these images. `hold_out` searches all patches for those that only one image
covers, by comparing each with the whole bank. A few images do not need this: such a patch is within the covering radius
of a selected patch of the image. So only patches within that radius are compared with the rest of the bank, and only
until an embedding of the rest covers them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np

from backend.bank.leave_one_out import MOST_PRODUCTS, NO_COSINE, PRODUCTS_AT_ONCE, Cosines, HeldOut, Rows
from backend.common.arrays import Embeddings
from backend.patchcore import ROUNDING, distance_of_cosine, greedy_cover

# The p99 of fewer scores says hardly more than the largest of them; this many take some 6 % of the network's time.
LEAST_SAMPLED = 30
# Products for an image of the sample, in those of its patches with the bank: its own, those of all patches with its
# picks, and those of patches near its picks with the rest of the bank. Measured: 2 to 3.5, docs/accuracy.md.
_TIMES_ITS_OWN = 4
# Rows of the bank that patches are compared with before those that are covered are left out.
_BANK_ROWS = 512
_COMPARED_AT_ONCE = PRODUCTS_AT_ONCE // _BANK_ROWS

Turn = Callable[[], AbstractContextManager[object]]


class _Covered(NamedTuple):
    """Patches that a single image of the sample covers, and nothing else of the bank.

    Attributes:
        rows: int64 [K], of the patches, rising.
        by: int64 [K], the number of that image.
        other: float32 [K], cosine to the nearest embedding of the bank that is not of that image.
    """

    rows: Rows
    by: Rows
    other: Cosines


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
    embeddings: Embeddings,
    images: Rows,
    bank: Embeddings,
    owner: Rows,
    sample: Rows,
    covering_radius: float,
    on_progress: Callable[[int, int], None] | None = None,
    turn: Turn = nullcontext,
) -> HeldOut:
    """Compare some images of a fit with the bank of the others.

    Args:
        embeddings, images, bank, owner: as for `hold_out`.
        sample: int64 [n], numbers of the images that are compared, rising.
        covering_radius: distance, 0..2, within which the bank covers all patches, or an upper bound of it.
        on_progress: called with (images compared, images of the sample).
        turn: see `hold_out`.
    """
    per_image = len(embeddings) // len(images)
    if len(np.unique(images)) == 1 and not np.any(owner < 0):
        return HeldOut(covering_radius, None, np.full(len(images), per_image))
    enough = np.float32(1 - covering_radius**2 / 2) - ROUNDING
    covered = _covered_by_one(embeddings, np.repeat(images, per_image), bank, owner, sample, enough, turn)
    positions = np.flatnonzero(np.isin(images, sample))
    cosine = np.empty((len(positions), per_image), np.float32)
    for done, number in enumerate(sample, start=1):
        is_its = covered.by == number
        lost = covered.rows[is_its]
        picks = lost[greedy_cover(embeddings[lost], covered.other[is_its], enough + ROUNDING, turn)]
        for row in np.flatnonzero(images[positions] == number):
            own = embeddings[positions[row] * per_image : (positions[row] + 1) * per_image]
            cosine[row] = _nearest_of_others(own, bank, owner == number, turn)
            if len(picks):
                with turn():
                    cosine[row] = np.maximum(cosine[row], (own @ embeddings[picks].T).max(axis=1))
        if on_progress is not None:
            on_progress(done, len(sample))
    n_unique = np.count_nonzero(cosine < enough, axis=1)
    return HeldOut(
        covering_radius, distance_of_cosine(cosine), n_unique, positions if len(positions) < len(images) else None
    )


def _nearest_of_others(own: Embeddings, bank: Embeddings, is_own: Rows, turn: Turn) -> Cosines:
    """Cosine of each patch of an image to the nearest embedding of the bank from another image."""
    cosine = np.empty(len(own), np.float32)
    step = max(1, PRODUCTS_AT_ONCE // len(bank))
    for start in range(0, len(own), step):
        with turn():
            piece = slice(start, start + step)
            products = own[piece] @ bank.T
            products[:, is_own] = NO_COSINE
            cosine[piece] = products.max(axis=1)
    return cosine


def _covered_by_one(
    embeddings: Embeddings,
    image: Rows,
    bank: Embeddings,
    owner: Rows,
    sample: Rows,
    enough: np.float32,
    turn: Turn,
) -> _Covered:
    """The patches of other images that only a single image of the sample covers.

    Args:
        embeddings: float32 [N, D], L2-normalised.
        image: int64 [N], number of the image of each.
        bank, owner, sample, turn: see `hold_out_sample`.
        enough: smallest cosine of a covered patch.
    """
    is_sampled = np.isin(owner, sample)
    picks = np.flatnonzero(is_sampled)
    picks = picks[np.argsort(owner[picks], kind="stable")]
    if not len(picks) or len(bank) == len(embeddings):  # of a bank of every patch each covers itself
        return _Covered(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    numbers, starts = np.unique(owner[picks], return_index=True)
    transposed = bank[picks].T
    found: list[Rows] = []
    by: list[Rows] = []
    other: list[Cosines] = []
    step = max(1, PRODUCTS_AT_ONCE // len(picks))
    for start in range(0, len(embeddings), step):
        with turn():
            of_image = np.maximum.reduceat(embeddings[start : start + step] @ transposed, starts, axis=1)
            best = of_image.argmax(axis=1)[:, None]
            cosine = np.take_along_axis(of_image, best, axis=1)[:, 0]
            np.put_along_axis(of_image, best, NO_COSINE, axis=1)
            second = of_image.max(axis=1)
            is_its_own = numbers[best[:, 0]] == image[start : start + step]
            rows = np.flatnonzero((cosine >= enough) & (second < enough) & ~is_its_own)
            found.append(rows + start)
            by.append(numbers[best[rows, 0]])
            other.append(second[rows])
    covered = _Covered(np.concatenate(found), np.concatenate(by), np.concatenate(other))
    return _not_covered(covered, embeddings, bank[~is_sampled], enough, turn)


def _not_covered(
    covered: _Covered, embeddings: Embeddings, rest: Embeddings, enough: np.float32, turn: Turn
) -> _Covered:
    """The patches that the rest of the bank does not cover, after a comparison with all of it."""
    found: list[_Covered] = []
    for first in range(0, len(covered.rows), _COMPARED_AT_ONCE):
        which = slice(first, first + _COMPARED_AT_ONCE)
        rows, by, other = covered.rows[which], covered.by[which], covered.other[which]
        compared = embeddings[rows]
        for start in range(0, len(rest), _BANK_ROWS):
            with turn():
                other = np.maximum(other, (compared @ rest[start : start + _BANK_ROWS].T).max(axis=1))
                left = other < enough
                rows, by, other, compared = rows[left], by[left], other[left], compared[left]
        found.append(_Covered(rows, by, other))
    if not found:
        return covered
    return _Covered(
        np.concatenate([part.rows for part in found]),
        np.concatenate([part.by for part in found]),
        np.concatenate([part.other for part in found]),
    )
