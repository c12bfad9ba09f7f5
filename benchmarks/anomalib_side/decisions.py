"""Decisions beside anomalib, at the thresholds that each system sets by itself, on the same images.

``python -m benchmarks.anomalib_side.decisions PYTHON --data FOLDER …``: all good images of a set are pooled and split
at random into those of the fit and new ones, as in `benchmarks.decisions`. The defective ones are all new. At most
``--most-test`` images of each class are judged, the same by all systems.

anomalib sets the threshold that gives the highest F1 on a validation split (F1AdaptiveThreshold). The source of the
split decides which images this needs:

- ``from_test``, the default of its data module for folders: a random half of the test images, defective ones included.
  Here each half gives the threshold for the other, so that every image counts once.
- ``same_as_test``, the default of its data module for MVTec AD: the test images themselves.
- ``synthetic``: half of the good images of the fit, half of those with synthetic defects. Only this split needs no
  defective image; the model is fitted on the other half.

Our decisions use the threshold from the honest scores of the fit, alone and with the same half of the defective images.
AnomalyDINO and PatchCore run on the weights of the service, each at the multiple of 14 pixels that is nearest to its
own default input size; the ImageNet backbones of PatchCore come only from a hub. The rest is their default.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu
from tqdm import tqdm

from backend.calib import choose_threshold
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import CONTRACT, RECOMMENDED
from backend.network.weights import find_weights
from backend.service.inspection import InspectionService
from benchmarks.anomalib_side.engines import THEIRS, say, share_cores
from benchmarks.anomalib_side.worker import Worker
from benchmarks.decisions import embed, recommended_threshold, scored
from benchmarks.splits import Split, open_split
from harness.measuring import print_table

Scores = npt.NDArray[np.float64]
Choose = Callable[[Scores, Scores], float]

_SIDE = 252
_SYSTEMS = {
    f"AnomalyDINO, {_SIDE} pixels, every patch": ("open", {"sampling_ratio": None}),
    f"PatchCore on DINOv2, {_SIDE} pixels, 10 % coreset": ("open_patchcore", {}),
}
_WAYS = ("no NG image", "half of the test images", "the test images themselves")


@dataclass(frozen=True)
class Rates:
    """Shares of good parts rejected and of defective parts that escape."""

    rejected: float
    escaped: float

    @classmethod
    def of(cls, good: Scores, defective: Scores, threshold: float, *, at_it: bool) -> "Rates":
        """At a threshold; `at_it` says whether a score that equals it is a defect: in ours it is, in anomalib not."""
        if at_it:
            return cls(float(np.mean(good >= threshold)), float(np.mean(defective < threshold)))
        return cls(float(np.mean(good > threshold)), float(np.mean(defective <= threshold)))

    @property
    def error(self) -> float:
        """The mean of both."""
        return (self.rejected + self.escaped) / 2


@dataclass(frozen=True)
class Row:
    """What was measured of a system on one or several splits of a set.

    Attributes:
        name: of the set.
        system: its name.
        n_train: images of the fit.
        auroc: of the model that was fitted on them.
        auroc_of_half: of the one that the validation split takes half of them from; None where it takes none.
        rates: by the way to the threshold; without those that a system does not have.
    """

    name: str
    system: str
    n_train: str
    auroc: float
    auroc_of_half: float | None
    rates: dict[str, Rates]

    def cells(self) -> list[str]:
        """As the table shows them."""
        cells = [self.name, self.n_train, self.system, f"{self.auroc:.3f}"]
        cells.append("" if self.auroc_of_half is None else f"{self.auroc_of_half:.3f}")
        for way in _WAYS:
            found = self.rates.get(way)
            cells.append("" if found is None else f"{100 * found.rejected:.1f} / {100 * found.escaped:.1f}")
            cells.append("" if found is None else f"{100 * found.error:.1f}")
        return cells


def parts_of(split: Split, seed: int, most_train: int, most_test: int) -> tuple[list[Path], list[Path], list[Path]]:
    """Random images: those of a fit, and fresh good and defective ones.

    Args:
        split: of the set.
        seed: of the draw.
        most_train: images of the fit, at most; half of the good ones, at most.
        most_test: images of each class that are judged, at most.
    """
    draw, pooled = np.random.default_rng(seed), [*split.train, *split.good]
    good = [pooled[number] for number in draw.permutation(len(pooled))]
    defective = [split.defective[number] for number in draw.permutation(len(split.defective))]
    n_train = min(most_train, len(pooled) // 2)
    return good[:n_train], good[n_train : n_train + most_test], defective[:most_test]


def auroc(good: Scores, defective: Scores) -> float:
    """Probability that a defective part scores above a good one, ties counted by half."""
    return float(mannwhitneyu(defective, good).statistic) / (len(good) * len(defective))


def halves(n: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Random halves of n images; the first has one more where n is odd."""
    order = np.random.default_rng(seed).permutation(n)
    return order[: n - n // 2], order[n // 2 + n % 2 :]


def crossed(good: Scores, defective: Scores, seed: int, choose: Choose, *, at_it: bool) -> Rates:
    """Each half of the images judged at the threshold that the other half gives, so that every image counts once.

    Args:
        good, defective: scores of the test images.
        seed: of the halves.
        choose: gives the threshold from the scores of a half.
        at_it: see `Rates.of`.
    """
    parts = (halves(len(good), seed), halves(len(defective), seed))
    rejected, escaped = 0.0, 0.0
    for known, judged in ((0, 1), (1, 0)):
        threshold = choose(good[parts[0][known]], defective[parts[1][known]])
        here = (good[parts[0][judged]], defective[parts[1][judged]])
        rates = Rates.of(*here, threshold, at_it=at_it)
        rejected += rates.rejected * len(here[0]) / len(good)
        escaped += rates.escaped * len(here[1]) / len(defective)
    return Rates(rejected, escaped)


def means_of(rows: Sequence[Row], name: str) -> list[Row]:
    """The mean of each system; each row counts alike."""
    means = []
    for system in dict.fromkeys(row.system for row in rows):
        same = [row for row in rows if row.system == system]
        of_half = [row.auroc_of_half for row in same if row.auroc_of_half is not None]
        rates = {
            way: Rates(
                float(np.mean([row.rates[way].rejected for row in same])),
                float(np.mean([row.rates[way].escaped for row in same])),
            )
            for way in same[0].rates
        }
        n_train = same[0].n_train if len({row.n_train for row in same}) == 1 else ""
        means.append(
            Row(
                name,
                system,
                n_train,
                float(np.mean([row.auroc for row in same])),
                float(np.mean(of_half)) if of_half else None,
                rates,
            )
        )
    return means


def our_rows(
    service: InspectionService, name: str, seed: int, train: Sequence[Path], good: Sequence[Path], bad: Sequence[Path]
) -> list[Row]:
    """Both ways of the service on one split."""
    pooled = embed(service, [*train, *good], with_defects=False, name=f"{name}, good")
    defective = embed(service, bad, with_defects=False, name=f"{name}, defective")
    rows = []
    for profile, choose in ((CONTRACT, choose_threshold), (RECOMMENDED, recommended_threshold)):
        order = np.arange(len(train) + len(good))
        found = scored(service, profile, pooled, defective, order, len(train), paired=False)
        honest = found.honest.tolist()

        def with_ng(_good: Scores, ng: Scores, choose: Any = choose, honest: list[float] = honest) -> float:
            return float(choose(honest, ng.tolist()))

        rates = {
            _WAYS[0]: Rates.of(found.good, found.defective, choose(honest, []), at_it=True),
            _WAYS[1]: crossed(found.good, found.defective, seed, with_ng, at_it=True),
        }
        rows.append(Row(name, f"ours, {profile}", str(len(train)), found.auroc, None, rates))
    return rows


@contextlib.contextmanager
def fitted(python: Path, scratch: Path, order: str, images: Sequence[Path], **given: Any) -> Iterator[Worker]:
    """A process of anomalib's with a model that was fitted on image files."""
    scratch.mkdir(parents=True)
    with Worker(python, THEIRS, scratch / "log") as worker:
        worker.ask(order, scratch=str(scratch), input_size=_SIDE, **given)
        worker.ask("fit", images=[str(path) for path in images])
        yield worker


def their_row(
    python: Path,
    scratch: Path,
    name: str,
    system: str,
    seed: int,
    train: Sequence[Path],
    good: Sequence[Path],
    bad: Sequence[Path],
) -> Row:
    """A system of anomalib on one split, at all of its thresholds."""
    opening, given = _SYSTEMS[system]
    given = {**given, "weights": str(find_weights(load_settings()).path)}

    def score(worker: Worker, images: Sequence[Path | str]) -> Scores:
        return np.array([worker.ask("infer", image=str(image))["score"] for image in tqdm(images, desc=system)])

    def choose(worker: Worker, good: Scores, defective: Scores) -> float:
        labels = [0] * len(good) + [1] * len(defective)
        return float(worker.ask("threshold", scores=[*good, *defective], labels=labels)["threshold"])

    with fitted(python, scratch / "all", opening, train, **given) as worker:
        of_good, of_bad = score(worker, good), score(worker, bad)
        of_all = auroc(of_good, of_bad)
        half = crossed(of_good, of_bad, seed, partial(choose, worker), at_it=False)
        same = Rates.of(of_good, of_bad, choose(worker, of_good, of_bad), at_it=False)
    kept, set_aside = ([train[number] for number in numbers] for numbers in halves(len(train), seed))
    with fitted(python, scratch / "half", opening, kept, **given) as worker:
        images = [str(path) for path in set_aside]
        made = worker.ask("synthesize", images=images, folder=str(scratch / "synthetic"), seed=seed)
        scores, labels = score(worker, made["images"]), np.array(made["labels"])
        threshold = choose(worker, scores[labels == 0], scores[labels == 1])
        of_good, of_bad = score(worker, good), score(worker, bad)
        synthetic = Rates.of(of_good, of_bad, threshold, at_it=False)
    rates = dict(zip(_WAYS, (synthetic, half, same), strict=True))
    return Row(name, system, str(len(train)), of_all, auroc(of_good, of_bad), rates)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="interpreter of anomalib's environment")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in MVTec layout")
    parser.add_argument("--splits", type=int, default=2, help="random splits of the good images (%(default)s)")
    parser.add_argument(
        "--most-train", type=int, default=60, help="maximum number of good images in a fit (%(default)s)"
    )
    parser.add_argument(
        "--most-test", type=int, default=60, help="maximum number of judged images of a class (%(default)s)"
    )
    options = parser.parse_args(arguments)
    share_cores()
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))  # see benchmarks.anomalib_side.accuracy
    configure_logging("error", "console")
    service = InspectionService.open(load_settings())
    rows: list[Row] = []
    for folder in options.data:
        split, found = open_split(folder.resolve()), []
        for seed in range(options.splits):
            parts = parts_of(split, seed, options.most_train, options.most_test)
            found += our_rows(service, split.name, seed, *parts)
            for system in _SYSTEMS:
                say(f"{split.name}, split {seed + 1} of {options.splits}: {system}")
                with tempfile.TemporaryDirectory() as scratch:
                    found.append(their_row(options.python, Path(scratch), split.name, system, seed, *parts))
        rows += means_of(found, split.name)
    header = ["set", "in the fit", "system", "AUROC", "AUROC, fitted on half"]
    for way in _WAYS:
        header += [f"{way}: rejected / escaped, %", f"{way}: error, %"]
    means = means_of(rows, f"mean of {len(options.data)} sets") if len(options.data) > 1 else []
    print_table("Decisions at the thresholds that each system sets", header, [row.cells() for row in [*rows, *means]])


if __name__ == "__main__":
    main()
