"""Distances of a fit's own images as if each had not been in the fit: leave-one-image-out, without refitting.

An image that is compared with a memory bank that contains its own patches scores too low. A bank without the selected
patches of the image is not honest either: every selected patch is farther than the covering radius from all others, so
each of them would leave a hole in the bank, and the image would score too high. Therefore, for each image, the greedy
selection starts from the bank without the patches of the image, and continues over the patches of the *other* images,
until the bank covers them as closely as the whole bank covers the whole fit. The result is a k-center greedy bank of
the other images: the image itself has no patch in it and no influence on its size.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings
from backend.patchcore import ROUNDING, PatchCoreMemory, distance_of_cosine, greedy_cover

Cosines = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# Products of a block of patches with the bank: 16 MiB, some 25 ms on two cores, which is how long inferences wait.
PRODUCTS_AT_ONCE = 1 << 22
# Patches times bank. Ten thousand million take a minute on two cores, and clients of a fit wait for two; a coreset of
# 2 % reaches it at 700 images of 32 x 32 patches, a bank of every patch at 98. Of larger fits a sample is scored.
MOST_PRODUCTS = 10**10
# No cosine: farther than any point of the sphere.
NO_COSINE = np.float32(-2)


@dataclass(frozen=True)
class HeldOut:
    """What a fit tells about its own images.

    Attributes:
        covering_radius: distance of the patch that is farthest from the whole bank, 0..2.
        distances: float32 [n_images, patches per image], of each patch to the bank of the other images, 0..2; None if
            there are no others.
        n_unique: int64 [n_images], how many patches of the image the bank of the others does not cover as closely.
        positions: int64 [n_images], rising, positions of the images in the fit, if they are a sample (see
            `hold_out_sample`); None if they are all.
    """

    covering_radius: float
    distances: npt.NDArray[np.float32] | None
    n_unique: Rows
    positions: Rows | None = None

    @property
    def scored_positions(self) -> Rows:
        """int64 [n_images], positions of the images in the fit."""
        return np.arange(len(self.n_unique)) if self.positions is None else self.positions

    def row_of(self, position: int) -> int | None:
        """The row of an image of the fit in `distances` and `n_unique`; None if it is not in the sample."""
        if self.positions is None:
            return position
        row = int(np.searchsorted(self.positions, position))
        return row if row < len(self.positions) and self.positions[row] == position else None


class _Nearest(NamedTuple):
    """The nearest embeddings of the bank for every patch, by the image that they come from.

    Attributes:
        owner: int64 [N], the image of the nearest one, -1 for an earlier fit's.
        cosine: float32 [N], to it.
        other: float32 [N], to the nearest one of any other image.
    """

    owner: Rows
    cosine: Cosines
    other: Cosines


def hold_out(
    embeddings: Embeddings,
    images: Rows,
    bank: Embeddings,
    owner: Rows,
    on_progress: Callable[[int, int], None] | None = None,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> HeldOut:
    """Compare every image of a fit with the bank of the others.

    Args:
        embeddings: float32 [N, D] of all images, in order, L2-normalised.
        images: int64 [n_images], a number for each, from 0; copies of one image have the same number, and are not
            compared with each other. Each has N / n_images patches.
        bank: float32 [M, D], what the fit selected, L2-normalised.
        owner: int64 [M], number of the image that each embedding of the bank comes from; -1 for one that is not in
            this fit.
        on_progress: called with (images compared, different images).
        turn: entered for every piece of the work and left in between, so that other threads can use its lock meanwhile.
    """
    per_image = len(embeddings) // len(images)
    nearest = _nearest_by_image(embeddings, bank, owner, turn)
    radius = nearest.cosine.min()
    covering_radius = float(distance_of_cosine(radius))
    numbers = np.unique(images)
    if len(numbers) == 1 and not np.any(owner < 0):
        return HeldOut(covering_radius, None, np.full(len(images), per_image))
    image = np.repeat(images, per_image)
    cosine = np.where(nearest.owner == image, nearest.other, nearest.cosine)
    lost = np.flatnonzero((nearest.owner != image) & (nearest.owner >= 0) & (nearest.other < radius))
    lost = lost[np.argsort(nearest.owner[lost], kind="stable")]
    ends = np.searchsorted(nearest.owner[lost], numbers, side="right")
    for done, (number, uncovered) in enumerate(zip(numbers, np.split(lost, ends[:-1]), strict=True), start=1):
        picks = uncovered[greedy_cover(embeddings[uncovered], nearest.other[uncovered], radius, turn)]
        if len(picks):
            for copy in np.flatnonzero(images == number):
                own = slice(copy * per_image, (copy + 1) * per_image)
                with turn():
                    cosine[own] = np.maximum(cosine[own], (embeddings[own] @ embeddings[picks].T).max(axis=1))
        if on_progress is not None:
            on_progress(done, len(numbers))
    cosine = cosine.reshape(len(images), per_image)
    n_unique = np.count_nonzero(cosine < radius - ROUNDING, axis=1)
    return HeldOut(covering_radius, distance_of_cosine(cosine), n_unique)


def _nearest_by_image(
    embeddings: Embeddings,
    bank: Embeddings,
    owner: Rows,
    turn: Callable[[], AbstractContextManager[object]],
) -> _Nearest:
    order = np.argsort(owner, kind="stable")
    images, starts = np.unique(owner[order], return_index=True)
    transposed = bank[order].T
    nearest = _Nearest(
        np.empty(len(embeddings), np.int64),
        np.empty(len(embeddings), np.float32),
        np.empty(len(embeddings), np.float32),
    )
    step = max(1, PRODUCTS_AT_ONCE // len(bank))
    for start in range(0, len(embeddings), step):
        with turn():
            rows = slice(start, start + step)
            of_image = np.maximum.reduceat(embeddings[rows] @ transposed, starts, axis=1)
            best = of_image.argmax(axis=1)[:, None]
            nearest.owner[rows] = images[best[:, 0]]
            nearest.cosine[rows] = np.take_along_axis(of_image, best, axis=1)[:, 0]
            np.put_along_axis(of_image, best, NO_COSINE, axis=1)
            nearest.other[rows] = of_image.max(axis=1)
    return nearest


def last_distance(memory: PatchCoreMemory, n_embeddings: int) -> float:
    """An upper bound of the covering radius: the distance of the last selected embedding to those selected before it.

    Args:
        memory: a bank in the order of its selection; embeddings float32 [M, D], L2-normalised.
        n_embeddings: how many embeddings it was selected from.

    Returns:
        0..2, on the unit sphere; 0 if the bank keeps every embedding.
    """
    bank = memory.embeddings
    if len(bank) == n_embeddings:
        return 0.0
    return float(distance_of_cosine((bank[:-1] @ bank[-1]).max()))


def owners(memory: PatchCoreMemory, numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    """The number of the image that each embedding of a bank comes from, -1 if unknown.

    Args:
        memory: the bank.
        numbers: of each image that it was built from, in order.
    """
    owner = np.full(len(memory.embeddings), -1)
    if memory.patches is not None:
        known = memory.patches >= 0
        rows, columns = memory.token_hw
        owner[known] = np.asarray(numbers)[memory.patches[known] // (rows * columns)]
    return owner
