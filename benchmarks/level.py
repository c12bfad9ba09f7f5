"""Whether decisions improve if the level of each image is subtracted from its map, with the recommended profile.

``python -m benchmarks.level FOLDER …``: data sets in MVTec layout, split as in `benchmarks.decisions`. The level of an
image is the median of its distance map, minus the median of these medians over the good images of the fit. A share of
it is subtracted from the whole map and thus from the score, with or without a limit from the good images of the fit.
For an image of the fit, the other images count. Thresholds use only the honest scores.

Real defects, and planted ones of 8 to 24 pixels. "All over" are new good images that are black, inverted or blurred (σ
= 8): a part that differs everywhere raises its level, but must still be rejected. In brackets: the difference to the
unchanged profile, with 1.96 standard errors of its mean over the splits.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from backend.block_memory import Memory
from backend.common.arrays import Bgr
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import RECOMMENDED, RECOMMENDED_PERCENTILE
from backend.infer import image_scores
from backend.scores.recommended_threshold import recommend
from backend.service.inspection import InspectionService
from backend.utils import decode_image
from benchmarks.decisions import Embedded, Scored, bank_of, embed
from benchmarks.splits import open_split
from harness.measuring import print_table

Scores = npt.NDArray[np.float64]
Figures = npt.NDArray[np.float64]
"""float64 [splits, 5], see `Split.figures`."""
_BLUR = 8.0
_ALL_OVER_EVERY = 8
_ALL_OVER = 4  # the column


@dataclass(frozen=True)
class Way:
    """How much of the level is subtracted: a share of it, within what the good images show or without limits."""

    name: str
    share: float
    is_limited: bool

    def corrections(self, known: Scores, levels: Scores) -> Scores:
        """What is subtracted from images with these medians, by those of the good images that are known."""
        above = levels - np.median(known)
        if self.is_limited:
            above = np.clip(above, *(np.quantile(known, (0, 1)) - np.median(known)))
        return np.asarray(self.share * above)


WAYS = (
    Way("as it is", 0.0, is_limited=True),
    Way("half of the level", 0.5, is_limited=True),
    Way("the level", 1.0, is_limited=True),
    Way("the level, no limits", 1.0, is_limited=False),
)


@dataclass(frozen=True)
class Maps:
    """What images gave: float64 [n] each.

    Attributes:
        scores: p99.5 of the map.
        medians: of its distances, on the token grid.
    """

    scores: Scores
    medians: Scores


@dataclass(frozen=True)
class Split:
    """The images of the fit by the bank of the others, fresh good ones, and those that are not good."""

    honest: Maps
    good: Maps
    defective: Maps
    planted: Maps
    all_over: Maps

    def figures(self, way: Way) -> list[float]:
        """In %, but for AUROCs: AUROC and error of real and of planted defects, and parts wrong all over rejected."""
        known = self.honest.medians
        others = [np.delete(known, number) for number in range(len(known))]
        own = [way.corrections(rest, known[[number]])[0] for number, rest in enumerate(others)]
        honest = self.honest.scores - np.array(own)
        threshold = recommend(honest.tolist()).threshold

        def corrected(maps: Maps) -> Scores:
            return maps.scores - way.corrections(known, maps.medians)

        good, figures = corrected(self.good), []
        for maps in (self.defective, self.planted):
            scored = Scored(honest, good, corrected(maps))
            error = np.mean(good >= threshold) + np.mean(scored.defective < threshold)
            figures += [scored.auroc, 50 * float(error)]
        wrong = corrected(self.all_over)
        return [*figures, 100 * float(np.mean(wrong >= threshold)) if len(wrong) else np.nan]


def changed_all_over(image: Bgr) -> list[Bgr]:
    """The image black, inverted and blurred: uint8 [H, W, 3], BGR, each."""
    return [np.zeros_like(image), 255 - image, np.asarray(cv2.GaussianBlur(image, (0, 0), _BLUR), np.uint8)]


def embed_all_over(service: InspectionService, paths: list[Path], name: str) -> dict[int, Embedded]:
    """Every eighth image, changed all over, by its number."""
    features, found = service.features_of(RECOMMENDED), {}
    for number in tqdm(range(0, len(paths), _ALL_OVER_EVERY), desc=f"{name}, all over"):
        image = decode_image(paths[number].read_bytes(), paths[number].name, service.limits)
        tokens = [features.extract(pixels)[0] for pixels in changed_all_over(image)]
        found[number] = Embedded(np.stack(tokens), [(image.shape[0], image.shape[1])] * len(tokens))
    return found


def maps_of(service: InspectionService, found: Iterable[tuple[npt.NDArray[np.float32], tuple[int, int]]]) -> Maps:
    """Of token distances, each with the size of its image."""
    token_hw, blur_sigma = service.features.token_hw, service.settings.blur_sigma
    pairs = [
        (
            image_scores(distances.reshape(token_hw), image_hw, None, blur_sigma, [RECOMMENDED_PERCENTILE])[0],
            float(np.median(distances)),
        )
        for distances, image_hw in found
    ]
    scores, medians = np.array(pairs, np.float64).reshape(-1, 2).T
    return Maps(scores, medians)


def splits_of(service: InspectionService, folder: Path, n_splits: int, most_train: int) -> list[Split]:
    """What every split of a data set gives."""
    files = open_split(folder)
    paths = [*files.train, *files.good]
    good = embed(service, paths, with_defects=False, name=files.name)
    defective = embed(service, files.defective, with_defects=False, name=files.name)
    planted = embed(service, paths, with_defects=True, name=f"{files.name}, planted")
    all_over = embed_all_over(service, paths, files.name)
    n_train = min(most_train, len(paths) // 2)

    def scored(memory: Memory, images: Embedded, numbers: Iterable[int]) -> Maps:
        return maps_of(service, ((memory.distances(images.tokens[n]), images.sizes[n]) for n in numbers))

    splits = []
    for number in tqdm(range(n_splits), desc=f"{files.name}, splits"):
        order = np.random.default_rng(number).permutation(len(paths))
        train, fresh = order[:n_train], order[n_train:]
        bank, _ = bank_of(service, RECOMMENDED, good, train)
        if bank.held_out.distances is None or bank.held_out.positions is not None:
            raise SystemExit("so large a fit has no honest scores: give --most-train")
        honest = zip(bank.held_out.distances, (good.sizes[n] for n in train), strict=True)
        changed = [
            (bank.memory.distances(tokens), image_hw)
            for n in fresh.tolist()
            if n in all_over
            for tokens, image_hw in zip(all_over[n].tokens, all_over[n].sizes, strict=True)
        ]
        splits.append(
            Split(
                maps_of(service, honest),
                scored(bank.memory, good, fresh),
                scored(bank.memory, defective, range(len(defective.tokens))),
                scored(bank.memory, planted, fresh),
                maps_of(service, changed),
            )
        )
    return splits


def row(name: str, way: Way, of_sets: list[Figures], as_it_is: list[Figures]) -> list[str]:
    """The means over sets, and by how much they differ from those of the profile as it is, with intervals."""
    cells = [name, way.name]
    for column, digits in enumerate((3, 1, 3, 1, 0)):
        cells.append(f"{np.mean([np.nanmean(figures[:, column]) for figures in of_sets]):.{digits}f}")
        if way == WAYS[0] or column == _ALL_OVER:
            continue
        differences = [of[:, column] - before[:, column] for of, before in zip(of_sets, as_it_is, strict=True)]
        mean = np.mean([of.mean() for of in differences])
        variance = sum(of.var(ddof=1) / len(of) for of in differences)
        cells[-1] += f" ({mean:+.{digits}f} ± {1.96 * np.sqrt(variance) / len(differences):.{digits}f})"
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument(
        "--splits", type=int, default=10, help="random splits of the good images, at least 2; default 10"
    )
    parser.add_argument("--most-train", type=int, default=60, help="maximum number of good images in a fit; default 60")
    options = parser.parse_args()
    configure_logging("warning", "console")
    service = InspectionService.open(load_settings())
    found: dict[str, list[Figures]] = {}
    for folder in options.folders:
        splits = splits_of(service, folder, options.splits, options.most_train)
        found[folder.name] = [np.array([split.figures(way) for split in splits]) for way in WAYS]
    groups = {name: [name] for name in found}
    if len(found) > 1:
        groups[f"mean of {len(found)} sets"] = list(found)
    cells = [
        row(name, way, [found[one][number] for one in sets], [found[one][0] for one in sets])
        for name, sets in groups.items()
        for number, way in enumerate(WAYS)
    ]
    header = [
        "data set",
        "subtracted",
        "AUROC",
        "error, %",
        "planted: AUROC",
        "planted: error, %",
        "all over: rejected, %",
    ]
    print_table("Scores less the level of their image, good images only", header, cells)


if __name__ == "__main__":
    main()
