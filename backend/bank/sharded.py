"""A memory bank from embeddings in shards: the same as `build_bank` selects from all of them in one process.

A shard has the embeddings of some images. It answers questions, and a coordinator selects and compares. Nothing here
knows where a shard is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backend.bank.block_bank import compare_blocks
from backend.bank.building import Bank, bank_of_blocks, compare_with_others
from backend.bank.k_center_shards import Lacking, Nearest, Offer, Picked, Shard, select
from backend.bank.leave_one_out import farthest_distance, last_distance
from backend.bank.patches import Cosines, Covered, Landed, LocalPatches, NearestByImage, Rows, Turn, join_covered
from backend.bank.two_rounds import KeptShard, Pieces
from backend.common.arrays import Embeddings
from backend.common.telemetry import OnProgress
from backend.patchcore import PatchCoreMemory, coreset_size, distance_of_cosine

_MOST_DISTANCE = 2.0  # of unit vectors


class FitShard:
    """The embeddings of some images of a fit, which follow one another.

    Args:
        parts: float32 [n * per_image, D] of each block, L2-normalised; on a disk, if `pieces` are given.
        first: position of the first image in the fit.
        images: int64 [n], a number for each image; copies of one have the same in all shards.
        pieces: of round one, if the selection has two rounds; None is one round.
    """

    def __init__(self, parts: Sequence[Embeddings], first: int, images: Rows, pieces: Pieces | None = None) -> None:
        self._parts, self._pieces = parts, pieces
        self._first_row = first * (len(parts[0]) // len(images))
        self._patches = [LocalPatches(part, images) for part in parts]
        self._shards: list[Shard] = []
        self._kept: tuple[int, KeptShard] | None = None
        if pieces is None:
            rows = self._first_row + np.arange(len(parts[0]))
            self._shards = [Shard(part, rows) for part in parts]

    def ask(self, method: str, block: int, *arguments: Any) -> Any:
        """The answer of a shard.

        Args:
            method: of `Shard`, `KeptShard` or `LocalPatches`; rows for the latter count within this shard.
            block: number of the block, from 0.
            arguments: of the method.
        """
        return getattr(self._answering(method, block), method)(*arguments)

    def _answering(self, method: str, block: int) -> Shard | KeptShard | LocalPatches:
        if hasattr(LocalPatches, method):
            return self._patches[block]
        if self._pieces is None:
            return self._shards[block]
        if self._kept is None or self._kept[0] != block:  # of one block at a time, to save memory
            self._kept = block, KeptShard(self._parts[block], self._first_row, self._pieces)
        kept = self._kept[1]
        return kept if hasattr(KeptShard, method) else kept.shard()


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

    Attributes:
        kept_radius: the distance, 0..2, within which what `keep` kept covers all embeddings.
    """

    def __init__(
        self, ask: AskShards, block: int, images: Rows, per_image: int, cuts: Sequence[int], turn: Turn = nullcontext
    ) -> None:
        self.images, self.per_image, self.turn = images, per_image, turn
        self._ask, self._block = ask, block
        self._first_rows = np.array(cuts[:-1]) * per_image
        self._n_images = np.diff(cuts).tolist()
        self._n_shards = len(cuts) - 1
        self.kept_radius = 0.0

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

    def n_kept(self, pieces: Pieces) -> int:
        """How many embeddings `keep` keeps of all shards."""
        return sum(map(pieces.n_kept_of, self._n_images))

    def keep(self, pieces: Pieces) -> Iterator[int]:
        """Let the shards keep some embeddings of one piece after the other; see `KeptShard.keep`.

        Yields:
            How many embeddings are kept so far.
        """
        counts, n_kept = list(map(pieces.count, self._n_images)), 0
        for piece in range(max(counts)):
            of = [number for number, count in enumerate(counts) if piece < count]
            with self.turn():
                radii = self._ask("keep", self._block, dict.fromkeys(of, (piece,)))
            self.kept_radius = max(self.kept_radius, *radii.values())
            n_kept += sum(pieces.n_kept(piece, self._n_images[number]) for number in of)
            yield n_kept

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

    def least_cosine(self, bank: Embeddings) -> np.float32:
        """See `Patches`."""
        return np.float32(min(self._all("least_cosine", bank)))

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
    pieces: Pieces | None = None,
) -> Bank:
    """Select the memory bank, and compare each image with that of the others, as `build_bank` does.

    Args:
        blocks: of the network, each in the same shards.
        token_hw, on_progress, places: see `build_bank`.
        coreset_rate: share to keep, below 1.
        pieces: of round one, as the shards have them, if the selection has two rounds.
    """
    images, per_image = blocks[0].images, blocks[0].per_image
    n_select = n_selected(images, per_image, coreset_rate)
    banks, bounds = [], []
    for number, block in enumerate(blocks):
        report = _over_blocks(on_progress, number, len(blocks))
        if pieces is None:
            picked = select(block, n_select, report)
        else:
            picked, bound = select_in_two_rounds(block, n_select, pieces, report)
            bounds.append(bound)
        banks.append(PatchCoreMemory.of_picks(picked.embeddings, picked.rows, token_hw, places))
    radius_of = last_distance if pieces is None else farthest_distance
    if len(blocks) == 1:
        bank = compare_with_others(blocks[0], banks[0], None, (), places, on_progress, radius_of)
    else:
        compared = compare_blocks(blocks, banks, None, (), on_progress, radius_of)
        bank = bank_of_blocks(*compared, len(images), places, token_hw)
    return replace(bank, radius_bounds=bounds or None)


def n_selected(images: Rows, per_image: int, coreset_rate: float) -> int:
    """How many embeddings of each block a memory bank keeps.

    Args:
        images, per_image: see `Patches`; copies of an image do not count.
        coreset_rate: share to keep.
    """
    return coreset_size(len(np.unique(images)) * per_image, coreset_rate)


def select_in_two_rounds(
    block: ShardedBlock, n_select: int, pieces: Pieces, on_progress: Callable[[int, int], None]
) -> tuple[Picked, float]:
    """Select among what the shards keep of their pieces; see `two_rounds`.

    Args:
        block: in shards that have the same `pieces`.
        n_select: how many, from 1 to the number of embeddings.
        pieces: of round one.
        on_progress: called with (embeddings kept or selected so far, all that will be kept or selected).

    Returns:
        What is selected, and the distance, 0..2, within which it covers all embeddings at most.
    """
    n_kept = block.n_kept(pieces)
    for done in block.keep(pieces):
        on_progress(done, n_kept + n_select)
    n_picks = min(n_select + 1, n_kept)  # the distance of one more pick is the radius of those before it
    picks = select(block, n_picks, lambda done, _: on_progress(n_kept + min(done, n_select), n_kept + n_select))
    picked = Picked(picks.rows[:n_select], picks.embeddings[:n_select])
    beyond = picks.embeddings[n_select:]
    radius = float(distance_of_cosine((beyond @ picked.embeddings.T).max())) if len(beyond) else 0.0
    return picked, min(block.kept_radius + radius, _MOST_DISTANCE)


def _over_blocks(on_progress: OnProgress, number: int, n_blocks: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        on_progress("coreset", number * total + done, n_blocks * total)

    return report
