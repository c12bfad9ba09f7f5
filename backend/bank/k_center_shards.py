"""Exact greedy k-center over embeddings that lie in shards: each offers its farthest, and one coordinator picks.

The picks are those of `k_center_greedy`, up to the order of points whose distances differ by less than float error.
Nothing here knows where a shard lives: it may be an object of this process, or one at the other end of a network.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings

Cosines = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# The points that a shard works on at once, as the pools of one process.
_MIN_POOL, _MAX_POOL = 1024, 16384
# Picks that a pool is compared with at once, after which covered points leave it.
_BLOCK_PICKS = 256
# Points that a shard offers at most in one round: 0.8 MB of 384 float32 numbers.
_MOST_OFFERED = 512
_BLOCK_ROWS = 16384


class Outside(NamedTuple):
    """The farthest that a point may be that is not offered: `cosine` to its nearest pick, and not before `row`."""

    cosine: float
    row: int

    def is_beaten_by(self, cosine: Cosines, row: Rows) -> npt.NDArray[np.bool_]:
        """Whether the greedy takes these points first: they are farther, or as far and before."""
        return np.asarray((cosine < self.cosine) | ((cosine == self.cosine) & (row < self.row)))


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
    """Some of the embeddings. What it knows beside them is a cache of bounds, which picks bring back.

    Args:
        embeddings: float32 [n, D], L2-normalised, at least one.
        rows: int64 [n], where each lies among all embeddings, rising.
    """

    def __init__(self, embeddings: Embeddings, rows: Rows) -> None:
        self._embeddings = embeddings
        self._rows = rows
        self._n_picks = 0
        self._pick_buffer = np.empty((_BLOCK_PICKS, embeddings.shape[1]), np.float32)
        self._cosine = np.full(len(embeddings), -np.inf, np.float32)
        self._seen = np.zeros(len(embeddings), np.int32)

    def total(self) -> tuple[npt.NDArray[np.float64], int]:
        """Sum of the embeddings, float64 [D], and how many they are."""
        total = np.zeros(self._embeddings.shape[1])
        for start in range(0, len(self._embeddings), _BLOCK_ROWS):
            block = self._embeddings[start : start + _BLOCK_ROWS]
            total += np.ones(len(block), np.float32) @ block
        return total, len(self._embeddings)

    def nearest(self, vector: Embeddings) -> Nearest:
        """The embedding of the greatest product with float32 [D]; of equal ones the first."""
        products = self._embeddings @ vector
        best = int(np.argmax(products))
        return Nearest(float(products[best]), int(self._rows[best]), self._embeddings[best].copy())

    def offer(self, first: int, picks: Picked) -> Offer | Lacking:
        """Take picks, and offer the farthest points.

        Args:
            first: number of the first of these picks, of all.
            picks: those made since the offer before; at least one in all.

        Returns:
            At least one point, unless each is a pick; or that earlier picks are lacking, and nothing was done.
        """
        if first > self._n_picks:
            return Lacking(self._n_picks)
        self._take(Picked(picks.rows[self._n_picks - first :], picks.embeddings[self._n_picks - first :]))
        while True:
            pool, outside = self._farthest()
            self._compare(pool, outside)
            is_far = outside.is_beaten_by(self._cosine[pool], self._rows[pool]) & np.isfinite(self._cosine[pool])
            if is_far.any() or outside.cosine == np.inf:
                return self._offered(pool[is_far], outside)

    def _take(self, picks: Picked) -> None:
        n_before, self._n_picks = self._n_picks, self._n_picks + len(picks.rows)
        while len(self._pick_buffer) < self._n_picks:
            self._pick_buffer = np.concatenate([self._pick_buffer, np.empty_like(self._pick_buffer)])
        self._pick_buffer[n_before : self._n_picks] = picks.embeddings
        if not n_before:
            self._compare_all_with_the_first()
        positions = np.searchsorted(self._rows, picks.rows).clip(max=len(self._rows) - 1)
        own = positions[self._rows[positions] == picks.rows]
        self._cosine[own], self._seen[own] = np.inf, np.iinfo(np.int32).max

    def _compare_all_with_the_first(self) -> None:
        for start in range(0, len(self._embeddings), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            self._cosine[rows] = self._embeddings[rows] @ self._pick_buffer[0]
        self._seen[:] = 1

    def _farthest(self) -> tuple[Rows, Outside]:
        """A pool of the points of the greatest bounds, and the bound of the rest."""
        n_points = len(self._cosine)
        n_pool = min(max(n_points // 16, _MIN_POOL), _MAX_POOL)
        if n_pool >= n_points:
            return np.arange(n_points), NOTHING_OUTSIDE
        level = np.partition(self._cosine, n_pool - 1)[n_pool - 1]
        pool = np.flatnonzero(self._cosine <= level)
        outside = Outside(float(level), int(self._rows[-1]) + 1)
        n_excess = len(pool) - n_pool
        if n_excess:  # of points that are equally far the first are in the pool
            outside = Outside(float(level), int(self._rows[pool[self._cosine[pool] == level][-n_excess]]))
            pool = pool[outside.is_beaten_by(self._cosine[pool], self._rows[pool])]
        return pool, outside

    def _compare(self, pool: Rows, outside: Outside) -> None:
        """Compare the pool with the picks it has missed, except points that turn out to be covered."""
        n_picks = self._n_picks
        rows = pool[self._seen[pool] < n_picks]
        rows = rows[np.argsort(self._seen[rows], kind="stable")]
        while len(rows):
            first = int(self._seen[rows[0]])
            last = min(first + _BLOCK_PICKS, n_picks)
            behind = rows[: np.searchsorted(self._seen[rows], last)]
            products = self._pick_buffer[first:last] @ self._embeddings[behind].T
            self._cosine[behind] = np.maximum(self._cosine[behind], products.max(axis=0))
            self._seen[behind] = last
            rows = rows[(self._cosine[rows] <= outside.cosine) & (self._seen[rows] < n_picks)]

    def _offered(self, far: Rows, outside: Outside) -> Offer:
        order = np.lexsort((self._rows[far], self._cosine[far]))
        if len(far) > _MOST_OFFERED:
            beyond = far[order[_MOST_OFFERED]]
            outside = Outside(float(self._cosine[beyond]), int(self._rows[beyond]))
        far = far[order[:_MOST_OFFERED]]
        return Offer(self._rows[far], self._embeddings[far], self._cosine[far], outside)


class Shards(Protocol):
    """All shards, wherever they are. Each call asks all of them at once, and gives their answers in their order."""

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
