"""The patches of the images of a fit, and their comparisons with a memory bank, for one block of the network.

Honest distances and landings need nothing else of the embeddings. So these may be in this process, or in shards that
are elsewhere: see `Patches`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings

Cosines = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Turn = Callable[[], AbstractContextManager[object]]

# Products of a block of patches with the bank: 16 MiB, some 25 ms on two cores, which is how long inferences wait.
PRODUCTS_AT_ONCE = 1 << 22
# No cosine: farther than any point of the sphere.
NO_COSINE = np.float32(-2)
# Rows of the bank that patches are compared with before those that are covered are left out.
_BANK_ROWS = 512
_COMPARED_AT_ONCE = PRODUCTS_AT_ONCE // _BANK_ROWS


class NearestByImage(NamedTuple):
    """The nearest embeddings of the bank for every patch, by the image that they come from.

    Attributes:
        owner: int64 [N], the image of the nearest one, -1 for an earlier fit's.
        cosine: float32 [N], to it.
        other: float32 [N], to the nearest one of any other image.
    """

    owner: Rows
    cosine: Cosines
    other: Cosines


class Covered(NamedTuple):
    """Patches that a single image of a sample covers, and nothing else of the bank.

    Attributes:
        rows: int64 [K], of the patches, rising.
        by: int64 [K], the number of that image.
        other: float32 [K], cosine to the nearest embedding of the bank that is not of that image.
    """

    rows: Rows
    by: Rows
    other: Cosines


class Landed(NamedTuple):
    """The nearest embeddings of the bank that are not of the patches' own images.

    Attributes:
        rows: int64 [N], of the bank.
        cosine: float32 [N], to it; `NO_COSINE` if the bank has embeddings of the own image alone.
    """

    rows: Rows
    cosine: Cosines


class Patches(Protocol):
    """All patches of a fit, L2-normalised: those of one image after the other, equally many of each."""

    @property
    def images(self) -> Rows:
        """int64 [n_images], a number for each image; copies of one have the same, and are not compared."""
        ...

    @property
    def per_image(self) -> int:
        """Patches of an image."""
        ...

    @property
    def turn(self) -> Turn:
        """Entered for every piece of the work and left in between, so that others can use its lock meanwhile."""
        ...

    def nearest_by_image(self, bank: Embeddings, owner: Rows) -> NearestByImage:
        """See `LocalPatches.nearest_by_image`."""
        ...

    def covered_by_one(self, bank: Embeddings, owner: Rows, sample: Rows, enough: np.float32) -> Covered:
        """See `LocalPatches.covered_by_one`."""
        ...

    def least_cosine(self, bank: Embeddings) -> np.float32:
        """See `LocalPatches.least_cosine`."""
        ...

    def land(self, bank: Embeddings, owner: Rows, rows: Rows) -> Landed:
        """See `LocalPatches.land`."""
        ...

    def take(self, rows: Rows) -> Embeddings:
        """See `LocalPatches.take`."""
        ...

    def cosine_to(self, vectors: Embeddings, rows: Rows) -> Cosines:
        """See `LocalPatches.cosine_to`."""
        ...


class LocalPatches:
    """Patches in the memory of this process, or in a file that is mapped into it.

    Args:
        embeddings: float32 [N, D], L2-normalised; they are read in slices.
        images, turn: see `Patches`; there are N / n_images patches of each.
    """

    def __init__(self, embeddings: Embeddings, images: Rows, turn: Turn = nullcontext) -> None:
        self.images = images
        self.per_image = len(embeddings) // len(images)
        self.turn = turn
        self._embeddings = embeddings

    def nearest_by_image(self, bank: Embeddings, owner: Rows) -> NearestByImage:
        """The nearest embeddings of the bank for all patches.

        Args:
            bank: float32 [M, D], L2-normalised.
            owner: int64 [M], number of the image that each embedding of the bank comes from; -1 for one that is not in
                this fit.
        """
        order = np.argsort(owner, kind="stable")
        images, starts = np.unique(owner[order], return_index=True)
        transposed = bank[order].T
        n_patches = len(self._embeddings)
        nearest = NearestByImage(
            np.empty(n_patches, np.int64), np.empty(n_patches, np.float32), np.empty(n_patches, np.float32)
        )
        step = max(1, PRODUCTS_AT_ONCE // len(bank))
        for start in range(0, n_patches, step):
            with self.turn():
                rows = slice(start, start + step)
                of_image = np.maximum.reduceat(self._embeddings[rows] @ transposed, starts, axis=1)
                best = of_image.argmax(axis=1)[:, None]
                nearest.owner[rows] = images[best[:, 0]]
                nearest.cosine[rows] = np.take_along_axis(of_image, best, axis=1)[:, 0]
                np.put_along_axis(of_image, best, NO_COSINE, axis=1)
                nearest.other[rows] = of_image.max(axis=1)
        return nearest

    def covered_by_one(self, bank: Embeddings, owner: Rows, sample: Rows, enough: np.float32) -> Covered:
        """The patches that only a single image of the sample covers, which is not their own.

        Args:
            bank, owner: see `nearest_by_image`.
            sample: int64 [n], numbers of the images, rising.
            enough: smallest cosine of a covered patch.
        """
        is_sampled = np.isin(owner, sample)
        picks = np.flatnonzero(is_sampled)
        picks = picks[np.argsort(owner[picks], kind="stable")]
        if not len(picks):
            return Covered(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        numbers, starts = np.unique(owner[picks], return_index=True)
        transposed = bank[picks].T
        found: list[Covered] = []
        image = np.repeat(self.images, self.per_image)
        step = max(1, PRODUCTS_AT_ONCE // len(picks))
        for start in range(0, len(self._embeddings), step):
            with self.turn():
                of_image = np.maximum.reduceat(self._embeddings[start : start + step] @ transposed, starts, axis=1)
                best = of_image.argmax(axis=1)[:, None]
                cosine = np.take_along_axis(of_image, best, axis=1)[:, 0]
                np.put_along_axis(of_image, best, NO_COSINE, axis=1)
                second = of_image.max(axis=1)
                is_its_own = numbers[best[:, 0]] == image[start : start + step]
                rows = np.flatnonzero((cosine >= enough) & (second < enough) & ~is_its_own)
                found.append(Covered(rows + start, numbers[best[rows, 0]], second[rows]))
        return self._not_covered(join_covered(found), bank[~is_sampled], enough)

    def _not_covered(self, covered: Covered, rest: Embeddings, enough: np.float32) -> Covered:
        """The patches that the rest of the bank does not cover, after a comparison with all of it."""
        found: list[Covered] = []
        for first in range(0, len(covered.rows), _COMPARED_AT_ONCE):
            which = slice(first, first + _COMPARED_AT_ONCE)
            rows, by, other = covered.rows[which], covered.by[which], covered.other[which]
            compared = self._embeddings[rows]
            for start in range(0, len(rest), _BANK_ROWS):
                with self.turn():
                    other = np.maximum(other, (compared @ rest[start : start + _BANK_ROWS].T).max(axis=1))
                    left = other < enough
                    rows, by, other, compared = rows[left], by[left], other[left], compared[left]
            found.append(Covered(rows, by, other))
        return join_covered(found) if found else covered

    def least_cosine(self, bank: Embeddings) -> np.float32:
        """Cosine of the patch that is farthest from the bank, to its nearest embedding.

        Args:
            bank: float32 [M, D], L2-normalised.
        """
        least, at_once = np.float32(1), max(1, PRODUCTS_AT_ONCE // len(bank))
        for start in range(0, len(self._embeddings), at_once):
            with self.turn():
                cosine = (self._embeddings[start : start + at_once] @ bank.T).max(axis=1)
                least = cosine.min(initial=least)
        return least

    def land(self, bank: Embeddings, owner: Rows, rows: Rows) -> Landed:
        """Where patches land among the embeddings that are not of their own image.

        Args:
            bank, owner: see `nearest_by_image`.
            rows: int64 [n], of the patches, rising.
        """
        landed = Landed(np.empty(len(rows), np.int64), np.empty(len(rows), np.float32))
        at_once = max(1, PRODUCTS_AT_ONCE // len(bank))
        for start in range(0, len(rows), at_once):
            with self.turn():
                piece = slice(start, start + at_once)
                products = self._embeddings[rows[piece]] @ bank.T
                image = self.images[rows[piece] // self.per_image]
                products[image[:, None] == owner] = NO_COSINE
                landed.rows[piece] = products.argmax(axis=1)
                landed.cosine[piece] = np.take_along_axis(products, landed.rows[piece][:, None], axis=1)[:, 0]
        return landed

    def take(self, rows: Rows) -> Embeddings:
        """The embeddings of some patches, float32 [n, D].

        Args:
            rows: int64 [n], of the patches, rising.
        """
        return self._embeddings[rows]

    def cosine_to(self, vectors: Embeddings, rows: Rows) -> Cosines:
        """Cosine of some patches to the nearest of some vectors, float32 [n].

        Args:
            vectors: float32 [K, D], L2-normalised.
            rows: int64 [n], of the patches, rising.
        """
        with self.turn():
            cosine: Cosines = (self._embeddings[rows] @ vectors.T).max(axis=1)
            return cosine


def join_covered(parts: list[Covered]) -> Covered:
    """The parts, one after the other; at least one."""
    rows, by, other = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Covered(rows, by, other)


def rows_of_image(patches: Patches, number: int) -> Rows:
    """The rows of the patches of an image and of its copies, rising.

    Args:
        patches: of all images.
        number: of the image.
    """
    positions = np.flatnonzero(patches.images == number)
    return np.asarray((positions[:, None] * patches.per_image + np.arange(patches.per_image)).ravel(), np.int64)
