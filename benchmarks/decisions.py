"""Decisions at the thresholds that the service chooses: false rejects and escapes.

``python -m benchmarks.decisions FOLDER …``: data sets in MVTec layout. All good images of a set are pooled and split at
random into those of the fit and new ones, in random order. The network sees every image once. For each set,
``--planted`` adds one whose defective parts are the good ones with a defect of 8 to 24 pixels.

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

from backend.bank.building import Bank, build_bank
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


@dataclass(frozen=True)
class Row:
    """What was measured on a data set in one way.

    Attributes:
        name: of the data set.
        profile: of the way.
        n_train: images in the fit.
        aurocs, best: float64 [splits], AUROC and the best error in hindsight.
        rates: float64 [splits, NG counts, 2], shares of good parts rejected and of defective ones escaped.
        is_planted: whether the defects are planted.
    """

    name: str
    profile: ProfileName
    n_train: str
    aurocs: Scores
    best: Scores
    rates: Scores
    is_planted: bool

    def cells(self, *, with_interval: bool) -> list[str]:
        """As the table shows them."""

        def mean(values: Scores, digits: int) -> str:
            shown = f"{values.mean():.{digits}f}"
            if not with_interval or len(values) < 2:
                return shown
            return f"{shown} ± {1.96 * values.std(ddof=1) / np.sqrt(len(values)):.{digits}f}"

        cells = [self.name, self.profile, self.n_train, mean(self.aurocs, 3), mean(100 * self.best, 1)]
        for number in range(self.rates.shape[1]):
            rejected, escaped = 100 * self.rates[:, number].mean(axis=0)
            cells += [f"{rejected:.1f} / {escaped:.1f}", mean(100 * self.rates[:, number].mean(axis=1), 1)]
        return cells


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


def bank_of(
    service: InspectionService, profile: ProfileName, good: Embedded, train: npt.NDArray[np.int64]
) -> tuple[Bank, int]:
    """The memory bank of some good images, and the length of the embeddings that it compares."""
    dim = service.features.dim if profile == CONTRACT else good.tokens.shape[2]
    bank = build_bank(
        np.ascontiguousarray(good.tokens[train][:, :, -dim:]).reshape(-1, dim),
        [str(number) for number in train],
        service.features.token_hw,
        coreset_rate_of(profile, service.settings.coreset_rate),
        None,
        contextlib.nullcontext,
        lambda *_: None,
        n_blocks=len(RECOMMENDED_BLOCKS) if profile == RECOMMENDED else 1,
    )
    return bank, dim


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
    train, fresh = order[:n_train], order[n_train:]
    bank, dim = bank_of(service, profile, good, train)
    if bank.held_out.distances is None or bank.held_out.positions is not None:
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
) -> list[Row]:
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
            rates = np.array([[errors(split, n_ng, choose) for n_ng in _NG_COUNTS] for split in found])
            aurocs, best = np.array([[split.auroc, split.best_error] for split in found]).T
            rows.append(Row(name, profile, str(n_train), aurocs, best, rates, is_planted=paired))
    return rows


def means_of(rows: Sequence[Row]) -> list[Row]:
    """The mean of the sets for both ways, of defects of their own and of planted ones; each set counts alike."""
    means = []
    for is_planted in (False, True):
        for profile in (CONTRACT, RECOMMENDED):
            same = [row for row in rows if row.is_planted == is_planted and row.profile == profile]
            if len(same) > 1:
                name = f"mean of {len(same)} sets" + (", planted" if is_planted else "")
                aurocs, best = (
                    np.array([np.mean(values) for values in of])
                    for of in zip(*((r.aurocs, r.best) for r in same), strict=True)
                )
                means.append(
                    Row(
                        name,
                        profile,
                        "",
                        aurocs,
                        best,
                        np.array([row.rates.mean(axis=0) for row in same]),
                        is_planted=is_planted,
                    )
                )
    return means


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=20, help="random splits of the good images; default 20")
    parser.add_argument("--most-train", type=int, default=60, help="maximum number of good images in a fit; default 60")
    parser.add_argument("--planted", action="store_true", help="also test planted small defects")
    options = parser.parse_args()
    configure_logging("warning", "console")
    service = InspectionService.open(load_settings())
    rows: list[Row] = []
    for folder in options.folders:
        rows += rows_of(service, folder, options.splits, options.most_train, with_planted=options.planted)
    header = ["data set", "way", "in the fit", "AUROC", "best error in hindsight, %"]
    for n_ng in _NG_COUNTS:
        given = f"{n_ng} NG" if n_ng else "good only"
        header += [f"{given}: rejected / escaped, %", f"{given}: error, %"]
    cells = [row.cells(with_interval=True) for row in rows] + [row.cells(with_interval=False) for row in means_of(rows)]
    print_table("Decisions at the thresholds that are chosen", header, cells)


if __name__ == "__main__":
    main()
