"""A memory bank for each of several blocks of the network, with statistics of good patches that landed on its patches.

The distance of a patch is the mean over the blocks of its distance to the nearest patch of a bank, minus the excess
radius of that patch: how much farther than average the patches of other good images land on it. So places that vary
from part to part count less, and places that never vary count more. Distances relative to the usual ones nearby are
from Breunig et al., *LOF: Identifying Density-Based Local Outliers*, SIGMOD 2000. ``docs/accuracy.md`` has the
measurements.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings
from backend.patchcore import NearestNeighbourIndex, PatchCoreMemory

# Landings that a radius is shrunk by towards the mean of all: a patch on which few have landed tells little of itself.
PSEUDO_LANDINGS = 30


@dataclass(frozen=True)
class Landings:
    """Landings of patches of other good images: the nearest patch of a bank, and its distance.

    Attributes:
        count: int64 [M], how many landed on each embedding of a bank.
        total: float64 [M], the sum of their distances to it.
    """

    count: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: npt.NDArray[np.int64], distances: npt.NDArray[np.float32], n_bank: int) -> "Landings":
        """Count landings.

        Args:
            rows: int64 [N], the embedding on which each patch landed.
            distances: float32 [N], its distance.
            n_bank: embeddings in the bank.
        """
        count = np.bincount(rows, minlength=n_bank).astype(np.int64)
        return cls(count, np.bincount(rows, weights=distances, minlength=n_bank).astype(np.float64))

    @classmethod
    def none(cls, n_bank: int) -> "Landings":
        """The landings of a bank of so many embeddings, without any yet."""
        return cls(np.zeros(n_bank, np.int64), np.zeros(n_bank))

    def without(self, others: "Landings") -> "Landings":
        """The landings without some of them."""
        return Landings(self.count - others.count, self.total - others.total)

    def plus(self, others: "Landings") -> "Landings":
        """The sum of both; `others` may be of an extended bank."""
        n_new = len(others.count) - len(self.count)
        return Landings(
            np.pad(self.count, (0, n_new)) + others.count,
            np.pad(self.total, (0, n_new)) + others.total,
        )

    def excess_radii(self) -> npt.NDArray[np.float32]:
        """How much farther than average patches landed on each embedding, shrunk towards 0: float32 [M]."""
        landed = int(self.count.sum())
        mean = float(self.total.sum()) / landed if landed else 0.0
        excess = (self.total - mean * self.count) / (self.count + PSEUDO_LANDINGS)
        return excess.astype(np.float32)


@dataclass(frozen=True)
class BlockMemory:
    """Memory banks of one ROI, of several blocks of the network.

    Attributes:
        banks: of each block, from the first to the last; on one token grid.
        landings: of each bank.
    """

    banks: tuple[PatchCoreMemory, ...]
    landings: tuple[Landings, ...]

    @property
    def nbytes(self) -> int:
        """Of all embeddings."""
        return sum(bank.nbytes for bank in self.banks)

    @property
    def embeddings(self) -> Embeddings:
        """Of the last block: float32 [M, D], L2-normalised."""
        return self.banks[-1].embeddings

    @property
    def patches(self) -> npt.NDArray[np.int64] | None:
        """Where the embeddings of the last block come from, see `PatchCoreMemory`."""
        return self.banks[-1].patches

    @property
    def index(self) -> NearestNeighbourIndex:
        """Search over the embeddings of the last block."""
        return self.banks[-1].index

    @property
    def token_hw(self) -> tuple[int, int]:
        """Token grid (rows, columns)."""
        return self.banks[-1].token_hw

    @property
    def dim(self) -> int:
        """Length of a comparable embedding: those of all blocks, side by side."""
        return sum(bank.dim for bank in self.banks)

    def distances(self, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        """Mean over the blocks of the distance to the nearest embedding, minus its excess radius.

        Args:
            embeddings: float32 [N, blocks * D], of the blocks side by side, not necessarily normalised.

        Returns:
            float32 [N], in the units of distances on the unit sphere; below 0 in rare cases.
        """
        corrected = np.zeros(len(embeddings), np.float32)
        parts = block_parts(embeddings, len(self.banks))
        for part, bank, radii in zip(parts, self.banks, self._excess_radii, strict=True):
            distances, rows = bank.nearest(part)
            corrected += distances - radii[rows]
        return corrected / np.float32(len(self.banks))

    @cached_property
    def _excess_radii(self) -> list[npt.NDArray[np.float32]]:
        return [landings.excess_radii() for landings in self.landings]


def block_parts(embeddings: Embeddings, n_blocks: int) -> list[Embeddings]:
    """The embeddings of each block: views of float32 [N, n_blocks * D]."""
    dim = embeddings.shape[1] // n_blocks
    return [embeddings[:, number * dim : (number + 1) * dim] for number in range(n_blocks)]


Memory = PatchCoreMemory | BlockMemory


def build_banks(
    embeddings: Embeddings,
    n_blocks: int,
    token_hw: tuple[int, int],
    coreset_rate: float,
    on_progress: Callable[[int, int], None] | None = None,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    n_different: int | None = None,
    places: npt.NDArray[np.int64] | None = None,
) -> tuple[PatchCoreMemory, ...]:
    """A bank for each block; see `PatchCoreMemory.build`.

    Args:
        embeddings: float32 [N, n_blocks * D] of all images, of the blocks side by side; normalised in place.
        n_blocks: how many blocks.
        token_hw, coreset_rate, turn, n_different, places: as for `PatchCoreMemory.build`.
        on_progress: called with (selected, all that are to be selected), over all blocks.
    """
    banks = []
    for number, part in enumerate(block_parts(embeddings, n_blocks)):
        report = None if on_progress is None else _over_blocks(on_progress, number, n_blocks)
        banks.append(PatchCoreMemory.build(part, token_hw, coreset_rate, report, turn, n_different, places))
    return tuple(banks)


def _over_blocks(on_progress: Callable[[int, int], None], number: int, n_blocks: int) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(number * total + done, n_blocks * total)
