"""Whether a detail above 1 loses anything on data sets as they are: image AUROC beside detail 1.

``python -m benchmarks.detail_sets FOLDER …``: data sets in MVTec layout. In each of ``--splits`` splits, a random half
of all good images is fitted. The other half and the defective images are scored, as by an inference without a
calibration. The interval of a difference is that of a paired bootstrap over the scored images, for the mean of all
splits. It draws the good images of every split by their places, although these are not the same images: so it is
approximate.
``--good`` and ``--defective`` take a random part of the images, always the same. ``--cache`` keeps the tokens.
"""

import argparse
import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from backend.bank.building import build_bank
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import (
    CONTRACT,
    PROFILES,
    RECOMMENDED,
    RECOMMENDED_BLOCKS,
    ProfileName,
    coreset_rate_of,
    score_percentile_of,
)
from backend.infer import image_scores
from backend.service.inspection import InspectionService
from benchmarks.detail_tokens import Tokens
from benchmarks.paired import Scores, interval
from benchmarks.splits import open_split
from harness.measuring import print_table

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """An image's tokens.

    Attributes:
        image_hw: rows and columns of the image.
        tokens: reads float32 [rows * columns of the token grid, D].
    """

    image_hw: tuple[int, int]
    tokens: Callable[[], Array]


@dataclass(frozen=True)
class DataSet:
    """Images of a data set at one detail; each was looked at once.

    Attributes:
        service: the settings and the network.
        tokens: at this detail.
        good, defective: its images.
    """

    service: InspectionService
    tokens: Tokens
    good: list[Embedded]
    defective: list[Embedded]

    @classmethod
    def open(
        cls, service: InspectionService, tokens: Tokens, good: Sequence[Path], defective: Sequence[Path]
    ) -> "DataSet":
        """Look at all images."""
        detail = tokens.detail
        embedded = [_embedded(tokens, path) for path in tqdm([*good, *defective], desc=f"detail {detail}, images")]
        return cls(service, tokens, embedded[: len(good)], embedded[len(good) :])

    def judge(self, split: int, profile: ProfileName) -> Scores:
        """Fit a random half of the good images, and score the others."""
        order = np.random.default_rng(split).permutation(len(self.good))
        half, detail = len(order) // 2, self.tokens.detail
        fitted = [self._part(self.good[number], profile) for number in order[:half]]
        memory = build_bank(
            np.concatenate(fitted),
            [str(number) for number in range(half)],
            self.tokens.grid_hw,
            coreset_rate_of(profile, self.service.settings.coreset_rate, detail),
            None,
            contextlib.nullcontext,
            lambda *_: None,
            n_blocks=1 if profile == CONTRACT else len(RECOMMENDED_BLOCKS),
        ).memory
        percentile = score_percentile_of(profile, self.service.settings.score_percentile, detail)
        scores = []
        for image in [*(self.good[number] for number in order[half:]), *self.defective]:
            distances = memory.distances(self._part(image, profile)).reshape(self.tokens.grid_hw)
            found = image_scores(distances, image.image_hw, None, self.service.settings.blur_sigma, [percentile])
            scores.append(found[0])
        return Scores(np.array(scores[: len(order) - half]), np.array(scores[len(order) - half :]))

    def _part(self, image: Embedded, profile: ProfileName) -> Array:
        """The embeddings that a profile compares: all blocks side by side, or the last one."""
        return image.tokens()[:, -self.service.features.dim :] if profile == CONTRACT else image.tokens()


def _embedded(tokens: Tokens, path: Path) -> Embedded:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} is no image that OpenCV reads")
    pixels, name = np.asarray(image, np.uint8), "-".join(path.parts[-3:])
    kept = tokens.of_scene(name, pixels)
    if tokens.folder is None:
        return Embedded((pixels.shape[0], pixels.shape[1]), lambda: kept)
    return Embedded((pixels.shape[0], pixels.shape[1]), lambda: tokens.of_scene(name, pixels))


def chosen(paths: Sequence[Path], count: int | None, rng: np.random.Generator) -> list[Path]:
    """So many of some paths, in their order; None is all."""
    return [paths[number] for number in sorted(rng.permutation(len(paths))[:count])]


def rows_of(name: str, sets: Sequence[DataSet], profile: ProfileName, splits: int) -> list[tuple[object, ...]]:
    """The lines of a data set and a profile: detail 1, and the others beside it."""
    judged = [[data.judge(split, profile) for split in range(splits)] for data in sets]
    drawn = [np.mean([scores.resampled_auroc() for scores in each], axis=0) for each in judged]
    counts = f"{len(judged[0][0].good)} + {len(judged[0][0].defective)}"
    rows = []
    for data, scores, resampled in zip(sets, judged, drawn, strict=True):
        means = [statistics.mean(each.auroc for each in one) for one in (scores, judged[0])]
        low, high = interval(resampled - drawn[0])
        gain = "" if data is sets[0] else f"{means[0] - means[1]:+.3f} ({low:+.3f} … {high:+.3f})"
        rows.append((name, profile, counts, data.tokens.detail, f"{means[0]:.3f}", gain))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--details", metavar="N", nargs="+", type=int, default=[2], help="beside detail 1; default 2")
    parser.add_argument("--profile", nargs="+", choices=PROFILES, default=PROFILES, help="default both")
    parser.add_argument("--splits", type=int, default=5, help="default 5")
    parser.add_argument("--good", metavar="N", type=int, help="good images; default all")
    parser.add_argument("--defective", metavar="N", type=int, help="defective images; default all")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, help="keep the tokens: 3 MB × N² an image")
    options = parser.parse_args(arguments)
    configure_logging("error", "console")
    service = InspectionService.open(load_settings())
    rows: list[tuple[object, ...]] = []
    for folder in options.folders:
        split = open_split(folder)
        rng = np.random.default_rng(5)
        good = chosen(sorted([*split.train, *split.good]), options.good, rng)
        defective = chosen(split.defective, options.defective, rng)
        kept = options.cache and options.cache / f"{split.name}-images"
        sets = [
            DataSet.open(service, Tokens(service.features_of(RECOMMENDED).at(detail), kept), good, defective)
            for detail in (1, *options.details)
        ]
        for profile in options.profile:
            rows += rows_of(split.name, sets, profile, options.splits)
    header = (
        "data set",
        "profile",
        "scored, good + defective",
        "detail",
        "image AUROC",
        "minus that of detail 1 (95 %)",
    )
    print_table(f"Data sets as they are, mean of {options.splits} splits", header, rows)


if __name__ == "__main__":
    main()
