"""Exact greedy k-center in rounds against the plain loop, on real embeddings: same picks, time, covering radius."""

import numpy as np
import numpy.typing as npt

from backend.config import load_settings
from backend.patchcore import coreset_size, k_center_greedy, l2_normalize
from backend.service import InspectionService
from backend.telemetry import configure_logging
from benchmarks.common import interleaved, print_table, solar_cells


def plain_loop(embeddings: npt.NDArray[np.float32], n_select: int) -> npt.NDArray[np.int64]:
    """One pick at a time, one matrix-vector product each; the same start as `k_center_greedy`."""
    picks = [int(np.argmax(embeddings @ embeddings.mean(axis=0)))]
    nearest = embeddings @ embeddings[picks[0]]  # cosine to the nearest pick
    while len(picks) < n_select:
        nearest[picks[-1]] = 2
        picks.append(int(np.argmin(nearest)))
        np.maximum(nearest, embeddings @ embeddings[picks[-1]], out=nearest)
    return np.array(picks)


def covering_radius(embeddings: npt.NDArray[np.float32], picks: npt.NDArray[np.int64]) -> float:
    """Largest distance of an embedding to its nearest pick."""
    nearest = np.concatenate([(block @ embeddings[picks].T).max(axis=1) for block in np.array_split(embeddings, 64)])
    return float(np.sqrt(max(0.0, 2 - 2 * nearest.min())))


def main() -> None:
    """Print the table."""
    configure_logging("warning", "console")
    features = InspectionService.open(load_settings()).features
    rows = []
    extracted = [features.extract(image)[0] for image in solar_cells(34)]
    for count in (8, 34):
        embeddings = l2_normalize(np.concatenate(extracted[:count]))
        wanted = coreset_size(len(embeddings), 0.02)
        contenders = {
            "rounds": lambda e=embeddings, w=wanted: k_center_greedy(e, w),
            "loop": lambda e=embeddings, w=wanted: plain_loop(e, w),
        }
        seconds = interleaved(contenders, rounds=3)
        ours, plain = k_center_greedy(embeddings, wanted), plain_loop(embeddings, wanted)
        rows.append(
            (
                f"{len(embeddings)} → {wanted}",
                f"{seconds['rounds']:.2f}",
                f"{seconds['loop']:.2f}",
                f"{seconds['loop'] / seconds['rounds']:.1f}",
                f"{np.mean(ours == plain):.1%}",
                f"{covering_radius(embeddings, ours):.4f} / {covering_radius(embeddings, plain):.4f}",
            )
        )
    print_table(
        "Coreset, exact greedy k-center, median of 3 interleaved runs",
        ("embeddings", "rounds s", "plain loop s", "loop / rounds", "same picks in order", "covering radius"),
        rows,
    )


if __name__ == "__main__":
    main()
