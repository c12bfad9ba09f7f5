"""What an evaluation found."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from backend.bit_depth import BitDepth
from backend.commands.evaluate.dataset import Category, TestImage
from backend.commands.evaluate.metrics import IMAGE_MEASURES, PIXEL_MEASURES, Measure, Rate
from backend.common.arrays import DistanceMap
from backend.common.config import Settings
from backend.features import DinoV2Features

ALL = "all"
_MOST_NAMED = 5
MEASURES = dict(
    zip(
        IMAGE_MEASURES + PIXEL_MEASURES,
        ("image AUROC", "image AP", "image F1-max", "pixel AUROC", "AUPRO"),
        strict=True,
    )
)


@dataclass(frozen=True)
class Case:
    """What one test image gave.

    Attributes:
        image: which.
        score: percentile of the distance map.
        is_rejected: whether the score reaches the threshold; None without one.
        n_regions: defects found at the threshold.
        ms: milliseconds from encoded bytes to score, heatmap and regions.
        image_hw: its size (rows, columns) in pixels.
        distances: float32 [rows, columns] of the token grid, 0..2.
        trained_as: the training image that has the same pixels; None where there is none.
    """

    image: TestImage
    score: float
    is_rejected: bool | None
    n_regions: int
    ms: float
    image_hw: tuple[int, int]
    distances: DistanceMap
    trained_as: str | None = None

    @property
    def is_false_reject(self) -> bool:
        """Whether it is good and was rejected."""
        return bool(self.is_rejected) and not self.image.is_defective

    @property
    def is_escape(self) -> bool:
        """Whether it is defective and was not rejected."""
        return self.is_rejected is False and self.image.is_defective


def trained_remarks(cases: Sequence[Case]) -> list[str]:
    """That test images are training images, which makes the results too good; nothing where none is."""
    trained = [f"test/{case.image.name} is {case.trained_as}" for case in cases if case.trained_as]
    if not trained:
        return []
    listed = trained[:_MOST_NAMED]
    if len(trained) > _MOST_NAMED:
        listed.append(f"{len(trained) - _MOST_NAMED} more")
    return [
        f"{len(trained)} of {len(cases)} test images are training images too ({', '.join(listed)}): they score too "
        "low, and the results are wrong; remove them from test/ or from train/good"
    ]


@dataclass(frozen=True)
class Group:
    """Measures of all defects, or of one type against the good test images.

    Attributes:
        name: of the type, or `ALL`.
        n_defective, n_masks: defective images, and how many of them have a mask.
        measures: by name, `IMAGE_MEASURES` and `PIXEL_MEASURES`; these over the good images and the defective ones
            that have a mask.
        escapes: defective images below the threshold; None without one.
    """

    name: str
    n_defective: int
    n_masks: int
    measures: dict[str, Measure]
    escapes: Rate | None


@dataclass(frozen=True)
class FewShotRun:
    """What a memory bank of `shots` training images, drawn at random, gave; `values` by name of measure."""

    shots: int
    seed: int
    values: dict[str, float | None]


@dataclass(frozen=True)
class CategoryResult:
    """Everything about one category.

    Attributes:
        category: which.
        n_embeddings, bank_size: patch embeddings of the training images, and how many of them the memory bank keeps.
        ok_scores: score of each training image by the memory bank of the others; empty where there are no others, or so
            many that it would take more than a minute.
        threshold: from them; None where there are none.
        groups: all defects, then each type.
        false_rejects: good test images at or above the threshold; None without one.
        cases: the test images, in order.
        few_shot: runs by shots, then seed.
        depth: how images of 16 bits were read; None where no training image has 16.
    """

    category: Category
    n_embeddings: int
    bank_size: int
    ok_scores: list[float]
    threshold: float | None
    groups: list[Group]
    false_rejects: Rate | None
    cases: list[Case]
    few_shot: list[FewShotRun]
    depth: BitDepth | None = None

    @property
    def ms(self) -> float:
        """Median milliseconds of an image."""
        return statistics.median(case.ms for case in self.cases)


@dataclass(frozen=True)
class Evaluation:
    """Results of a data set, and what they rest on."""

    dataset: str
    settings: Settings
    features: DinoV2Features
    shots: Sequence[int]
    n_seeds: int
    results: list[CategoryResult]


def means(evaluation: Evaluation) -> dict[str, float | None]:
    """The mean of every measure over the categories that have it."""
    found: dict[str, float | None] = {}
    for name in MEASURES:
        values = [result.groups[0].measures[name].value for result in evaluation.results]
        known = [value for value in values if value is not None]
        found[name] = statistics.fmean(known) if known else None
    return found
