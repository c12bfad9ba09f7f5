"""Exact greedy k-center over embeddings in shards: each shard offers its farthest, and one coordinator picks.

The picks are those of `k_center_greedy`, up to the order of points whose distances differ by less than float error.
Nothing here knows where a shard is: it may be an object of this process, or one at the other end of a network.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings
from backend.patchcore import LazyBounds, Outside, sums_of_blocks

Cosines = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# Points that a shard offers at most in one round: 0.8 MB of 384 float32 numbers.
_MOST_OFFERED = 512
_FEWEST_KEPT = 256
NOTHING_OUTSIDE = Outside(np.inf, np.iinfo(np.int64).max)


class Offer(NamedTuple):
    """The farthest points of a shard.

    Attributes:
        rows: int64 [n], of all embeddings, of which the shard has some.
        embeddings: float32 [n, D].
        cosine: float32 [n], to the nearest pick, exact.
        outside: what the rest of the shard is not farther than.
    """

    rows: Rows
    embeddings: Embeddings
    cosine: Cosines
    outside: Outside


class Lacking(NamedTuple):
    """That a shard was restarted, or missed picks: it knows the first `n_known` and needs those after them."""

    n_known: int


class Nearest(NamedTuple):
    """The point of a shard that is nearest to a vector: its cosine, its row of all embeddings, and itself."""

    cosine: float
    row: int
    embedding: Embeddings


class Picked(NamedTuple):
    """Points that were picked.

    Attributes:
        rows: int64 [n], of all embeddings, in the order of selection.
        embeddings: float32 [n, D].
    """

    rows: Rows
    embeddings: Embeddings


class Shard:
    """Some of the embeddings. All else that it knows is a cache of bounds, which the picks restore.

    Args:
        embeddings: float32 [n, D], L2-normalised, at least one.
        rows: int64 [n], the row of each among all embeddings, rising.
    """

    def __init__(self, embeddings: Embeddings, rows: Rows) -> None:
        self._embeddings = embeddings
        self._rows = rows
        self._bounds = LazyBounds(embeddings)
        self._n_left = len(embeddings)
        self._n_picks = 0
        self._picks = np.empty((_FEWEST_KEPT, embeddings.shape[1]), np.float32)

    def total(self) -> tuple[npt.NDArray[np.float64], int]:
        """Sum of the embeddings, float64 [D], and their number."""
        total = np.zeros(self._embeddings.shape[1])
        for block in sums_of_blocks(self._embeddings):
            total += block
        return total, len(self._embeddings)

    def nearest(self, vector: Embeddings) -> Nearest:
        """The embedding with the greatest product with float32 [D]; the first of equal ones."""
        products = self._embeddings @ vector
        best = int(np.argmax(products))
        return Nearest(float(products[best]), int(self._rows[best]), self._embeddings[best].copy())

    def offer(self, first: int, picks: Picked) -> Offer | Lacking:
        """Take picks, and offer the farthest points.

        Args:
            first: number of the first of these picks, among all.
            picks: those made since the previous offer; at least one in all.

        Returns:
            At least one point, unless each is a pick; or that earlier picks are lacking, and nothing was done.
        """
        if first > self._n_picks:
            return Lacking(self._n_picks)
        n_known = self._n_picks - first
        self._take(Picked(picks.rows[n_known:], picks.embeddings[n_known:]))
        while self._n_left:
            pool, outside = self._bounds.farthest(self._n_left)
            if len(pool) == self._n_left:
                outside = NOTHING_OUTSIDE
            for _ in self._bounds.compare(pool, outside, self._n_picks, self._picks.__getitem__):
                pass
            far = pool[outside.is_beaten_by(self._bounds.cosine[pool], pool)]
            if len(far):
                return self._offered(far, outside)
        return self._offered(np.empty(0, np.int64), NOTHING_OUTSIDE)

    def _take(self, picks: Picked) -> None:
        n_before, self._n_picks = self._n_picks, self._n_picks + len(picks.rows)
        while len(self._picks) < self._n_picks:
            self._picks = np.concatenate([self._picks, np.empty_like(self._picks)])
        self._picks[n_before : self._n_picks] = picks.embeddings
        if not n_before:
            for _ in self._bounds.compare_all(self._picks[0]):
                pass
        positions = np.searchsorted(self._rows, picks.rows).clip(max=len(self._rows) - 1)
        own = positions[self._rows[positions] == picks.rows]
        self._bounds.cosine[own] = np.inf
        self._n_left -= len(own)

    def _offered(self, far: Rows, outside: Outside) -> Offer:
        cosine = self._bounds.cosine[far]
        order = np.lexsort((far, cosine))
        if len(far) > _MOST_OFFERED:
            beyond = order[_MOST_OFFERED]
            outside = Outside(float(cosine[beyond]), int(far[beyond]))
        if outside.cosine < np.inf:
            is_own = outside.row < len(self._rows)
            outside = Outside(outside.cosine, int(self._rows[outside.row] if is_own else self._rows[-1] + 1))
        far, cosine = far[order[:_MOST_OFFERED]], cosine[order[:_MOST_OFFERED]]
        return Offer(self._rows[far], self._embeddings[far], cosine, outside)


class Shards(Protocol):
    """All shards, wherever they are. Each call asks all of them at once, and returns the answers in their order."""

    def totals(self) -> Sequence[tuple[npt.NDArray[np.float64], int]]:
        """See `Shard.total`."""
        ...

    def nearest(self, vector: Embeddings) -> Sequence[Nearest]:
        """See `Shard.nearest`."""
        ...

    def offers(self, first: int, picks: Picked, of: Sequence[int]) -> Sequence[Offer | Lacking]:
        """See `Shard.offer`, of the shards of these numbers."""
        ...


class LocalShards:
    """Shards of this process.

    Args:
        shards: at least one.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)

    def totals(self) -> list[tuple[npt.NDArray[np.float64], int]]:
        """See `Shards`."""
        return [shard.total() for shard in self.shards]

    def nearest(self, vector: Embeddings) -> list[Nearest]:
        """See `Shards`."""
        return [shard.nearest(vector) for shard in self.shards]

    def offers(self, first: int, picks: Picked, of: Sequence[int]) -> list[Offer | Lacking]:
        """See `Shards`."""
        return [self.shards[number].offer(first, picks) for number in of]


def select(shards: Shards, n_select: int, on_progress: Callable[[int, int], None] | None = None) -> Picked:
    """Select as `k_center_greedy` selects from all embeddings of the shards.

    A round asks every shard for its farthest points. The coordinator runs the plain greedy on all that are offered, as
    long as its next pick is farther than whatever is not offered. At least one pick is made in a round: the farthest
    point of all is offered by its shard, with its exact distance.

    Args:
        shards: of all embeddings.
        n_select: how many, from 1 to the number of embeddings.
        on_progress: called with (selected, n_select) as the selection grows.
    """
    totals = shards.totals()
    mean = np.sum([total for total, _ in totals], axis=0) / sum(count for _, count in totals)
    first = min(shards.nearest(mean.astype(np.float32)), key=lambda found: (-found.cosine, found.row))
    picks = Picked(np.empty(n_select, np.int64), np.empty((n_select, len(first.embedding)), np.float32))
    picks.rows[0], picks.embeddings[0] = first.row, first.embedding
    n_picked, n_told = 1, 0
    while n_picked < n_select:
        offers = _offers(shards, _some(picks, 0, n_picked), n_told, len(totals))
        n_told = n_picked
        n_picked = _pick(offers, picks, n_picked)
        if on_progress is not None:
            on_progress(n_picked, n_select)
    return picks


def _some(picks: Picked, first: int, end: int) -> Picked:
    return Picked(picks.rows[first:end], picks.embeddings[first:end])


def _offers(shards: Shards, picks: Picked, n_told: int, n_shards: int) -> list[Offer]:
    """An offer of every shard; those that were restarted are told all that they lack."""
    found: dict[int, Offer] = {}
    first_by_shard = dict.fromkeys(range(n_shards), n_told)
    while first_by_shard:
        first = min(first_by_shard.values())
        of = [number for number, wanted in first_by_shard.items() if wanted == first]
        for number, answer in zip(of, shards.offers(first, _some(picks, first, len(picks.rows)), of), strict=True):
            if isinstance(answer, Lacking):
                first_by_shard[number] = answer.n_known
            else:
                found[number] = answer
                del first_by_shard[number]
    return [found[number] for number in range(n_shards)]


def _pick(offers: Sequence[Offer], picks: Picked, n_picked: int) -> int:
    """The plain greedy on what is offered, as long as it is farther than the rest; how many are picked then."""
    outside = min((offer.outside for offer in offers), key=lambda bound: (bound.cosine, bound.row))
    rows = np.concatenate([offer.rows for offer in offers])
    cosine = np.concatenate([offer.cosine for offer in offers])
    embeddings = np.concatenate([offer.embeddings for offer in offers])
    may_be = np.flatnonzero(outside.is_beaten_by(cosine, rows))
    may_be = may_be[np.argsort(rows[may_be])]  # of equally far points the first row comes first
    rows, cosine, embeddings = rows[may_be], cosine[may_be], embeddings[may_be]
    while len(rows) and n_picked < len(picks.rows):
        farthest = int(np.argmin(cosine))
        if cosine[farthest] == np.inf or not outside.is_beaten_by(cosine[farthest], rows[farthest]):
            break
        picks.rows[n_picked], picks.embeddings[n_picked] = rows[farthest], embeddings[farthest]
        n_picked += 1
        np.maximum(cosine, np.vecdot(embeddings, embeddings[farthest]), out=cosine)
        cosine[farthest] = np.inf
    return n_picked
