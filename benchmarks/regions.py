"""Decisions by the image score, by regions and by either, with thresholds from good images alone.

``python -m benchmarks.regions FOLDER …``: data sets in MVTec layout, split as in `benchmarks.decisions`; of large ones
100 training images and every fourth test image. ``--planted`` adds the good images with one defect of 8 to 24 pixels.
Compared are the contract's way (profile and rule) and the recommended one. Thresholds use the honest scores of the fit,
and its honest distance maps. The service does not store these maps for the contract profile; here they are made for
comparison. Areas are in pixels of the image.

The error is the mean of both rates; "held" counts the splits in which not more of the new good parts were rejected than
promised; this depends on the true rate and on chance.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from backend.block_memory import Memory
from backend.calib import Calibration, DecideBy, ThresholdOptions, calibrate
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import CONTRACT, RECOMMENDED, ProfileName, score_percentile_of
from backend.infer import region_score, to_image_grid
from backend.region_calibration import RegionScores, calibrate_by_regions
from backend.service.inspection import InspectionService
from backend.utils import percentile
from benchmarks.decisions import Embedded, bank_of, embed
from benchmarks.splits import open_split
from harness.measuring import print_table

Scores = npt.NDArray[np.float64]
_AREAS = (0, 50, 200)
# Of data sets with more training images, or with more than 200 test images.
_MOST_POOLED, _EVERY = 100, 4
_CONDITIONS = {"mm_per_px": 1.0, "score_percentile": 99.0, "memory_id": None, "ok_are_fresh": True}


@dataclass(frozen=True)
class Row:
    """What was measured on a data set in one way.

    Attributes:
        name: of the data set.
        profile: of the way.
        decide_by: of it.
        area_px: least region in pixels; None by the score alone.
        rates: float64 [splits, 2], shares of good parts rejected and of defective ones that escape.
        promised: float64 [splits], of good parts rejected at most.
        held: float64 [splits], share of splits in which they were.
        is_planted: whether the defects are planted.
    """

    name: str
    profile: ProfileName
    decide_by: DecideBy
    area_px: int | None
    rates: Scores
    promised: Scores
    held: Scores
    is_planted: bool

    def cells(self) -> list[str]:
        """As the table shows them."""
        rejected, escaped = 100 * self.rates.mean(axis=0)
        errors = 100 * self.rates.mean(axis=1)
        return [
            self.name,
            self.profile,
            self.decide_by,
            "" if self.area_px is None else str(self.area_px),
            f"{rejected:.1f} / {escaped:.1f}",
            f"{errors.mean():.1f}",
            f"{100 * self.promised.mean():.1f}",
            f"{100 * self.held.mean():.0f}",
        ]


def scores_of(
    service: InspectionService, profile: ProfileName, distances: npt.NDArray[np.float32], image_hw: tuple[int, int]
) -> list[float]:
    """The image score of a token map, and its region score for each area."""
    settings = service.settings
    distance_map = to_image_grid(distances.reshape(service.features.token_hw), image_hw, settings.blur_sigma)
    (score,) = percentile(distance_map, score_percentile_of(profile, settings.score_percentile))
    regions = [region_score(distance_map, None, area, 1.0) for area in _AREAS]
    return [score, *(-np.inf if region is None else region for region in regions)]


def score_all(
    service: InspectionService,
    profile: ProfileName,
    memory: Memory,
    dim: int,
    images: Embedded,
    numbers: npt.NDArray[np.int64],
) -> Scores:
    """The scores of images by a memory bank, which compares so long embeddings."""
    distances = (memory.distances(images.tokens[number][:, -dim:]) for number in numbers)
    found = zip(distances, numbers, strict=True)
    return np.array([scores_of(service, profile, of, images.sizes[number]) for of, number in found])


def calibrated(profile: ProfileName, decide_by: DecideBy, column: int, honest: Scores) -> Calibration:
    """As the service calibrates from good images alone; `column` is that of the region scores."""
    options = ThresholdOptions(rule=profile)
    scores, area = honest[:, 0].tolist(), float(_AREAS[column - 1])
    if decide_by == "score":
        return calibrate(scores, [], area_mm2_thr=0.0, options=options, **_CONDITIONS)
    regions = RegionScores(decide_by, honest[:, column].tolist())
    return calibrate_by_regions(scores, [], regions, area_mm2_thr=area, options=options, **_CONDITIONS)


def rejected(calibration: Calibration, column: int, scores: Scores) -> float:
    """Share of parts."""
    level = np.float32(calibration.region_threshold)
    return float(np.mean([calibration.is_defective(of[0], int(np.float32(of[column]) >= level)) for of in scores]))


def rows_of(
    service: InspectionService, folder: Path, n_splits: int, most_train: int, *, with_planted: bool
) -> list[Row]:
    """The rows of a data set."""
    split = open_split(folder, _MOST_POOLED, _EVERY)
    good = embed(service, [*split.train, *split.good], with_defects=False, name=split.name)
    sets = {split.name: (embed(service, split.defective, with_defects=False, name=split.name), False)}
    if with_planted:
        name = f"{split.name}, planted"
        sets[name] = (embed(service, [*split.train, *split.good], with_defects=True, name=name), True)
    n_train = min(most_train, len(good.tokens) // 2)
    ways: list[tuple[DecideBy, int]] = [("score", 1)]
    ways += [(decide_by, column) for column in range(1, len(_AREAS) + 1) for decide_by in ("region", "either")]
    found: dict[tuple[str, ProfileName, DecideBy, int], list[tuple[float, float, float]]] = {}
    for profile in (CONTRACT, RECOMMENDED):
        for number in tqdm(range(n_splits), desc=f"{split.name}, {profile}"):
            order = np.random.default_rng(number).permutation(len(good.tokens))
            train, fresh = order[:n_train], order[n_train:]
            bank, dim = bank_of(service, profile, good, train)
            if bank.held_out.distances is None or bank.held_out.positions is not None:
                raise SystemExit("so large a fit has no honest scores: give --most-train")
            held_out = zip(bank.held_out.distances, train, strict=True)
            honest = np.array([scores_of(service, profile, of, good.sizes[n]) for of, n in held_out])
            score = partial(score_all, service, profile, bank.memory, dim)
            fresh_scores = score(good, fresh)
            for name, (defective, paired) in sets.items():
                scores = score(defective, fresh if paired else np.arange(len(defective.tokens)))
                for decide_by, column in ways:
                    calibration = calibrated(profile, decide_by, column, honest)
                    promise = calibration.promise
                    assert promise is not None
                    assert promise.false_reject_rate_at_most is not None
                    rates = rejected(calibration, column, fresh_scores), 1 - rejected(calibration, column, scores)
                    found.setdefault((name, profile, decide_by, column), []).append(
                        (*rates, promise.false_reject_rate_at_most)
                    )
    return [
        Row(
            name,
            profile,
            decide_by,
            None if decide_by == "score" else _AREAS[column - 1],
            np.array(measured)[:, :2],
            np.array(measured)[:, 2],
            np.array([1.0 * (rejected <= at_most) for rejected, _, at_most in measured]),
            is_planted=sets[name][1],
        )
        for (name, profile, decide_by, column), measured in found.items()
    ]


def means_of(rows: Sequence[Row]) -> list[Row]:
    """The mean of the sets in each way, of defects of their own and of planted ones; each set counts alike."""
    ways: dict[tuple[bool, ProfileName, DecideBy, int | None], list[Row]] = {}
    for row in rows:
        ways.setdefault((row.is_planted, row.profile, row.decide_by, row.area_px), []).append(row)
    return [
        Row(
            f"mean of {len(same)} sets" + (", planted" if is_planted else ""),
            profile,
            decide_by,
            area,
            np.array([row.rates.mean(axis=0) for row in same]),
            np.array([row.promised.mean() for row in same]),
            np.array([row.held.mean() for row in same]),
            is_planted,
        )
        for (is_planted, profile, decide_by, area), same in ways.items()
        if len(same) > 1
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=4, help="random splits of the good images; default 4")
    parser.add_argument("--most-train", type=int, default=60, help="maximum number of good images in a fit; default 60")
    parser.add_argument("--planted", action="store_true", help="also test planted small defects")
    options = parser.parse_args()
    configure_logging("warning", "console")
    service = InspectionService.open(load_settings())
    rows: list[Row] = []
    for folder in options.folders:
        rows += rows_of(service, folder, options.splits, options.most_train, with_planted=options.planted)
    header = ["data set", "way", "decide_by", "least area, px", "rejected / escaped, %", "error, %"]
    header += ["rejected at most, % (promised)", "held, % of splits"]
    print_table("Decisions by score and by regions", header, [row.cells() for row in [*rows, *means_of(rows)]])


if __name__ == "__main__":
    main()
