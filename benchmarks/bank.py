"""Statements of a fit about its own images, planted defects, and appending: compared with new parts and real refits.

``python -m benchmarks.bank --data FOLDER … [--cache FOLDER]``; folders in MVTec layout. ``WEIGHTS`` as for the service.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from backend.bank.leave_one_out import HeldOut, hold_out
from backend.bank.patches import LocalPatches
from backend.common.arrays import Embeddings
from backend.common.config import load_settings
from backend.infer import image_scores
from backend.network.weights import find_weights
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.scores.outliers import outliers
from benchmarks.levers.views import Network, TokenFiles, View, read
from harness.measuring import print_table

GRID = (32, 32)
PATCHES = GRID[0] * GRID[1]
LAST_BLOCK = 12
RATE = 0.02
SPLITS = 5
MOST_TO_FIT = 60
REFITS = 4  # of each split; one takes a second
LEVEL = 0.05

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """An image: float32 [1024, 384] tokens, and its size (rows, columns)."""

    tokens: Embeddings
    image_hw: tuple[int, int]


@dataclass(frozen=True)
class DataSet:
    """All good images of a data set, from both of its folders, and the defective ones."""

    name: str
    good: list[Part]
    defective: list[Part]


@dataclass(frozen=True)
class Fit:
    """A memory bank, and what it tells about its images."""

    parts: list[Part]
    memory: PatchCoreMemory
    held_out: HeldOut
    seconds: tuple[float, float]

    @classmethod
    def on(cls, parts: Sequence[Part]) -> "Fit":
        """Fit as the service does."""
        embeddings = np.concatenate([part.tokens for part in parts])
        start = time.perf_counter()
        memory = PatchCoreMemory.build(embeddings, GRID, RATE)
        built = time.perf_counter()
        assert memory.patches is not None
        held_out = hold_out(
            LocalPatches(embeddings, np.arange(len(parts))), memory.embeddings, memory.patches // PATCHES
        )
        return cls(list(parts), memory, held_out, (built - start, time.perf_counter() - built))

    def honest(self) -> Scores:
        """Scores of its images by the bank of the others."""
        assert self.held_out.distances is not None
        return np.array([score(part, own) for part, own in zip(self.parts, self.held_out.distances, strict=True)])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in MVTec layout")
    parser.add_argument("--cache", type=Path, help="folder that keeps the tokens for the next run")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        network = Network(find_weights(load_settings()))
        sets = [load(folder, TokenFiles(folder, chosen.cache or Path(scratch), network)) for folder in chosen.data]
        print_honest_scores(sets)
        print_planted(sets)
        print_appended(sets)
        print_dropped(sets)


def load(folder: Path, files: TokenFiles) -> DataSet:
    """Embed every image once."""

    def parts(paths: Sequence[Path]) -> list[Part]:
        found = []
        for path in tqdm(paths, desc=folder.name):
            found.append(Part(files.tokens(path, View(), LAST_BLOCK), read(path).shape[:2]))
        return found

    good = sorted(folder.glob("*/good/*"))
    return DataSet(folder.name, parts(good), parts(sorted(set(folder.glob("test/*/*")) - set(good))))


def score(part: Part, distances: Embeddings) -> float:
    """p99 of the map."""
    return image_scores(distances.reshape(GRID), part.image_hw, None, 1.0, [99])[0]


def scores(parts: Sequence[Part], memory: PatchCoreMemory) -> Scores:
    """What the parts score by a bank."""
    return np.array([score(part, memory.distances(part.tokens)) for part in parts])


def print_honest_scores(sets: Sequence[DataSet]) -> None:
    """Scores of a fit's own images beside those of fresh ones, on random splits of the good images."""
    rows: list[tuple[object, ...]] = []
    for data in sets:
        n_fit = min(MOST_TO_FIT, 3 * len(data.good) // 4)
        unequal = {"naive": 0, "honest": 0}
        gaps: dict[str, list[float]] = {"naive": [], "honest": [], "refit": []}
        rejected: dict[str, list[float]] = {"naive": [], "honest": []}
        cost = []
        for split in tqdm(range(SPLITS), desc=f"{data.name}: scores"):
            order = np.random.default_rng(split).permutation(len(data.good))
            fit = Fit.on([data.good[number] for number in order[:n_fit]])
            fresh = scores([data.good[number] for number in order[n_fit:]], fit.memory)
            honest = fit.honest()
            for name, own in (("naive", scores(fit.parts, fit.memory)), ("honest", honest)):
                unequal[name] += int(stats.ks_2samp(own, fresh).pvalue < LEVEL)
                gaps[name].append(float(np.median(own) - np.median(fresh)))
                rejected[name].append(float(np.mean(fresh >= np.percentile(own, 99))))
            for number in range(0, n_fit, n_fit // REFITS):
                others = np.concatenate([part.tokens for part in fit.parts[:number] + fit.parts[number + 1 :]])
                (refitted,) = scores(fit.parts[number : number + 1], PatchCoreMemory.build(others, GRID, RATE))
                gaps["refit"].append(float(honest[number] - refitted))
            cost.append(fit.seconds[1] / fit.seconds[0])
        for name in ("naive", "honest"):
            beside = f"{np.mean(gaps['refit']):+.4f} ± {np.std(gaps['refit']):.4f}" if name == "honest" else ""
            rows.append(
                (
                    f"{data.name}, {name}",
                    f"{n_fit} / {len(data.good) - n_fit}",
                    f"{np.mean(gaps[name]):+.4f}",
                    f"{unequal[name]} of {SPLITS}",
                    f"{100 * np.mean(rejected[name]):.1f} %",
                    beside,
                    f"{np.median(cost):.2f}" if name == "honest" else "",
                )
            )
    print_table(
        f"Scores of the images of a fit beside those of fresh ones, {SPLITS} random splits",
        (
            "scores",
            "fit / fresh",
            "median, fit - fresh",
            f"unequal (KS, {LEVEL:g})",
            "fresh rejected at their p99",
            "honest - refitted",
            "time, of the coreset's",
        ),
        rows,
    )


def print_planted(sets: Sequence[DataSet]) -> None:
    """Defective images among the good ones of a fit, and which images are then suspicious."""
    rows: list[tuple[object, ...]] = []
    for data in sets:
        for n_planted in (0, 1, 3):
            n_good = min(40, 3 * len(data.good) // 4)
            found = suspected = 0
            for draw in tqdm(range(SPLITS), desc=f"{data.name}: {n_planted} planted"):
                rng = np.random.default_rng(draw)
                parts = [data.good[number] for number in rng.permutation(len(data.good))[:n_good]]
                parts += [data.defective[number] for number in rng.permutation(len(data.defective))[:n_planted]]
                unlike = outliers(Fit.on(parts).honest())
                found += sum(number >= n_good for number in unlike)
                suspected += sum(number < n_good for number in unlike)
            rows.append(
                (
                    data.name,
                    f"{n_good} + {n_planted}",
                    f"{found} of {SPLITS * n_planted}" if n_planted else "",
                    f"{suspected} of {SPLITS * n_good}",
                )
            )
    print_table(
        f"Defective images planted among the good ones, {SPLITS} draws",
        ("data set", "good + defective in the fit", "defective ones suspected", "good ones suspected"),
        rows,
    )


def print_appended(sets: Sequence[DataSet]) -> None:
    """A bank that grew by appending beside one of the same images at once."""
    rows: list[tuple[object, ...]] = []
    for data in sets:
        order = np.random.default_rng(0).permutation(len(data.good))[: min(MOST_TO_FIT, 3 * len(data.good) // 4)]
        parts = [data.good[number] for number in order]
        fresh = [part for number, part in enumerate(data.good) if number not in set(order)]
        n_first = len(parts) // 4
        first = Fit.on(parts[:n_first])
        grown = first.memory
        for n_steps in (1, 2, 3):
            n_images = n_first * (n_steps + 1)
            more = np.concatenate([part.tokens for part in parts[n_images - n_first : n_images]])
            grown = grown.extended(more, first.held_out.covering_radius, n_images - n_first)
            refitted = Fit.on(parts[:n_images])
            everything = np.concatenate([part.tokens for part in parts[:n_images]])
            radius = float(grown.distances(everything).max())
            rows.append(
                (
                    data.name,
                    f"{n_first}{f' + {n_first}' * n_steps}",
                    f"{len(grown.embeddings)} / {len(refitted.memory.embeddings)}",
                    f"{radius / refitted.held_out.covering_radius:.3f}",
                    " / ".join(
                        f"{auroc(scores(fresh, memory), scores(data.defective, memory)):.3f}"
                        for memory in (grown, refitted.memory)
                    ),
                )
            )
    print_table(
        "A memory bank that grew by appending, beside a fit of the same images",
        ("data set", "good images", "bank", "covering radius, ratio", "image AUROC"),
        rows,
    )


def print_dropped(sets: Sequence[DataSet]) -> None:
    """Half of the images left out of a fit: those that the bank hardly needs, and the others."""
    rows: list[tuple[object, ...]] = []
    for data in sets:
        order = np.random.default_rng(0).permutation(len(data.good))[: min(MOST_TO_FIT, 3 * len(data.good) // 4)]
        fit = Fit.on([data.good[number] for number in order])
        everything = l2_normalize(np.concatenate([part.tokens for part in fit.parts]))
        by_need = np.argsort(fit.held_out.n_unique, kind="stable")
        half = len(by_need) // 2
        for name, kept in (
            ("all", by_need),
            ("the half with most unique patches", by_need[half:]),
            ("a random half", np.random.default_rng(1).permutation(by_need)[half:]),
            ("the half with fewest", by_need[: len(by_need) - half]),
        ):
            memory = PatchCoreMemory.build(
                np.concatenate([fit.parts[number].tokens for number in kept]),
                GRID,
                RATE * len(by_need) / len(kept),  # a bank of the same size
            )
            fresh = [part for number, part in enumerate(data.good) if number not in set(order)]
            distances = memory.distances(everything)
            rows.append(
                (
                    data.name,
                    name,
                    len(kept),
                    f"{distances.max():.3f}",
                    f"{np.percentile(distances, 99.9):.3f}",
                    f"{auroc(scores(fresh, memory), scores(data.defective, memory)):.3f}",
                )
            )
    print_table(
        "Fits without the images that the bank hardly needs, banks of the same size",
        ("data set", "images", "number", "farthest patch of all", "p99.9 of all", "image AUROC"),
        rows,
    )


def auroc(good: Scores, defective: Scores) -> float:
    """Chance that a defective part scores above a good one."""
    return float(roc_auc_score([0] * len(good) + [1] * len(defective), np.concatenate([good, defective])))


if __name__ == "__main__":
    main()
