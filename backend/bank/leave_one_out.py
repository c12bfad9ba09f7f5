"""Distances of a fit's own images as if each had not been in the fit: leave-one-image-out, without refitting.

An image that is compared with a memory bank that contains its own patches scores too low. A bank without the selected
patches of the image is not honest either: every selected patch is farther than the covering radius from all others, so
each of them would leave a hole in the bank, and the image would score too high. Therefore, for each image, the greedy
selection starts from the bank without the patches of the image, and continues over the patches of the *other* images,
until the bank covers them as closely as the whole bank covers the whole fit. The result is a k-center greedy bank of
the other images: the image itself has no patch in it and no influence on its size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.bank.patches import Cosines, Patches, Rows, rows_of_image
from backend.common.arrays import Embeddings
from backend.patchcore import ROUNDING, PatchCoreMemory, distance_of_cosine, greedy_cover

# Patches times bank. Ten thousand million take a minute on two cores, and clients of a fit wait for two; a coreset of
# 2 % reaches it at 700 images of 32 x 32 patches, a bank of every patch at 98. Of larger fits a sample is scored.
MOST_PRODUCTS = 10**10


RadiusOf = Callable[[Patches, PatchCoreMemory], float]
"""Gives the covering radius of a memory bank, or an upper bound of it: `last_distance` or `farthest_distance`."""


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


def hold_out(
    patches: Patches,
    bank: Embeddings,
    owner: Rows,
    on_progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """Compare every image of a fit with the bank of the others.

    Args:
        patches: of all images.
        bank: float32 [M, D], what the fit selected, L2-normalised.
        owner: int64 [M], number of the image that each embedding of the bank comes from; -1 for one that is not in
            this fit.
        on_progress: called with (images compared, different images).
    """
    images, per_image = patches.images, patches.per_image
    nearest = patches.nearest_by_image(bank, owner)
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
        gained = gained_without(patches, uncovered, nearest.other[uncovered], radius)
        if len(gained):
            own = rows_of_image(patches, number)
            cosine[own] = np.maximum(cosine[own], patches.cosine_to(gained, own))
        if on_progress is not None:
            on_progress(done, len(numbers))
    cosine = cosine.reshape(len(images), per_image)
    n_unique = np.count_nonzero(cosine < radius - ROUNDING, axis=1)
    return HeldOut(covering_radius, distance_of_cosine(cosine), n_unique)


def gained_without(patches: Patches, lost: Rows, other: Cosines, least_cosine: np.float32) -> Embeddings:
    """What the bank of the other images gains in place of the embeddings of an image: float32 [K, D].

    Args:
        patches: of all images.
        lost: int64 [n], rows of the patches that only this image covers, rising.
        other: float32 [n], cosine of each to the nearest embedding of the bank from another image.
        least_cosine: smallest cosine of a covered patch.
    """
    if not len(lost):
        return np.empty((0, 0), np.float32)
    embeddings = patches.take(lost)
    return embeddings[greedy_cover(embeddings, other, least_cosine, patches.turn)]


def last_distance(patches: Patches, memory: PatchCoreMemory) -> float:
    """An upper bound of the covering radius: the distance of the last selected embedding to those selected before it.

    Args:
        patches: of all images.
        memory: a bank of all their embeddings, in the order of its selection; embeddings float32 [M, D], L2-normalised.

    Returns:
        0..2, on the unit sphere; 0 if the bank keeps every embedding.
    """
    bank = memory.embeddings
    if len(bank) == len(patches.images) * patches.per_image:
        return 0.0
    return float(distance_of_cosine((bank[:-1] @ bank[-1]).max()))


def farthest_distance(patches: Patches, memory: PatchCoreMemory) -> float:
    """The covering radius: the distance of the patch that is farthest from the bank, 0..2, on the unit sphere.

    Args:
        patches: of all images.
        memory: any bank; embeddings float32 [M, D], L2-normalised.
    """
    return float(distance_of_cosine(np.array(patches.least_cosine(memory.embeddings))))


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
