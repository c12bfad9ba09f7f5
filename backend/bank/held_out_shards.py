"""Leave-one-image-out distances of a sample of a fit whose embeddings lie in shards: see `leave_one_out_sample`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol

import numpy as np

from backend.bank.k_center_shards import Shard
from backend.bank.leave_one_out import Cosines, HeldOut, Rows
from backend.bank.leave_one_out_sample import cosine_to_others, covered_by_one
from backend.common.arrays import Embeddings
from backend.patchcore import ROUNDING, distance_of_cosine, greedy_cover


class Bank(NamedTuple):
    """The memory bank of a fit, and where it comes from.

    Attributes:
        embeddings: float32 [M, D], L2-normalised.
        owner: int64 [M], number of the image of each.
        sample: int64 [n], numbers of the images that are compared, rising.
        enough: what is covered has at least this cosine.
    """

    embeddings: Embeddings
    owner: Rows
    sample: Rows
    enough: np.float32


class Lost(NamedTuple):
    """Patches that a single image of the sample covers, which is not their own, and nothing else of the bank.

    Attributes:
        rows: int64 [K], of all embeddings.
        embeddings: float32 [K, D].
        by: int64 [K], number of the image that covers each.
        other: float32 [K], cosine to the nearest embedding of the bank that is not of that image.
    """

    rows: Rows
    embeddings: Embeddings
    by: Rows
    other: Cosines


class FitShard(Shard):
    """The embeddings of some images of a fit, one image after the other.

    Args:
        embeddings: float32 [n * per_image, D], L2-normalised.
        first: position of its first image in the fit.
        images: int64 [n], a number for each; copies of one image have the same in all shards.
    """

    def __init__(self, embeddings: Embeddings, first: int, images: Rows) -> None:
        self.per_image = len(embeddings) // len(images)
        super().__init__(embeddings, first * self.per_image + np.arange(len(embeddings)))
        self.first, self.images = first, images

    def lost(self, bank: Bank) -> Lost:
        """What the bank would lack without the images of its sample."""
        image = np.repeat(self.images, self.per_image)
        covered = covered_by_one(self._embeddings, image, *bank, nullcontext)
        own = self._embeddings[covered.rows]
        return Lost(self._rows[covered.rows], own, covered.by, covered.other)

    def cosines(self, bank: Bank, gained: Mapping[int, Embeddings]) -> dict[int, Cosines]:
        """Cosines of the patches of images of the sample to the nearest of the bank of the others.

        Args:
            bank: of all.
            gained: what the bank of the others gains for each image, by its number: float32 [K, D].

        Returns:
            float32 [per_image] by the position of the image in the fit.
        """
        found = {}
        for position, number in enumerate(self.images.tolist()):
            if number not in gained:
                continue
            own = self._embeddings[position * self.per_image : (position + 1) * self.per_image]
            cosine = cosine_to_others(own, bank.embeddings, bank.owner == number, nullcontext)
            if len(gained[number]):
                cosine = np.maximum(cosine, (own @ gained[number].T).max(axis=1))
            found[self.first + position] = cosine
        return found


class FitShards(Protocol):
    """All shards of a fit, wherever they are; see `FitShard`. Each call asks all of them at once."""

    def lost(self, bank: Bank) -> Sequence[Lost]:
        """See `FitShard.lost`."""
        ...

    def cosines(self, bank: Bank, gained: Mapping[int, Embeddings]) -> Sequence[dict[int, Cosines]]:
        """See `FitShard.cosines`."""
        ...


def hold_out_of_shards(
    shards: FitShards,
    images: Rows,
    bank: Embeddings,
    owner: Rows,
    sample: Rows,
    covering_radius: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> HeldOut:
    """As `hold_out_sample`, of which it gives the distances.

    Args:
        shards: of all embeddings of the fit.
        images, bank, owner, sample, covering_radius, on_progress: as for `hold_out_sample`; no image of an earlier fit
            is in the bank.
    """
    if len(np.unique(images)) == 1:
        return HeldOut(covering_radius, None, np.full(len(images), 1))
    enough = np.float32(1 - covering_radius**2 / 2) - ROUNDING
    whole = Bank(bank, owner, sample, enough)
    found = shards.lost(whole)
    rows, embeddings, by, other = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(rows, kind="stable")
    embeddings, by, other = embeddings[order], by[order], other[order]
    gained = {}
    for done, number in enumerate(sample.tolist(), start=1):
        is_its = by == number
        gained[number] = embeddings[is_its][greedy_cover(embeddings[is_its], other[is_its], enough + ROUNDING)]
        if on_progress is not None:
            on_progress(done, 2 * len(sample))
    cosines = {position: cosine for part in shards.cosines(whole, gained) for position, cosine in part.items()}
    positions = np.array(sorted(cosines))
    cosine = np.stack([cosines[position] for position in positions.tolist()])
    if on_progress is not None:
        on_progress(2 * len(sample), 2 * len(sample))
    n_unique = np.count_nonzero(cosine < enough, axis=1)
    return HeldOut(
        covering_radius, distance_of_cosine(cosine), n_unique, positions if len(positions) < len(images) else None
    )
