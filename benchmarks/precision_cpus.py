"""Whether a bank of ``PRECISION=int8`` that one CPU built gives the same scores on another.

``python -m benchmarks.precision_cpus FOLDER … [--most N]``: this CPU computes what others would. One has instructions
for 8-bit products (VNNI) and bfloat16, one for 8-bit products alone, and one for neither. Each builds a bank, and each
scores with every bank. Needs a CPU with all of them.
"""

import argparse
import itertools
from pathlib import Path
from unittest import mock

import numpy as np
from tqdm import tqdm

from backend.common.config import DEFAULT_MODEL, load_settings
from backend.features import DinoV2Features
from backend.infer import InferenceEngine
from backend.network.runtimes import int8, openvino
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.weights import Weights, find_weights
from backend.patchcore import PatchCoreMemory, l2_normalize
from benchmarks.precision import DataSet, fewer, mvtec, read
from harness.measuring import print_table

_SIZE, _PATCH = 448, 14
_CORESET_RATE = 0.02
_CPUS = {"VNNI and bfloat16": (True, True), "VNNI": (True, False), "neither": (False, False)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="in MVTec layout")
    parser.add_argument("--most", type=int, metavar="N", help="most images to fit, and to score of each class")
    options = parser.parse_args()
    if not (int8.has_exact_kernels() and openvino.has_bfloat16()):
        parser.error("this CPU does not have VNNI and bfloat16")
    weights = find_weights(load_settings())
    engines = {name: engine_of(weights, *cpu) for name, cpu in _CPUS.items()}
    rows: list[tuple[str, ...]] = []
    for folder in options.folders:
        rows += changes(fewer(mvtec(folder), options.most), engines)
    print_table(
        "int8: a bank that one CPU built, scored on another",
        ("data set", "built with", "scored with", "change of a score: largest", "mean"),
        rows,
    )


def engine_of(weights: Weights, exact_kernels: bool, bfloat16: bool) -> InferenceEngine:
    """int8 as a CPU with these instructions computes it."""
    with (
        mock.patch.object(int8, "has_exact_kernels", return_value=exact_kernels),
        mock.patch.object(openvino, "has_bfloat16", return_value=bfloat16),
    ):
        runtime = OpenVinoRuntime(weights.path, _SIZE, "int8")
    return InferenceEngine(DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, _SIZE))


def changes(data_set: DataSet, engines: dict[str, InferenceEngine]) -> list[tuple[str, ...]]:
    """The rows of a data set, for each pair of CPUs."""
    grid = (_SIZE // _PATCH, _SIZE // _PATCH)
    memories = {}
    for name, engine in engines.items():
        fitted = [engine.features.extract(read(path))[0] for path in tqdm(data_set.fit, desc=f"{data_set.name}: fit")]
        memories[name] = PatchCoreMemory.build(l2_normalize(np.concatenate(fitted)), grid, _CORESET_RATE)
    scores: dict[tuple[str, str], list[float]] = {}
    for path in tqdm(data_set.good + data_set.defective, desc=f"{data_set.name}: score"):
        image = read(path)
        for built, scored in itertools.product(engines, engines):
            score = engines[scored].run(image, memories[built], mm_per_px=1).score
            scores.setdefault((built, scored), []).append(score)
    rows = []
    for built, scored in itertools.permutations(engines, 2):
        change = np.abs(np.array(scores[built, scored]) - np.array(scores[built, built]))
        rows.append((data_set.name, built, scored, f"{change.max():.4f}", f"{change.mean():.4f}"))
    return rows


if __name__ == "__main__":
    main()
