"""Accuracy and speed of OpenVINO and torch, float32 and bfloat16, on real images.

``python -m benchmarks.precision [FOLDER …]`` takes folders in MVTec layout (train/good, test/good, test/<defect>);
without one it takes solar cells of the package ``elpv-dataset``.
"""

import argparse
import random
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

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
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.runtimes.torch import TorchRuntime
from backend.network.weights import Weights, find_weights
from backend.patchcore import PatchCoreMemory, coreset_size, k_center_greedy, l2_normalize
from harness.measuring import print_table

_SIZE = 448
_MOST_FIT_IMAGES = 40


@dataclass(frozen=True)
class DataSet:
    """Image files: good ones to fit, good and defective ones to score."""

    name: str
    fit: list[Path]
    good: list[Path]
    defective: list[Path]


@dataclass
class Answers:
    """What one runtime said about one data set.

    Tokens [N, T, D] and scores [N]; distances [N, T] and scores [N] to the patches that the reference selected.
    """

    tokens: list[npt.NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    distances: list[npt.NDArray[np.float32]] = field(default_factory=list)
    same_patches_scores: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    folders = parser.parse_args().folders
    runtimes = open_runtimes(find_weights(load_settings()))
    rows = []
    for data_set in [mvtec(folder) for folder in folders] or [solar_cells()]:
        answers = compare(data_set, runtimes)
        reference = answers["torch float32"]
        labels = [0] * len(data_set.good) + [1] * len(data_set.defective)
        for name, answer in answers.items():
            cosine = np.concatenate([cosines(*pair) for pair in zip(answer.tokens, reference.tokens, strict=True)])
            distances = np.abs(np.concatenate(answer.distances) - np.concatenate(reference.distances))
            same_patches = np.abs(np.array(answer.same_patches_scores) - np.array(reference.same_patches_scores))
            scores = np.abs(np.array(answer.scores) - np.array(reference.scores))
            rows.append(
                (
                    f"{data_set.name} ({len(labels)} images)",
                    name,
                    f"{statistics.median(answer.milliseconds):.0f}",
                    f"{statistics.median(reference.milliseconds) / statistics.median(answer.milliseconds):.2f}",
                    f"{cosine.min():.6f}",
                    f"{distances.max():.1e}",
                    f"{same_patches.max():.1e}",
                    f"{scores.max():.1e}",
                    f"{scores.mean():.1e}",
                    f"{roc_auc_score(labels, answer.scores):.4f}",
                )
            )
    print_table(
        "Precisions against torch float32: every image through every runtime in turn, each with a bank of its own",
        (
            "data set",
            "runtime",
            "forward ms",
            "torch f32 / it",
            "lowest token cosine",
            "largest change of a patch distance, same patches in the bank",
            "largest change of a score, same patches in the bank",
            "largest change of a score, own coreset",
            "mean change of a score, own coreset",
            "AUROC",
        ),
        rows,
    )


def open_runtimes(weights: Weights) -> dict[str, Runtime]:
    """Everything this machine can run the network on."""
    runtimes: dict[str, Runtime] = {"torch float32": TorchRuntime(DEFAULT_MODEL, weights.path, _SIZE, "cpu")}
    for precision in ("float32", "bfloat16"):
        try:
            runtimes[f"OpenVINO {precision}"] = OpenVinoRuntime(weights.path, _SIZE, precision)
        except ConfigError as exc:
            print(exc)
    return runtimes


def compare(data_set: DataSet, runtimes: dict[str, Runtime]) -> dict[str, Answers]:
    """Fit and score with every runtime, image by image."""
    engines = {name: InferenceEngine(DinoV2Features(r, DEFAULT_MODEL, "", _SIZE)) for name, r in runtimes.items()}
    fitted: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in engines}
    for path in tqdm(data_set.fit, desc=f"{data_set.name}: fit"):
        for name, engine in engines.items():
            fitted[name].append(engine.features.extract(read(path))[0])
    grid = (_SIZE // 14, _SIZE // 14)
    embeddings = {name: l2_normalize(np.concatenate(tokens)) for name, tokens in fitted.items()}
    reference = embeddings["torch float32"]
    picks = k_center_greedy(reference, coreset_size(len(reference), 0.02))
    same_patches = {name: PatchCoreMemory(own[picks], grid) for name, own in embeddings.items()}
    memories = {name: PatchCoreMemory.build(own, grid, 0.02) for name, own in embeddings.items()}
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
