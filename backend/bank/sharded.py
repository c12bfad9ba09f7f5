"""A memory bank from embeddings in shards: the same as `build_bank` selects from all of them in one process.

A shard has the embeddings of some images. It answers questions, and a coordinator selects and compares. Nothing here
knows where a shard is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backend.bank.block_bank import compare_blocks
from backend.bank.building import Bank, bank_of_blocks, compare_with_others
from backend.bank.k_center_shards import Lacking, Nearest, Offer, Picked, Shard, select
from backend.bank.patches import Cosines, Covered, Landed, LocalPatches, NearestByImage, Rows, Turn, join_covered
from backend.common.arrays import Embeddings
from backend.common.telemetry import OnProgress
from backend.patchcore import PatchCoreMemory, coreset_size


class FitShard:
    """The embeddings of some images of a fit, which follow one another.

    Args:
        parts: float32 [n * per_image, D] of each block, L2-normalised.
        first: position of the first image in the fit.
        images: int64 [n], a number for each image; copies of one have the same in all shards.
    """

    def __init__(self, parts: Sequence[Embeddings], first: int, images: Rows) -> None:
        per_image = len(parts[0]) // len(images)
        rows = first * per_image + np.arange(len(parts[0]))
        self._answering: list[tuple[Shard, LocalPatches]] = [
            (Shard(part, rows), LocalPatches(part, images)) for part in parts
        ]

    def ask(self, method: str, block: int, *arguments: Any) -> Any:
        """The answer of a shard.

        Args:
            method: of `Shard` or `LocalPatches`; rows for the latter count within this shard.
            block: number of the block, from 0.
            arguments: of the method.
        """
        shard, patches = self._answering[block]
        return getattr(shard if hasattr(shard, method) else patches, method)(*arguments)


class AskShards(Protocol):
    """Asks some shards at once."""

    def __call__(self, method: str, block: int, arguments: Mapping[int, tuple[Any, ...]]) -> Mapping[int, Any]:
        """The answers, by number of the shard.

        Args:
            method, block: see `FitShard.ask`.
            arguments: by number of the shard.
        """
        ...


class ShardedBlock:
    """The embeddings of one block in shards: the `Shards` of a selection, and the `Patches` of comparisons.

    Args:
        ask: asks the shards.
        block: its number, from 0.
        images: see `Patches`.
        per_image: patches of an image.
        cuts: positions in the fit of the first image of each shard, and the number of all images.
        turn: see `Patches`.
    """

    def __init__(
        self, ask: AskShards, block: int, images: Rows, per_image: int, cuts: Sequence[int], turn: Turn = nullcontext
    ) -> None:
        self.images, self.per_image, self.turn = images, per_image, turn
        self._ask, self._block = ask, block
        self._first_rows = np.array(cuts[:-1]) * per_image
        self._n_shards = len(cuts) - 1

    def totals(self) -> list[tuple[npt.NDArray[np.float64], int]]:
        """See `Shards`."""
        return self._all("total")

    def nearest(self, vector: Embeddings) -> list[Nearest]:
        """See `Shards`."""
        return self._all("nearest", vector)

    def offers(self, first: int, picks: Picked, of: Sequence[int]) -> list[Offer | Lacking]:
        """See `Shards`."""
        answers = self._ask("offer", self._block, dict.fromkeys(of, (first, picks)))
        return [answers[number] for number in of]

    def nearest_by_image(self, bank: Embeddings, owner: Rows) -> NearestByImage:
        """See `Patches`."""
        parts = self._all("nearest_by_image", bank, owner)
        nearest, cosine, other = (np.concatenate(values) for values in zip(*parts, strict=True))
        return NearestByImage(nearest, cosine, other)

    def covered_by_one(self, bank: Embeddings, owner: Rows, sample: Rows, enough: np.float32) -> Covered:
        """See `Patches`."""
        parts = self._all("covered_by_one", bank, owner, sample, enough)
        firsts = self._first_rows.tolist()
        return join_covered([part._replace(rows=part.rows + first) for part, first in zip(parts, firsts, strict=True)])

    def land(self, bank: Embeddings, owner: Rows, rows: Rows) -> Landed:
        """See `Patches`."""
        parts = self._of_rows("land", rows, bank, owner)
        return Landed(np.concatenate([part.rows for part in parts]), np.concatenate([part.cosine for part in parts]))

    def take(self, rows: Rows) -> Embeddings:
        """See `Patches`."""
        return np.concatenate(self._of_rows("take", rows))

    def cosine_to(self, vectors: Embeddings, rows: Rows) -> Cosines:
        """See `Patches`."""
        return np.concatenate(self._of_rows("cosine_to", rows, vectors))

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        with self.turn():
            answers = self._ask(method, self._block, dict.fromkeys(range(self._n_shards), arguments))
        return [answers[number] for number in range(self._n_shards)]

    def _of_rows(self, method: str, rows: Rows, *arguments: Any) -> list[Any]:
        """The answers about some rows, rising, in their order; rows are the last argument of the method."""
        ends = np.searchsorted(rows, self._first_rows[1:])
        calls = {
            number: (*arguments, rows[start:end] - self._first_rows[number])
            for number, (start, end) in enumerate(pairwise([0, *ends.tolist(), len(rows)]))
            if start < end
        }
        with self.turn():
            answers = self._ask(method, self._block, calls)
        return [answers[number] for number in sorted(answers)]


def bank_of_shards(
    blocks: Sequence[ShardedBlock],
    token_hw: tuple[int, int],
    coreset_rate: float,
    on_progress: OnProgress,
    places: Rows | None = None,
) -> Bank:
    """Select the memory bank, and compare each image with that of the others, as `build_bank` does.

    Args:
        blocks: of the network, each in the same shards.
        token_hw, on_progress, places: see `build_bank`.
        coreset_rate: share to keep, below 1.
    """
    images, per_image = blocks[0].images, blocks[0].per_image
    n_select = coreset_size(len(np.unique(images)) * per_image, coreset_rate)
    banks = []
    for number, block in enumerate(blocks):
        picked = select(block, n_select, _over_blocks(on_progress, number, len(blocks)))
        banks.append(PatchCoreMemory.of_picks(picked.embeddings, picked.rows, token_hw, places))
    if len(blocks) == 1:
        return compare_with_others(blocks[0], banks[0], None, (), places, on_progress)
    return bank_of_blocks(*compare_blocks(blocks, banks, None, (), on_progress), len(images), places, token_hw)


def _over_blocks(on_progress: OnProgress, number: int, n_blocks: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        on_progress("coreset", number * total + done, n_blocks * total)

    return report
