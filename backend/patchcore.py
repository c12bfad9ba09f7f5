"""The memory bank: L2 normalisation, k-center greedy coreset, nearest-neighbour distances.

Roth et al., *Towards Total Recall in Industrial Anomaly Detection* (PatchCore), CVPR 2022, arXiv:2106.08265.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings
from backend.common.errors import Conflict
from backend.common.machine import shared_pool

# Rows of a pass over all embeddings that are worked on at once: 24 MiB of 384 float32 numbers.
_BLOCK_ROWS = 16384
# A pool is a 16th of the embeddings within these limits; the time is flat within a factor of two. The upper limit
# bounds the memory: 24 MiB of 384 float32 numbers, and the product with a block of picks another 16 MiB.
_MIN_POOL, _MAX_POOL = 1024, 16384
# Picks that a pool is compared with at once. After fewer, points that are covered leave sooner; more make better matrix
# products. From 8,000 to 200,000 embeddings and 1 to 10 % picks the time is flat between 96 and 256.
_BLOCK_PICKS = 256
# Covered points stay in the matrix products of their pool until copying the others costs less: until this share.
_COVERED_SHARE = 0.25
# Picks made at once, each by a pass over the pool: up to 1.5 ms.
_PICKS_PER_PIECE = 16
# What a cosine in float32 may be off by, so that a copy of a pick is covered by it.
ROUNDING = np.float32(1e-6)
# A bank of every patch covers its images within the root of what twice that is.
_COPIES_RADIUS = 2e-3
# Comparisons of points with picks when a bank is appended to: about a minute of one core. A hundred images whose every
# fifth patch is new take two fifths of it at most, a hundred that are all new up to ten times as many.
_MOST_APPENDED = 5e8
# Neighbours fetched at first; see `PatchCoreMemory.distances`.
_FETCHED = 4
# Queries a thread searches for at once. FAISS multiplies matrices from some 320 queries on; below, a query costs eight
# times as much.
_SEARCHED_AT_ONCE = 512


def l2_normalize(embeddings: Embeddings) -> Embeddings:
    """Scale every row to unit length; rows of zeros stay zero.

    Args:
        embeddings: float32 [N, D].

    Returns:
        float32 [N, D], a new array.
    """
    norms = np.sqrt(np.vecdot(embeddings, embeddings))[:, None]
    return np.asarray(embeddings / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


def coreset_size(n_embeddings: int, rate: float) -> int:
    """``ceil(rate * n_embeddings)``, at least 1; rounded first so that 0.07 * 100 is 7."""
    return min(n_embeddings, max(1, math.ceil(round(rate * n_embeddings, 6))))


def k_center_greedy(
    embeddings: Embeddings,
    n_select: int,
    on_progress: Callable[[int, int], None] | None = None,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> npt.NDArray[np.int64]:
    """Exact greedy k-center (Sener & Savarese, 2018, arXiv:1708.00489): each pick is farthest from all before.

    Distances are evaluated lazily. A point's distance to the picks it has been compared with is an upper bound of its
    distance to all of them, so only the points of the greatest bounds can be the next picks. Each round takes those as
    its pool, compares them with the picks they have missed, and runs the greedy on them alone as long as its next pick
    is farther than every bound outside the pool. A point that is covered early is never compared with later picks. The
    picks are those of the plain loop, unless distances are equal within float error; of equal distances, the lowest
    index is picked.

    Beside the embeddings it needs 64 MiB at most for D = 384, and some 20 bytes per embedding.

    Args:
        embeddings: float32 [N, D], L2-normalised.
        n_select: how many to select, 1..N.
        on_progress: called with (selected, n_select) as the selection grows.
        turn: entered for every piece of the work and left in between, so that other threads can use its lock meanwhile;
            a piece takes some milliseconds, on two cores less than 100 for a million embeddings.

    Returns:
        int64 [n_select], distinct row indices in the order of selection. The first is the point nearest the mean.
    """
    selection = _Selection(embeddings, n_select)
    pieces = selection.pieces()
    while (n_picked := selection.n_picked) < n_select:
        with turn():
            next(pieces)
        if on_progress is not None and selection.n_picked > n_picked:
            on_progress(selection.n_picked, n_select)
    return selection.picks


class Outside(NamedTuple):
    """A bound for the points outside a pool: at least `cosine` to the nearest pick; if equal, not before `row`."""

    cosine: float
    row: int

    def is_beaten_by(self, cosine: npt.NDArray[np.float32], row: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether the greedy selection takes these points first: they are farther, or equally far and earlier."""
        return np.asarray((cosine < self.cosine) | ((cosine == self.cosine) & (row < self.row)))


class LazyBounds:
    """Upper bounds of the distances of points to the picks: the distance to those that a point was compared with.

    Args:
        embeddings: float32 [N, D], L2-normalised.

    Attributes:
        cosine: float32 [N], to the nearest of the picks that a point has been compared with; inf for the picks.
        seen: int32 [N], how many picks a point has been compared with, in their order.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self.embeddings = embeddings
        self.cosine = np.full(len(embeddings), -np.inf, dtype=np.float32)
        self.seen = np.zeros(len(embeddings), dtype=np.int32)

    def compare_all(self, vector: Embeddings) -> Iterator[None]:
        """Compare every point with one vector, float32 [D], in pieces of bounded work; forgets other comparisons."""
        for rows in _blocks(len(self.embeddings)):
            np.matmul(self.embeddings[rows], vector, out=self.cosine[rows])
            self.seen[rows] = 1
            yield

    def farthest(self, n_left: int) -> tuple[npt.NDArray[np.int64], Outside]:
        """A pool of the points of the greatest bounds, and a bound for the others.

        Args:
            n_left: how many of the points are not picked, at least one.
        """
        n_embeddings = len(self.embeddings)
        n_pool = min(max(n_embeddings // 16, _MIN_POOL), _MAX_POOL, n_left)
        level = np.partition(self.cosine, n_pool - 1)[n_pool - 1]
        pool = np.flatnonzero(self.cosine <= level)
        outside = Outside(float(level), n_embeddings)
        n_excess = len(pool) - n_pool
        if n_excess:
            outside = Outside(float(level), int(pool[self.cosine[pool] == level][-n_excess]))
            pool = pool[outside.is_beaten_by(self.cosine[pool], pool)]
        return pool, outside

    def compare(
        self,
        pool: npt.NDArray[np.int64],
        outside: Outside,
        n_picked: int,
        picked: Callable[[slice], Embeddings],
    ) -> Iterator[None]:
        """Compare a pool with the picks that it has missed, except points that prove to be covered, in pieces.

        Args:
            pool, outside: as `farthest` returned them.
            n_picked: number of picks.
            picked: returns the embeddings of some of them.
        """
        rows = pool[self.seen[pool] < n_picked]
        rows = rows[np.argsort(self.seen[rows], kind="stable")]
        embeddings, cosine, seen = self.embeddings[rows], self.cosine[rows], self.seen[rows]
        yield
        while len(rows) and seen[0] < n_picked:
            missed = slice(seen[0], min(seen[0] + _BLOCK_PICKS, n_picked))
            behind = slice(np.searchsorted(seen, missed.stop))
            products = picked(missed) @ embeddings[behind].T
            np.maximum(cosine[behind], products.max(axis=0), out=cosine[behind])
            seen[behind] = missed.stop
            self.cosine[rows], self.seen[rows] = cosine, seen
            far = np.flatnonzero(cosine <= outside.cosine)
            if len(far) <= (1 - _COVERED_SHARE) * len(rows):
                rows, embeddings, cosine, seen = rows[far], embeddings[far], cosine[far], seen[far]
            yield


class _Selection:
    """A running greedy k-center selection.

    Attributes:
        picks: int64 [n_select], of which the first `n_picked` are made.
        bounds: of the distances of all points.
    """

    def __init__(self, embeddings: Embeddings, n_select: int) -> None:
        self.embeddings = embeddings
        self.picks = np.empty(n_select, dtype=np.int64)
        self.n_picked = 0
        self.bounds = LazyBounds(embeddings)

    def pieces(self) -> Iterator[None]:
        """Make the picks, in pieces of bounded work."""
        yield from self._pick_nearest_the_mean()
        while self.n_picked < len(self.picks):
            pool, outside = self.bounds.farthest(len(self.embeddings) - self.n_picked)
            yield
            yield from self.bounds.compare(pool, outside, self.n_picked, self._picked)
            yield from self._pick(pool, outside)

    def _picked(self, which: slice) -> Embeddings:
        return self.embeddings[self.picks[which]]

    def _pick_nearest_the_mean(self) -> Iterator[None]:
        total = np.zeros(self.embeddings.shape[1])
        for block in sums_of_blocks(self.embeddings):
            total += block
            yield
        yield from self.bounds.compare_all((total / len(self.embeddings)).astype(np.float32))
        self.picks[0] = np.argmax(self.bounds.cosine)
        self.n_picked = 1
        yield from self.bounds.compare_all(self.embeddings[self.picks[0]])
        self.bounds.cosine[self.picks[0]] = np.inf

    def _pick(self, pool: npt.NDArray[np.int64], outside: Outside) -> Iterator[None]:
        """The plain loop on the points of the pool that are farther than every point outside."""
        rows = pool[outside.is_beaten_by(self.bounds.cosine[pool], pool)]
        embeddings, cosine = self.embeddings[rows], self.bounds.cosine[rows]
        while len(rows) and self.n_picked < len(self.picks):
            farthest = int(np.argmin(cosine))
            if not outside.is_beaten_by(cosine[farthest], rows[farthest]):
                break
            self.picks[self.n_picked] = rows[farthest]
            self.n_picked += 1
            np.maximum(cosine, np.vecdot(embeddings, embeddings[farthest]), out=cosine)
            cosine[farthest] = np.inf
            if self.n_picked % _PICKS_PER_PIECE == 0:
                yield
        self.bounds.cosine[rows], self.bounds.seen[rows] = cosine, self.n_picked
        yield


def sums_of_blocks(embeddings: Embeddings) -> Iterator[npt.NDArray[np.float32]]:
    """Sums of some embeddings at a time, float32 [D], which add up to that of all."""
    for rows in _blocks(len(embeddings)):
        block = embeddings[rows]
        yield np.ones(len(block), dtype=np.float32) @ block


def _blocks(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, _BLOCK_ROWS):
        yield slice(start, start + _BLOCK_ROWS)


def greedy_cover(
    embeddings: Embeddings,
    cosine: npt.NDArray[np.float32],
    least_cosine: np.float32,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_progress: Callable[[int, int], None] | None = None,
    most_products: float = np.inf,
) -> npt.NDArray[np.int64]:
    """Continue a greedy k-center selection until every point is near a pick: each pick is farthest from all before.

    Args:
        embeddings: float32 [N, D], L2-normalised, the points that may be picked and must be covered.
        cosine: float32 [N], of each point to the nearest of the picks made before, -1..1, or less for none.
        least_cosine: points of this cosine are near enough.
        turn: see `k_center_greedy`.
        on_progress: called with (points that are now near a pick, all points that were far).
        most_products: how many points may be compared with a pick, over all picks.

    Returns:
        int64 [n], row indices in the order of selection.

    Raises:
        Conflict: more comparisons would be needed.
    """
    picks, products = [], 0
    enough = least_cosine - ROUNDING
    rows = np.flatnonzero(cosine < enough)
    embeddings, cosine, n_far = embeddings[rows], cosine[rows], len(rows)
    while len(rows):
        with turn():
            for _ in range(max(1, _PICKS_PER_PIECE * _MAX_POOL // len(rows))):
                farthest = int(np.argmin(cosine))
                picks.append(rows[farthest])
                products += len(rows)
                np.maximum(cosine, np.vecdot(embeddings, embeddings[farthest]), out=cosine)
                cosine[farthest] = np.inf
                far = np.flatnonzero(cosine < enough)
                if len(far) <= (1 - _COVERED_SHARE) * len(rows):
                    rows, embeddings, cosine = rows[far], embeddings[far], cosine[far]
                    break
        if on_progress is not None:
            on_progress(n_far - len(far), n_far)
        if len(far) and products > most_products:
            raise Conflict(
                "these images differ too much from those of the model, which are nearly identical: appending them "
                "would take minutes and keep most of their patches; fit anew on all images, or append fewer at a time"
            )
    return np.array(picks, dtype=np.int64)


def distance_of_cosine(cosine: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Euclidean distances of unit vectors; near zero the error is up to 5e-4, the root of that of the cosines."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * cosine, 0)), np.float32)


def _in_grid(
    picks: npt.NDArray[np.int64], places: npt.NDArray[np.int64] | None, token_hw: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Rows of embeddings as `PatchCoreMemory.patches` has them: by the place in the token grid, see `build`."""
    if places is None:
        return picks
    image, patch = np.divmod(picks, len(places))
    return np.asarray(image * (token_hw[0] * token_hw[1]) + places[patch])


class NearestNeighbourIndex(Protocol):
    """Finds the memory embeddings nearest to each query; callable from many threads."""

    def nearest(self, queries: Embeddings, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The `k` memory embeddings nearest to each of float32 queries [N, D], as accurate as products in float32.

        Returns:
            squared: float32 [N, k], rising squared distances.
            rows: int64 [N, k], their row numbers in the memory.
        """
        ...


class FaissIndex:
    """Exact search with FAISS ``IndexFlatL2``."""

    def __init__(self, embeddings: Embeddings) -> None:
        import faiss

        self._faiss = faiss
        self._index = faiss.IndexFlatL2(embeddings.shape[1])
        self._index.add(np.ascontiguousarray(embeddings))

    def nearest(self, queries: Embeddings, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """See `NearestNeighbourIndex.nearest`."""
        # FAISS's own threads wait for one another by spinning: where the network of another request runs, they take
        # three times as long as one thread. The setting is the calling thread's.
        self._faiss.omp_set_num_threads(1)
        squared, rows = self._index.search(queries, k)
        return squared, rows

    def serialized(self) -> bytes:
        """The bytes of ``index.faiss``, as ``faiss.write_index`` writes them."""
        return bytes(self._faiss.serialize_index(self._index).tobytes())


class SklearnIndex:
    """Exact search with scikit-learn, for machines without FAISS."""

    def __init__(self, embeddings: Embeddings) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._index: Any = NearestNeighbors(algorithm="brute").fit(embeddings)

    def nearest(self, queries: Embeddings, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """See `NearestNeighbourIndex.nearest`."""
        distances, rows = self._index.kneighbors(queries, k)
        return np.asarray(np.square(distances), np.float32), rows


def build_index(embeddings: Embeddings) -> FaissIndex | SklearnIndex:
    """FAISS when it is installed, else scikit-learn; both exact."""
    try:
        return FaissIndex(embeddings)
    except ImportError:
        return SklearnIndex(embeddings)


@dataclass(frozen=True)
class PatchCoreMemory:
    """The memory bank of one ROI.

    Attributes:
        embeddings: float32 [M, D], L2-normalised.
        token_hw: token grid (rows, columns) of the images it was built from.
        patches: int64 [M], where each embedding comes from: number of the image times patches per image plus place in
            the token grid, row by row; -1 if unknown. None: all are unknown.
        index: nearest-neighbour search over `embeddings`.
    """

    embeddings: Embeddings
    token_hw: tuple[int, int]
    patches: npt.NDArray[np.int64] | None = None
    index: NearestNeighbourIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", build_index(self.embeddings))

    @property
    def dim(self) -> int:
        """Length of a comparable embedding."""
        return int(self.embeddings.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that the embeddings take in memory."""
        return self.embeddings.nbytes

    @classmethod
    def build(
        cls,
        embeddings: Embeddings,
        token_hw: tuple[int, int],
        coreset_rate: float,
        on_progress: Callable[[int, int], None] | None = None,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
        n_different: int | None = None,
        places: npt.NDArray[np.int64] | None = None,
    ) -> "PatchCoreMemory":
        """Normalise, select the coreset, index it. The same embeddings always give the same memory.

        Args:
            embeddings: float32 [N, D] of all images, in order; normalised in place, because a copy may not fit into
                memory.
            token_hw: token grid (rows, columns).
            coreset_rate: share to keep, 0 < rate <= 1; 1 keeps every embedding, in order, and the array itself.
            on_progress: see `k_center_greedy`.
            turn: see `k_center_greedy`.
            n_different: number of embeddings that the rate refers to, if some belong to copies; None is all.
            places: int64 [K], positions in the token grid of the K patches of each image; None is the whole grid.
        """
        for rows in _blocks(len(embeddings)):
            with turn():
                embeddings[rows] = l2_normalize(embeddings[rows])
        if coreset_rate == 1:
            every = _in_grid(np.arange(len(embeddings)), places, token_hw)
            return cls(np.ascontiguousarray(embeddings), token_hw, every)
        n_select = coreset_size(len(embeddings) if n_different is None else n_different, coreset_rate)
        picks = k_center_greedy(embeddings, n_select, on_progress, turn)
        return cls.of_picks(embeddings[picks], picks, token_hw, places)

    @classmethod
    def of_picks(
        cls,
        embeddings: Embeddings,
        picks: npt.NDArray[np.int64],
        token_hw: tuple[int, int],
        places: npt.NDArray[np.int64] | None = None,
    ) -> "PatchCoreMemory":
        """The memory of selected embeddings.

        Args:
            embeddings: float32 [M, D], L2-normalised, in the order of their selection.
            picks: int64 [M], the row of each among the embeddings of all images.
            token_hw, places: see `build`.
        """
        return cls(embeddings, token_hw, _in_grid(picks, places, token_hw))

    def extended(
        self,
        embeddings: Embeddings,
        covering_radius: float,
        n_images: int,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
        on_progress: Callable[[int, int], None] | None = None,
        places: npt.NDArray[np.int64] | None = None,
    ) -> "PatchCoreMemory":
        """The memory, extended by further images until their patches are covered as closely as the previous ones.

        The picks continue a greedy k-center selection. The same number of centres, at any place, cannot cover all
        images (including the previous ones) with less than half of this radius (Gonzalez, 1985).

        Args:
            embeddings: float32 [N, D] of the further images, in order; normalised in place.
            covering_radius: distance, 0..2, within which the memory covers the images that it was built from.
            n_images: number of these images, if known.
            turn: see `k_center_greedy`.
            on_progress: see `greedy_cover`.
            places: see `build`.

        Raises:
            Conflict: so much is missing that it would take minutes.
        """
        for rows in _blocks(len(embeddings)):
            with turn():
                embeddings[rows] = l2_normalize(embeddings[rows])
        per_image = self.token_hw[0] * self.token_hw[1]
        cosine = np.empty(len(embeddings), np.float32)
        for start in range(0, len(embeddings), per_image):
            with turn():
                rows = slice(start, start + per_image)
                cosine[rows] = 1 - self.distances(embeddings[rows]) ** 2 / 2
        if covering_radius < _COPIES_RADIUS:
            picks = np.flatnonzero(cosine < 1 - ROUNDING)  # of a bank that keeps every patch: all that are new
        else:
            least = np.float32(1 - covering_radius**2 / 2)
            picks = greedy_cover(embeddings, cosine, least, turn, on_progress, _MOST_APPENDED)
        known = np.full(len(self.embeddings), -1) if self.patches is None else self.patches
        return PatchCoreMemory(
            np.concatenate([self.embeddings, embeddings[picks]]),
            self.token_hw,
            np.concatenate([known, n_images * per_image + _in_grid(picks, places, self.token_hw)]),
        )

    def distances(self, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        """Distance of each embedding to its nearest neighbour in the memory (k = 1).

        Args:
            embeddings: float32 [N, D], not necessarily normalised.

        Returns:
            float32 [N], Euclidean on the unit sphere, 0..2.
        """
        return self.nearest(embeddings)[0]

    def nearest(self, embeddings: Embeddings) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Like `distances`, with the nearest embedding of the memory; the first of equally near ones.

        Args:
            embeddings: float32 [N, D], not necessarily normalised.

        Returns:
            distances: float32 [N], 0..2.
            rows: int64 [N].
        """
        parts = np.array_split(embeddings, max(1, len(embeddings) // _SEARCHED_AT_ONCE))
        found = list(shared_pool().map(self._nearest, parts))
        return np.concatenate([distances for distances, _ in found]), np.concatenate([rows for _, rows in found])

    def _nearest(self, embeddings: Embeddings) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        # Searches expand |q - m|² into products, whose float32 error of some 1e-7 is a distance of 3e-4 near zero. So
        # the distance is that of the difference itself, to every neighbour that the search cannot tell from its first:
        # n products and their sum are off by less than n rounding errors, and four such sums are compared in a pair.
        queries = l2_normalize(embeddings)
        cannot_tell = np.float32(4 * queries.shape[1] * np.finfo(np.float32).eps)
        distances = np.full(len(queries), np.inf, np.float32)
        nearest = np.zeros(len(queries), np.int64)
        undecided, k = np.arange(len(queries)), _FETCHED
        while len(undecided):
            k = min(k, len(self.embeddings))
            squared, rows = self.index.nearest(queries[undecided], k)
            alike = squared <= squared[:, :1] + cannot_tell
            for rank in range(k):
                which = np.flatnonzero(alike[:, rank])
                asked = undecided[which]
                candidates = rows[which, rank]
                found = np.linalg.norm(queries[asked] - self.embeddings[candidates], axis=1)
                tied = (found == distances[asked]) & (candidates < nearest[asked])
                nearer = (found < distances[asked]) | tied
                distances[asked[nearer]], nearest[asked[nearer]] = found[nearer], candidates[nearer]
            if k == len(self.embeddings):
                break
            undecided = undecided[alike[:, -1] & (distances[undecided] > 0)]  # there may be more of them
            k *= 8
        return distances, nearest
