"""Decisions at the thresholds that the service chooses: good parts rejected, and defective parts that escape.

``python -m benchmarks.decisions FOLDER …``: data sets in MVTec layout. All good images of a set are pooled and split at
random into those of the fit and fresh ones; the order of the fit is random with them. The network sees every image
once. ``--planted`` adds for each set one whose defective parts are its good ones with a defect of 8 to 24 pixels.

Compared are the contract's way (profile and rule) and the recommended one, with the honest scores of the fit alone, and
with 3 and with 10 NG images, which are left out of the escapes; beside them the best threshold in hindsight for the
same scores. The error is the mean of both rates. Intervals are of the mean over the splits: 1.96 standard errors.
"""

import argparse
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu
from tqdm import tqdm

from backend.bank.building import build_bank
from backend.calib import choose_threshold
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import (
    CONTRACT,
    RECOMMENDED,
    RECOMMENDED_BLOCKS,
    ProfileName,
    coreset_rate_of,
    score_percentile_of,
)
from backend.infer import image_scores
from backend.scores.recommended_threshold import recommend
from backend.service.inspection import InspectionService
from backend.utils import decode_image
from benchmarks.planted import planted
from benchmarks.splits import open_split
from harness.measuring import print_table

Scores = npt.NDArray[np.float64]
_NG_COUNTS = (0, 3, 10)
_DRAWS = 10


@dataclass(frozen=True)
class Embedded:
    """Images after the network.

    Attributes:
        tokens: float32 [n, patches, blocks * D].
        sizes: (rows, columns) of each image.
    """

    tokens: npt.NDArray[np.float32]
    sizes: list[tuple[int, int]]


@dataclass(frozen=True)
class Scored:
    """One split: honest scores of the fit, and those of fresh good and of defective parts."""

    honest: Scores
    good: Scores
    defective: Scores

    @property
    def auroc(self) -> float:
        """Probability that a defective part scores above a good one, ties counted by half."""
        pairs = len(self.good) * len(self.defective)
        return float(mannwhitneyu(self.defective, self.good).statistic) / pairs

    @property
    def best_error(self) -> float:
        """At the best threshold in hindsight."""
        thresholds = np.unique(np.concatenate([self.good, self.defective, [np.inf]]))
        return min(float(np.mean(self.good >= t) + np.mean(self.defective < t)) / 2 for t in thresholds)


def embed(service: InspectionService, paths: Sequence[Path], *, with_defects: bool, name: str) -> Embedded:
    """Every image once; `with_defects` plants one into each."""
    features = service.features_of(RECOMMENDED)
    tokens, sizes = [], []
    for path in tqdm(paths, desc=name):
        pixels = decode_image(path.read_bytes(), path.name, service.limits)
        if with_defects:
            pixels = planted(pixels, int(hashlib.sha256(str(path.name).encode()).hexdigest()[:8], 16))
        tokens.append(features.extract(pixels)[0])
        sizes.append((pixels.shape[0], pixels.shape[1]))
    return Embedded(np.stack(tokens), sizes)


def scored(
    service: InspectionService,
    profile: ProfileName,
    good: Embedded,
    defective: Embedded,
    order: npt.NDArray[np.int64],
    n_train: int,
    *,
    paired: bool,
) -> Scored:
    """Fit the first images of an order, and score the others."""
    settings, token_hw = service.settings, service.features.token_hw
    dim = service.features.dim if profile == CONTRACT else good.tokens.shape[2]
    train, fresh = order[:n_train], order[n_train:]
    bank = build_bank(
        np.ascontiguousarray(good.tokens[train][:, :, -dim:]).reshape(-1, dim),
        [str(number) for number in train],
        token_hw,
        coreset_rate_of(profile, settings.coreset_rate),
        None,
        contextlib.nullcontext,
        lambda *_: None,
        n_blocks=len(RECOMMENDED_BLOCKS) if profile == RECOMMENDED else 1,
    )
    if bank.held_out is None or bank.held_out.distances is None:
        raise SystemExit("so large a fit has no honest scores: give --most-train")
    percentile = score_percentile_of(profile, settings.score_percentile)

    def score(distances: npt.NDArray[np.float32], image_hw: tuple[int, int]) -> float:
        return image_scores(distances.reshape(token_hw), image_hw, None, settings.blur_sigma, [percentile])[0]

    def score_all(images: Embedded, numbers: Sequence[int]) -> Scores:
        return np.array([score(bank.memory.distances(images.tokens[n][:, -dim:]), images.sizes[n]) for n in numbers])

    held_out = zip(bank.held_out.distances, train, strict=True)
    honest = np.array([score(distances, good.sizes[number]) for distances, number in held_out])
    return Scored(
        honest, score_all(good, fresh), score_all(defective, fresh if paired else range(len(defective.tokens)))
    )


def errors(
    found: Scored, n_ng: int, choose: Callable[[Sequence[float], Sequence[float]], float]
) -> tuple[float, float]:
    """Share of good parts rejected, and of defective ones that escape, over draws of the NG images."""
    every = []
    for draw in range(_DRAWS if n_ng else 1):
        order = np.random.default_rng(draw).permutation(len(found.defective))
        threshold = choose(found.honest.tolist(), found.defective[order[:n_ng]].tolist())
        every.append((np.mean(found.good >= threshold), np.mean(found.defective[order[n_ng:]] < threshold)))
    rejected, escaped = np.mean(every, axis=0)
    return float(rejected), float(escaped)


def recommended_threshold(ok_scores: Sequence[float], ng_scores: Sequence[float]) -> float:
    """As ``rule=recommended`` chooses it."""
    return recommend(ok_scores, ng_scores).threshold


def rows_of(
    service: InspectionService, folder: Path, n_splits: int, most_train: int, *, with_planted: bool
) -> list[tuple[str, ...]]:
    """The rows of a data set."""
    split = open_split(folder)
    good = embed(service, [*split.train, *split.good], with_defects=False, name=split.name)
    sets = {split.name: (embed(service, split.defective, with_defects=False, name=split.name), False)}
    if with_planted:
        name = f"{split.name}, planted"
        sets[name] = (embed(service, [*split.train, *split.good], with_defects=True, name=name), True)
    n_train = min(most_train, len(good.tokens) // 2)
    rows = []
    for name, (defective, paired) in sets.items():
        for profile, choose in ((CONTRACT, choose_threshold), (RECOMMENDED, recommended_threshold)):
            found = []
            for number in tqdm(range(n_splits), desc=f"{name}, {profile}"):
                order = np.random.default_rng(number).permutation(len(good.tokens))
                found.append(scored(service, profile, good, defective, order, n_train, paired=paired))
            rows.append(_row(name, profile, n_train, found, choose))
    return rows


def _row(
    name: str,
    profile: ProfileName,
    n_train: int,
    found: Sequence[Scored],
    choose: Callable[[Sequence[float], Sequence[float]], float],
) -> tuple[str, ...]:
    areas = [split.auroc for split in found]
    cells = [_mean(areas, 3), _mean([100 * split.best_error for split in found], 1)]
    for n_ng in _NG_COUNTS:
        rates = np.array([errors(split, n_ng, choose) for split in found]) * 100
        rejected, escaped = rates.mean(axis=0)
        cells += [f"{rejected:.1f} / {escaped:.1f}", _mean(rates.mean(axis=1).tolist(), 1)]
    return (name, profile, str(n_train), *cells)


def _mean(values: Sequence[float], digits: int) -> str:
    spread = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {spread:.{digits}f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=20, help="random splits of the good images; default 20")
    parser.add_argument("--most-train", type=int, default=60, help="good images of a fit, at most; default 60")
    parser.add_argument("--planted", action="store_true", help="also with planted small defects")
    options = parser.parse_args()
    configure_logging("warning", "console")
    service = InspectionService.open(load_settings())
    rows = []
    for folder in options.folders:
        rows += rows_of(service, folder, options.splits, options.most_train, with_planted=options.planted)
    header = ["data set", "way", "in the fit", "AUROC", "best error in hindsight, %"]
    for n_ng in _NG_COUNTS:
        given = f"{n_ng} NG" if n_ng else "good only"
        header += [f"{given}: rejected / escaped, %", f"{given}: error, %"]
    print_table("Decisions at the thresholds that are chosen", header, rows)


if __name__ == "__main__":
    main()
