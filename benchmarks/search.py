"""Distances to the memory bank against other exact searches, right after a forward pass: time, and largest error."""

from collections.abc import Callable

import faiss
import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.features import preprocess
from backend.patchcore import PatchCoreMemory, k_center_greedy, l2_normalize
from backend.service.inspection import InspectionService
from harness.images import solar_cells
from harness.measuring import interleaved, print_table

Embeddings = npt.NDArray[np.float32]
_BLOCK = 4096


def faiss_flat(bank: Embeddings) -> Callable[[Embeddings], npt.NDArray[np.float32]]:
    """``IndexFlatL2`` with its own threads, k = 1, the distance as it gives it."""
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank)
    threads = faiss.omp_get_max_threads()

    def search(embeddings: Embeddings) -> npt.NDArray[np.float32]:
        faiss.omp_set_num_threads(threads)
        return np.sqrt(index.search(l2_normalize(embeddings), 1)[0][:, 0])

    return search


def products(bank: Embeddings) -> Callable[[Embeddings], npt.NDArray[np.float32]]:
    """NumPy's matrix product in blocks, then the distance to the row with the largest."""

    def search(embeddings: Embeddings) -> npt.NDArray[np.float32]:
        queries = l2_normalize(embeddings)
        largest, rows = np.full(len(queries), -2, np.float32), np.zeros(len(queries), np.int64)
        for start in range(0, len(bank), _BLOCK):
            cosines = queries @ bank[start : start + _BLOCK].T
            best = cosines.argmax(axis=1)
            values = cosines[np.arange(len(queries)), best]
            better = values > largest
            largest[better], rows[better] = values[better], best[better] + start
        return np.linalg.norm(queries - bank[rows], axis=1)

    return search


def scikit_learn(bank: Embeddings) -> Callable[[Embeddings], npt.NDArray[np.float32]]:
    """``NearestNeighbors(algorithm="brute")``."""
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank)
    return lambda embeddings: index.kneighbors(l2_normalize(embeddings))[0][:, 0]


def brute_force(queries: Embeddings, bank: Embeddings) -> npt.NDArray[np.float64]:
    """Distances in float64, from differences."""
    exact = bank.astype(np.float64)
    return np.array([np.sqrt(((exact - query) ** 2).sum(axis=1).min()) for query in l2_normalize(queries)])


def main() -> None:
    """Print the table."""
    configure_logging("warning", "console")
    features = InspectionService.open(load_settings()).features
    *cells, part = solar_cells(35)
    everything = l2_normalize(np.concatenate([features.extract(cell)[0] for cell in cells]))
    queries, _ = features.extract(part)
    # A part that is in the bank, too: where the distance is 0, errors of products are largest.
    some = np.concatenate([queries[::16], everything[:1024:16]])
    pixels = preprocess(part, features.input_size)[None]
    rows = []
    for size, rounds in ((700, 25), (3_500, 11), (len(everything), 3)):
        bank = everything if size == len(everything) else everything[k_center_greedy(everything, size)]
        searches = {
            "ours": PatchCoreMemory(bank, features.token_hw).distances,
            "FAISS": faiss_flat(bank),
            "NumPy": products(bank),
            "scikit-learn": scikit_learn(bank),
        }
        contenders = {name: lambda s=search: s(queries) for name, search in searches.items()}
        seconds = interleaved(contenders, rounds, before=lambda: features.runtime.forward(pixels))
        exact = brute_force(some, bank)
        rows += [
            (
                len(bank),
                name,
                f"{seconds[name] * 1000:.1f}",
                f"{seconds[name] / seconds['ours']:.2f}",
                f"{np.abs(search(some) - exact).max():.0e}",
            )
            for name, search in searches.items()
        ]
    print_table(
        f"Nearest of a bank to {len(queries)} embeddings × {features.dim}, after a forward pass, interleaved, medians",
        ("bank", "search", "ms", "times ours", "largest error"),
        rows,
    )


if __name__ == "__main__":
    main()
