"""Accuracy and speed of OpenVINO and torch, float32, bfloat16 and int8, on real images.

``python -m benchmarks.precision [FOLDER …]`` takes folders in MVTec layout (train/good, test/good, test/<defect>);
without one it takes solar cells of the package ``elpv-dataset``. ``--most N`` takes at most N images to fit and as many
to score, good and defective each. ``--size 112`` is quicker, to try the command. ``--orders 10`` adds the AUROC of own
coresets over ten orders of the images of the fit. ``--no-torch`` takes OpenVINO float32 as the reference.
``--curve`` is another table: int8 from each block on.

``ONEDNN_MAX_CPU_ISA=AVX2`` (``AVX2_VNNI``, ``AVX512_CORE_VNNI``) before the command limits the instructions of
oneDNN's kernels, which compute the products in 8 bits. It does not limit other kernels: those of MLAS for products in
float32, and OpenVINO's own for everything else. The lines before the table name the kernels that ran.
"""

import argparse
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import cv2
import elpv_dataset
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from backend.common.config import DEFAULT_MODEL, load_settings
from backend.common.errors import ConfigError
from backend.features import DinoV2Features, Runtime
from backend.infer import InferenceEngine
from backend.network.runtimes import int8
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.runtimes.torch import TorchRuntime
from backend.network.weights import Weights, find_weights
from backend.patchcore import PatchCoreMemory, coreset_size, k_center_greedy, l2_normalize
from harness.measuring import print_table

_SIZE = 448
_PATCH = 14
_CORESET_RATE = 0.02
_MOST_FIT_IMAGES = 40
_CURVE = range(1, 8)


@dataclass(frozen=True)
class DataSet:
    """Image files: good ones to fit, good and defective ones to score."""

    name: str
    fit: list[Path]
    good: list[Path]
    defective: list[Path]


@dataclass
class Answers:
    """The results of one runtime on the N scored images of a data set, in their order.

    Attributes:
        tokens: float32 [T, D] of each image.
        scores: of each image, with the bank of the runtime's own coreset.
        distances: float32 [T] of each image, with a bank of the patches that the reference selected.
        same_patches_scores: of each image, with that bank.
        scores_by_order: N scores for each order of the images of the fit, with the runtime's own coreset: the 99th
            percentile of the distances, which is close to that of the map.
        milliseconds: time of each forward pass.
    """

    tokens: list[npt.NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    distances: list[npt.NDArray[np.float32]] = field(default_factory=list)
    same_patches_scores: list[float] = field(default_factory=list)
    scores_by_order: list[list[float]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--most", type=int, metavar="N", help="most images to fit, and to score of each class")
    parser.add_argument("--orders", type=int, default=0, metavar="N", help="orders of the fit's images (%(default)s)")
    parser.add_argument("--no-torch", action="store_true", help="OpenVINO alone, float32 is the reference")
    parser.add_argument("--curve", action="store_true", help="int8 from each block on, against OpenVINO float32")
    parser.add_argument("--size", type=int, default=_SIZE, metavar="PX", help="side of the network input (%(default)s)")
    options = parser.parse_args()
    weights = find_weights(load_settings())
    if options.curve:
        runtimes = open_curve(weights, options.size)
    else:
        runtimes = open_runtimes(weights, options.size, has_torch=not options.no_torch)
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "none")
    print(
        f"8-bit products are {'exact' if int8.has_exact_kernels() else 'not exact'} on this CPU; cap of oneDNN: {cap}"
    )
    for name, runtime in runtimes.items():
        if isinstance(runtime, OpenVinoRuntime):
            print(f"{name}: {kernels(runtime)}")
    rows = []
    for data_set in [mvtec(folder) for folder in options.folders] or [solar_cells()]:
        rows += table_rows(fewer(data_set, options.most), runtimes, options.size, options.orders)
    reference = next(iter(runtimes))
    print_table(
        f"Precisions against {reference}: every image through every runtime in turn, each with a bank of its own",
        (
            "data set",
            "runtime",
            "forward ms",
            f"{reference} / it",
            "lowest token cosine",
            "map correlation, mean and lowest, same patches in the bank",
            "largest change of a patch distance, same patches in the bank",
            "largest change of a score, same patches in the bank",
            "largest change of a score, own coreset",
            "mean change of a score, own coreset",
            "farthest from the threshold of a changed decision, same patches in the bank",
            "AUROC, same patches in the bank",
            "AUROC, own coreset",
            *(["lowest … highest AUROC over the orders"] if options.orders else []),
        ),
        rows,
    )


def table_rows(data_set: DataSet, runtimes: dict[str, Runtime], size: int, orders: int) -> list[tuple[str, ...]]:
    """The rows of a data set; see `compare`."""
    answers = compare(data_set, runtimes, size, orders)
    reference = next(iter(answers.values()))
    labels = [0] * len(data_set.good) + [1] * len(data_set.defective)
    rows = []
    for name, answer in answers.items():
        cosine = np.concatenate([cosines(*pair) for pair in zip(answer.tokens, reference.tokens, strict=True)])
        pairs = list(zip(answer.distances, reference.distances, strict=True))
        correlations = [np.corrcoef(*pair)[0, 1] for pair in pairs]
        same_patches = np.abs(np.array(answer.same_patches_scores) - np.array(reference.same_patches_scores))
        scores = np.abs(np.array(answer.scores) - np.array(reference.scores))
        areas = [float(roc_auc_score(labels, of_order)) for of_order in answer.scores_by_order]
        rows.append(
            (
                f"{data_set.name} ({len(labels)} images)",
                name,
                f"{statistics.median(answer.milliseconds):.0f}",
                f"{statistics.median(np.divide(reference.milliseconds, answer.milliseconds)):.2f}",
                f"{cosine.min():.6f}",
                f"{np.mean(correlations):.4f}, {np.min(correlations):.4f}",
                f"{max(np.abs(one - other).max() for one, other in pairs):.1e}",
                f"{same_patches.max():.1e}",
                f"{scores.max():.1e}",
                f"{scores.mean():.1e}",
                f"{farthest_change(reference.same_patches_scores, answer.same_patches_scores):.4f}",
                f"{roc_auc_score(labels, answer.same_patches_scores):.4f}",
                f"{roc_auc_score(labels, answer.scores):.4f}",
                *([f"{min(areas):.4f} … {max(areas):.4f}"] if areas else []),
            )
        )
    return rows


def farthest_change(reference: Sequence[float], scores: Sequence[float]) -> float:
    """How far from the threshold a score of the reference is at most, of an image that is judged otherwise.

    Every threshold between two scores of the reference is tried: in the middle of them.

    Args:
        reference: scores of N images.
        scores: of the same images.
    """
    one, other = np.asarray(reference), np.asarray(scores)
    ranked = np.unique(one)
    thresholds = ((ranked[1:] + ranked[:-1]) / 2)[:, None]
    is_changed = (one >= thresholds) != (other >= thresholds)
    return float((np.abs(one - thresholds) * is_changed).max(initial=0))


def open_runtimes(weights: Weights, size: int, *, has_torch: bool) -> dict[str, Runtime]:
    """Everything this machine can run the network on."""
    runtimes: dict[str, Runtime] = {}
    if has_torch:
        runtimes["torch float32"] = TorchRuntime(DEFAULT_MODEL, weights.path, size, "cpu")
    for precision in ("float32", "bfloat16", "int8"):
        try:
            runtimes[f"OpenVINO {precision}"] = OpenVinoRuntime(weights.path, size, precision)
        except ConfigError as exc:
            print(exc)
    return runtimes


def open_curve(weights: Weights, size: int) -> dict[str, Runtime]:
    """OpenVINO in float32, and in int8 from each block on that can be the first."""
    runtimes: dict[str, Runtime] = {"OpenVINO float32": OpenVinoRuntime(weights.path, size)}
    for first in _CURVE:
        with mock.patch.object(int8, "FIRST_BLOCK", first):
            runtimes[f"int8, blocks {first} to 12"] = OpenVinoRuntime(weights.path, size, "int8")
    return runtimes


def kernels(runtime: OpenVinoRuntime) -> str:
    """The kernels of the products in a compiled network, each with the number of its products."""
    nodes = runtime.compiled.get_runtime_model().get_ops()
    found = Counter(
        node.get_rt_info()["primitiveType"].astype(str)
        for node in nodes
        if node.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "FullyConnectedQuantizedLegacy", "MatMul")
    )
    return ", ".join(f"{number} × {name}" for name, number in found.most_common())


def compare(data_set: DataSet, runtimes: dict[str, Runtime], size: int, orders: int) -> dict[str, Answers]:
    """Fit and score with every runtime, image by image.

    Args:
        data_set: the images.
        runtimes: by name; the first is the reference.
        size: side of the network input in pixels.
        orders: how many random orders of the images of the fit to try.
    """
    engines = {name: InferenceEngine(DinoV2Features(r, DEFAULT_MODEL, "", size)) for name, r in runtimes.items()}
    fitted: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in engines}
    for path in tqdm(data_set.fit, desc=f"{data_set.name}: fit"):
        for name, engine in engines.items():
            fitted[name].append(engine.features.extract(read(path))[0])
    grid = (size // _PATCH, size // _PATCH)
    embeddings = {name: l2_normalize(np.concatenate(tokens)) for name, tokens in fitted.items()}
    reference = next(iter(embeddings.values()))
    picks = k_center_greedy(reference, coreset_size(len(reference), _CORESET_RATE))
    same_patches = {name: PatchCoreMemory(own[picks], grid) for name, own in embeddings.items()}
    memories = {name: PatchCoreMemory.build(own, grid, _CORESET_RATE) for name, own in embeddings.items()}
    answers = {name: Answers() for name in engines}
    for path in tqdm(data_set.good + data_set.defective, desc=f"{data_set.name}: score"):
        image = read(path)
        for name, engine in engines.items():
            answer = answers[name]
            run = partial(run_and_note, runtimes[name], answer)
            answer.scores.append(engine.run(image, memories[name], mm_per_px=1, run_network=run).score)
            again = engine.run(image, same_patches[name], mm_per_px=1, run_network=lambda _, a=answer: a.tokens[-1])
            answer.same_patches_scores.append(again.score)
            answer.distances.append(same_patches[name].distances(answer.tokens[-1]))
    for order in range(orders):
        shuffled = np.random.default_rng(order).permutation(len(data_set.fit))
        for name, answer in answers.items():
            tokens = l2_normalize(np.concatenate([fitted[name][index] for index in shuffled]))
            memory = PatchCoreMemory.build(tokens, grid, _CORESET_RATE)
            answer.scores_by_order.append([float(np.percentile(memory.distances(own), 99)) for own in answer.tokens])
    return answers


def run_and_note(runtime: Runtime, answer: Answers, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """One forward pass, float32 [3, S, S] → [T, D]; its time and tokens go to `answer`."""
    start = time.perf_counter()
    tokens = runtime.forward(pixels[None])[0]
    answer.milliseconds.append((time.perf_counter() - start) * 1000)
    answer.tokens.append(tokens)
    return tokens


def cosines(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosine of each token [T, D] of one runtime with that of another."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def mvtec(folder: Path) -> DataSet:
    """A folder in MVTec layout; at most 40 images are fitted, at even steps."""
    train = sorted(folder.glob("train/good/*"))
    test = sorted(folder.glob("test/*/*"))
    step = -(-len(train) // _MOST_FIT_IMAGES)
    good = [path for path in test if path.parent.name == "good"]
    return DataSet(folder.name, train[::step], good, [path for path in test if path.parent.name != "good"])


def fewer(data_set: DataSet, most: int | None) -> DataSet:
    """At most so many images to fit, and to score of each class, at even steps."""
    parts = [
        part if most is None or len(part) <= most else [part[i * len(part) // most] for i in range(most)]
        for part in (data_set.fit, data_set.good, data_set.defective)
    ]
    return DataSet(data_set.name, *parts)


def solar_cells() -> DataSet:
    """Monocrystalline cells of ``elpv-dataset`` (CC BY-NC-SA 4.0): certainly good, certainly defective."""
    folder = Path(elpv_dataset.__file__).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    shuffled = random.Random(0)  # noqa: S311  (a split, not a secret)
    good, defective = (
        shuffled.sample([folder / name for name, p, kind in rows if kind == "mono" and float(p) == wanted], 60)
        for wanted in (0, 1)
    )
    return DataSet("solar cells", good[:_MOST_FIT_IMAGES], good[_MOST_FIT_IMAGES:], defective[:40])


def read(path: Path) -> npt.NDArray[np.uint8]:
    """An image file, uint8 [H, W, 3], BGR."""
    image = cv2.imread(str(path))
    assert image is not None, f"{path} is no image"
    return np.asarray(image, np.uint8)


if __name__ == "__main__":
    main()
