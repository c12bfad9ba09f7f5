"""The memory bank: L2 normalisation, k-center greedy coreset, nearest-neighbour distances.

Roth et al., *Towards Total Recall in Industrial Anomaly Detection* (PatchCore), CVPR 2022, arXiv:2106.08265.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.float32]

# Farthest points considered together per round of the coreset selection. Larger rounds need fewer passes over the
# embeddings and waste more pairwise distances; the time is flat between 256 and 1024 from 30,000 to 200,000 embeddings.
_CANDIDATES = 512
# Rows updated at once: bounds the temporary to 16384 × 512 float32 = 32 MiB.
_BLOCK_ROWS = 16384
_RERANKED = 4


def l2_normalize(embeddings: Embeddings) -> Embeddings:
    """Scale every row to unit length; rows of zeros stay zero.

    Args:
        embeddings: float32 [N, D].

    Returns:
        float32 [N, D], a new array.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


def coreset_size(n_embeddings: int, rate: float) -> int:
    """``ceil(rate * n_embeddings)``, at least 1; rounded first so that 0.07 * 100 is 7."""
    return min(n_embeddings, max(1, math.ceil(round(rate * n_embeddings, 6))))


def k_center_greedy(
    embeddings: Embeddings, n_select: int, on_progress: Callable[[int, int], None] | None = None
) -> npt.NDArray[np.int64]:
    """Exact greedy k-center (Sener & Savarese, 2018, arXiv:1708.00489): each pick is farthest from all before.

    Selects in rounds. The farthest points of a round are its candidates, and the greedy runs on them alone as long as
    its next pick is farther than every other point was at the start of the round: distances only shrink, so no other
    point can be the true pick. One matrix product per round then updates all distances. The picks are those of the
    plain loop wherever distances are not tied within float error; equal distances go to the lowest index.

    Args:
        embeddings: float32 [N, D], L2-normalised.
        n_select: how many to select, 1..N.
        on_progress: called with (selected, n_select) after every round.

    Returns:
        int64 [n_select], distinct row indices in the order of selection. The first is the point nearest the mean.
    """
    first = int(np.argmax(embeddings @ embeddings.mean(axis=0)))
    picks = np.empty(n_select, dtype=np.int64)
    picks[0] = first
    n_picked = 1
    squared = np.full(len(embeddings), np.inf, dtype=np.float32)  # to the nearest pick
    _shrink(squared, embeddings, picks[:1])
    while n_picked < n_select:
        chosen = _greedy_round(embeddings, squared, n_select - n_picked)
        picks[n_picked : n_picked + len(chosen)] = chosen
        n_picked += len(chosen)
        _shrink(squared, embeddings, chosen)
        if on_progress is not None:
            on_progress(n_picked, n_select)
    return picks


def _greedy_round(embeddings: Embeddings, squared: npt.NDArray[np.float32], n_wanted: int) -> npt.NDArray[np.int64]:
    n_candidates = min(_CANDIDATES, len(squared))
    order = np.argpartition(-squared, n_candidates - 1)
    candidates = np.sort(order[:n_candidates])
    others = order[n_candidates:]
    bound = squared[others].max() if len(others) else -np.inf
    farthest = embeddings[candidates]
    pairwise = _squared_distances(farthest, farthest)
    remaining = squared[candidates]
    # The first pick is the farthest point of all. Where more points tie than there are candidates it may be none.
    chosen = [int(np.argmax(squared))]
    if chosen[0] not in candidates:
        return np.array(chosen, dtype=np.int64)
    row = int(np.searchsorted(candidates, chosen[0]))
    while True:
        remaining = np.minimum(remaining, pairwise[row])
        remaining[row] = -1  # never twice, not even among duplicates
        row = int(np.argmax(remaining))
        if len(chosen) >= n_wanted or remaining[row] <= bound or remaining[row] < 0:
            return np.array(chosen, dtype=np.int64)
        chosen.append(int(candidates[row]))


def _shrink(squared: npt.NDArray[np.float32], embeddings: Embeddings, picks: npt.NDArray[np.int64]) -> None:
    centres = embeddings[picks]
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        np.minimum(squared[rows], _squared_distances(embeddings[rows], centres).min(axis=1), out=squared[rows])
    squared[picks] = -1


def _squared_distances(left: Embeddings, right: Embeddings) -> npt.NDArray[np.float32]:
    """Squared Euclidean distances between unit vectors: 2 - 2 cos, float32 [len(left), len(right)]."""
    product = left @ right.T
    product *= -2
    product += 2
    np.maximum(product, 0, out=product)
    return np.asarray(product)


class NearestNeighbourIndex(Protocol):
    """Finds the memory embeddings nearest to each query."""

    def nearest(self, queries: Embeddings, k: int) -> npt.NDArray[np.int64]:
        """Row numbers [N, k] of the memory embeddings nearest to float32 queries [N, D]."""
        ...


class FaissIndex:
    """Exact search with FAISS ``IndexFlatL2``."""

    def __init__(self, embeddings: Embeddings) -> None:
        import faiss

        self._faiss = faiss
        self._index = faiss.IndexFlatL2(embeddings.shape[1])
        self._index.add(embeddings)

    def nearest(self, queries: Embeddings, k: int) -> npt.NDArray[np.int64]:
        """See `NearestNeighbourIndex.nearest`."""
        return np.asarray(self._index.search(queries, k)[1], dtype=np.int64)

    def serialized(self) -> bytes:
        """The bytes of ``index.faiss``, as ``faiss.write_index`` writes them."""
        return bytes(self._faiss.serialize_index(self._index).tobytes())


class SklearnIndex:
    """Exact search with scikit-learn, for machines without FAISS."""

    def __init__(self, embeddings: Embeddings) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._index: Any = NearestNeighbors(algorithm="brute").fit(embeddings)

    def nearest(self, queries: Embeddings, k: int) -> npt.NDArray[np.int64]:
        """See `NearestNeighbourIndex.nearest`."""
        return np.asarray(self._index.kneighbors(queries, k, return_distance=False), dtype=np.int64)


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
        index: nearest-neighbour search over `embeddings`.
    """

    embeddings: Embeddings
    token_hw: tuple[int, int]
    index: NearestNeighbourIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", build_index(self.embeddings))

    @classmethod
    def build(
        cls,
        embeddings: Embeddings,
        token_hw: tuple[int, int],
        coreset_rate: float,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> "PatchCoreMemory":
        """Normalise, select the coreset, index it. The same embeddings always give the same memory.

        Args:
            embeddings: float32 [N, D] of all images, in order; not necessarily normalised.
            token_hw: token grid (rows, columns).
            coreset_rate: share to keep, 0 < rate <= 1; 1 keeps every embedding, in order.
            on_progress: see `k_center_greedy`.
        """
        normalised = l2_normalize(embeddings)
        if coreset_rate < 1:
            n_select = coreset_size(len(normalised), coreset_rate)
            normalised = normalised[k_center_greedy(normalised, n_select, on_progress)]
        return cls(normalised, token_hw)

    def distances(self, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        """Distance of each embedding to its nearest neighbour in the memory (k = 1).

        Args:
            embeddings: float32 [N, D], not necessarily normalised.

        Returns:
            float32 [N], Euclidean on the unit sphere, 0..2.
        """
        queries = l2_normalize(embeddings)
        # Searches expand |q - m|² into products, whose float32 error of some 1e-7 is a distance of 3e-4 near zero. So
        # the distance is that of the difference itself, to the best of a few that the search cannot tell apart.
        rows = self.index.nearest(queries, min(_RERANKED, len(self.embeddings)))
        distances = [np.linalg.norm(queries - self.embeddings[column], axis=1) for column in rows.T]
        return np.asarray(np.min(distances, axis=0), dtype=np.float32)
