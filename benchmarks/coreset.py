"""Lazy exact greedy k-center against the plain loop, on real embeddings: time, same picks, covering radius, memory."""

import argparse
import hashlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.features import DinoV2Features
from backend.patchcore import PatchCoreMemory, coreset_size, k_center_greedy, l2_normalize
from backend.service.inspection import InspectionService
from harness.images import solar_cells
from harness.measuring import interleaved, print_table

RATE = 0.02
SMALL, LARGE, HUGE = (8, 34), (200,), 977  # images of 1024 patch embeddings


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
    """Largest distance of an embedding to its nearest pick, in all dimensions."""
    blocks = np.array_split(embeddings, -(-len(embeddings) // 4096))
    nearest = np.concatenate([(block @ embeddings[picks].T).max(axis=1) for block in blocks])
    return float(np.sqrt(max(0.0, 2 - 2 * nearest.min())))


def extracted(features: DinoV2Features, n_images: int) -> Path:
    """An .npy of the embeddings of the first solar cells, float32 [1024 * n_images, 384]; kept for the next run."""
    made_by = hashlib.sha256(repr(features.identity).encode()).hexdigest()[:8]
    path = Path(tempfile.gettempdir()) / f"solar-cells-{n_images}-{made_by}.npy"
    if not path.is_file():
        part = path.with_suffix(".part.npy")
        np.save(part, np.concatenate([features.extract(image)[0] for image in solar_cells(n_images)]))
        part.rename(path)
    return path


def measured_build(path: Path) -> tuple[int, int, float, int, int]:
    """Build a memory bank, in a process of its own.

    Returns:
        Number of embeddings and of picks, seconds, peak memory of the process in MiB before and after.
    """
    embeddings = np.load(path)
    before = peak_memory()
    start = time.perf_counter()
    memory = PatchCoreMemory.build(embeddings, (32, 32), RATE)
    seconds = time.perf_counter() - start
    return len(embeddings), len(memory.embeddings), seconds, before, peak_memory()


def peak_memory() -> int:
    """Most memory this process ever held, in MiB; Linux counts that of its parent to `resource.getrusage`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def compared(embeddings: npt.NDArray[np.float32], rounds: int) -> tuple[str, ...]:
    """A row of the table."""
    n_select = coreset_size(len(embeddings), RATE)
    picks = {}

    def select(name: str) -> None:
        picks[name] = {"lazy": k_center_greedy, "loop": plain_loop}[name](embeddings, n_select)

    seconds = interleaved({name: partial(select, name) for name in ("lazy", "loop")}, rounds)
    return (
        f"{len(embeddings)} → {n_select}",
        f"{seconds['lazy']:.3f}",
        f"{seconds['loop']:.2f}",
        f"{seconds['loop'] / seconds['lazy']:.1f}",
        f"{np.mean(picks['lazy'] == picks['loop']):.1%}",
        " / ".join(f"{covering_radius(embeddings, picks[name]):.4f}" for name in ("lazy", "loop")),
    )


def main(argv: Sequence[str] = ()) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also test 204,800 embeddings; takes some minutes")
    parser.add_argument("--huge", action="store_true", help="also test 1,000,448 embeddings, without the plain loop")
    arguments = parser.parse_args(argv)
    configure_logging("warning", "console")
    features = InspectionService.open(load_settings()).features
    rows = []
    for n_images in (*SMALL, *(LARGE if arguments.large else ())):
        embeddings = l2_normalize(np.load(extracted(features, n_images)))
        rows.append(compared(embeddings, rounds=1 if n_images in LARGE else 5))
    print_table(
        "Coreset, exact greedy k-center, interleaved runs",
        ("embeddings", "lazy s", "plain loop s", "loop / lazy", "same picks in order", "covering radius"),
        rows,
    )
    if arguments.huge:
        path = extracted(features, HUGE)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            n_embeddings, n_select, seconds, before, after = executor.submit(measured_build, path).result()
        print_table(
            "Memory bank of many embeddings, all real",
            ("embeddings", "build s", "peak memory with the embeddings loaded MiB", "peak memory of the build MiB"),
            [(f"{n_embeddings} → {n_select}", f"{seconds:.0f}", before, after)],
        )


if __name__ == "__main__":
    main(sys.argv[1:])
