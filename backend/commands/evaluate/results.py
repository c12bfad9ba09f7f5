"""The results of an evaluation."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from backend.bank.copies import Look
from backend.bit_depth import BitDepth
from backend.calib import Calibration
from backend.commands.evaluate.dataset import Category, TestImage
from backend.commands.evaluate.decisions import ChosenBy, Decision, found_by, mean_rates
from backend.commands.evaluate.metrics import IMAGE_MEASURES, PIXEL_MEASURES, Measure, Rate
from backend.common.arrays import DistanceMap
from backend.common.config import Settings
from backend.common.profiles import ProfileName
from backend.features import DinoV2Features
from backend.scores.shift import Shift

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
class TrainCase:
    """The score of one training image by the memory bank of the others.

    Attributes:
        path: its file.
        score: percentile of the distance map.
        image_hw: its size (rows, columns) in pixels.
        distances: float32 [rows, columns] of the token grid.
        is_copy: whether an earlier image has the same pixels: copies count once.
        is_suspicious: whether it scores far above the others: perhaps it is defective.
    """

    path: str
    score: float
    image_hw: tuple[int, int]
    distances: DistanceMap
    is_copy: bool
    is_suspicious: bool


@dataclass(frozen=True)
class Case:
    """The result of one test image.

    Attributes:
        image: the image.
        score: percentile of the distance map.
        is_rejected: whether the score reaches the threshold; None without one.
        n_regions: defects found at the threshold.
        ms: milliseconds from encoded bytes to score, heatmap and regions.
        image_hw: its size (rows, columns) in pixels.
        distances: float32 [rows, columns] of the token grid, 0..2.
        trained_as: the training image that has the same pixels; None if there is none.
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


def sample_remarks(n_scored: int, n_train: int) -> list[str]:
    """A remark that the threshold is based on a sample, if there are too many training images to score all."""
    if n_scored in (0, n_train):
        return []
    return [
        f"the threshold is based on a random sample of {n_scored} of the {n_train} training images, because scoring "
        "all would take more than a minute"
    ]


def fresh_scores(cases: Sequence[Case], looks: Sequence[Look]) -> list[float]:
    """Scores of the good test images that are not training images; copies count once.

    Args:
        cases: the test images.
        looks: of each.
    """
    scores: dict[str, float] = {}
    for case, look in zip(cases, looks, strict=True):
        if not case.image.is_defective and case.trained_as is None:
            scores.setdefault(look.pixels_sha256, case.score)
    return list(scores.values())


def trained_remarks(cases: Sequence[Case]) -> list[str]:
    """A remark that test images are training images, which makes the results too good; nothing if none is."""
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
        decisions: decisions of each rule on the good images and on these; see `decide`.
    """

    name: str
    n_defective: int
    n_masks: int
    measures: dict[str, Measure]
    escapes: Rate | None
    decisions: list[Decision]


@dataclass(frozen=True)
class FewShotRun:
    """The result of a memory bank of `shots` random training images; `values` by name of measure.

    Attributes:
        decisions: see `decide`.
    """

    shots: int
    seed: int
    values: dict[str, float | None]
    decisions: list[Decision]


@dataclass(frozen=True)
class CategoryResult:
    """The results of one category.

    Attributes:
        category: the category.
        n_embeddings, bank_size: patch embeddings of the training images, and how many of them the memory bank keeps.
        train: the training images, each by the memory bank of the others; a random sample if scoring all would take
            more than a minute; empty if there are no others.
        threshold: from their scores, or the given one; None if there is neither.
        calibration: how it was chosen, and its promise; None without scores of training images.
        shift: the good test images that are not training images, with copies counted once, compared with the training
            images; None without scores of either.
        groups: all defects, then each type.
        false_rejects: good test images at or above the threshold; None without one.
        cases: the test images, in order.
        few_shot: runs by shots, then seed.
        depth: how images of 16 bits were read; None if no training image has 16.
    """

    category: Category
    n_embeddings: int
    bank_size: int
    train: list[TrainCase]
    threshold: float | None
    calibration: Calibration | None
    shift: Shift | None
    groups: list[Group]
    false_rejects: Rate | None
    cases: list[Case]
    few_shot: list[FewShotRun]
    depth: BitDepth | None = None

    @property
    def ok_scores(self) -> list[float]:
        """Scores of the training images; empty if these have no scores."""
        return [case.score for case in self.train]

    @property
    def decisions(self) -> list[Decision]:
        """The decisions of each rule on all test images."""
        return self.groups[0].decisions

    @property
    def n_good(self) -> int:
        """Good test images."""
        return sum(not case.image.is_defective for case in self.cases)

    @property
    def ms(self) -> float:
        """Median milliseconds of an image."""
        return statistics.median(case.ms for case in self.cases)


@dataclass(frozen=True)
class Evaluation:
    """Results of a data set, and their conditions.

    Attributes:
        rule: the rule of the thresholds: ``"contract"``, ``"recommended"`` or ``"manual"``.
    """

    dataset: str
    settings: Settings
    profile: ProfileName
    rule: str
    features: DinoV2Features
    shots: Sequence[int]
    n_seeds: int
    results: list[CategoryResult]


@dataclass(frozen=True)
class MeanDecision:
    """Mean rates of a rule over categories; see `Decision`.

    Attributes:
        false_reject_rate, escape_rate: 0..1.
    """

    chosen_by: ChosenBy
    n_ng: int
    false_reject_rate: float
    escape_rate: float

    @property
    def error(self) -> float:
        """The mean of both."""
        return (self.false_reject_rate + self.escape_rate) / 2


def means(evaluation: Evaluation) -> dict[str, float | None]:
    """The mean of every measure over the categories that have it."""
    found: dict[str, float | None] = {}
    for name in MEASURES:
        values = [result.groups[0].measures[name].value for result in evaluation.results]
        known = [value for value in values if value is not None]
        found[name] = statistics.fmean(known) if known else None
    return found


def mean_decisions(evaluation: Evaluation) -> list[MeanDecision]:
    """The mean rates of every rule over the categories that have them, in the order of `decide`."""
    kinds = dict.fromkeys((one.chosen_by, one.n_ng) for result in evaluation.results for one in result.decisions)
    means = []
    for chosen_by, n_ng in kinds:
        found = [found_by(result.decisions, chosen_by, n_ng) for result in evaluation.results]
        rates = mean_rates([decision for decision in found if decision is not None])
        means.append(MeanDecision(chosen_by, n_ng, *rates))
    return means
