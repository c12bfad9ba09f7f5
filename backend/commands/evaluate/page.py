"""The results of an evaluation, as one self-contained HTML page and as JSON."""

import contextlib
import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.bit_depth import decode
from backend.commands.console import count, progress_bar, shown
from backend.commands.evaluate.masks import read_masks
from backend.commands.evaluate.metrics import roc_curve
from backend.commands.evaluate.results import MEASURES, CategoryResult, Evaluation, TrainCase, means
from backend.commands.evaluate.results_json import RESULTS, as_json
from backend.commands.evaluate.table import (
    chosen,
    few_shot_rows,
    few_shot_summary,
    interval,
    mean_decision_rows,
    number,
)
from backend.commands.image_files import read_image
from backend.commands.report.charts import few_shots, roc
from backend.commands.report.content import (
    Card,
    Decided,
    Mark,
    ScoredImage,
    Section,
    Words,
    fair_shares,
    telling,
)
from backend.commands.report.pictures import draw, scale_of
from backend.commands.report.rendering import render
from backend.common.arrays import DistanceMap
from backend.common.errors import StorageError
from backend.common.files import write_atomic
from backend.utils import ImageLimits

PAGE = "report.html"
# Some 25 KB each: a page of 15 MB at most, that a browser opens at once.
_MOST_PICTURES = 600
_MOST_SUSPICIOUS = 60
_WORDS = Words(
    {"train": "training image", "good": "good part", "defective": "defective part"},
    ng=Decided("rejected", "is rejected", "are rejected"),
    ok=Decided("passed", "passes", "pass"),
)
# Stands for a byte of a file name that is not UTF-8; many readers refuse it in JSON.
_HALF_OF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def write_results(evaluation: Evaluation, folder: Path) -> None:
    """Write the JSON into an existing folder, and remove the page of an earlier evaluation.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(as_json(evaluation), indent=1, allow_nan=False, ensure_ascii=False)
    text = _HALF_OF_A_CHARACTER.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text)
    _write(folder / RESULTS, text)
    with contextlib.suppress(OSError):  # there is none, or the new page will say what is wrong
        (folder / PAGE).unlink()


def write_page(evaluation: Evaluation, folder: Path) -> None:
    """Write the page into an existing folder.

    Raises:
        InvalidImage, TooLarge, InvalidRequest: see `as_html`.
        StorageError: it cannot be written.
    """
    _write(folder / PAGE, as_html(evaluation))


def _write(path: Path, text: str) -> None:
    try:
        write_atomic({path: shown(text).encode()})
    except OSError as exc:
        raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc


def as_html(evaluation: Evaluation) -> str:
    """The page, with at most 600 pictures of test images: those that `telling` names, for every category.

    Raises:
        InvalidImage, TooLarge, InvalidRequest: an image has changed and can no longer be read.
    """
    shares = fair_shares([len(result.cases) for result in evaluation.results], _MOST_PICTURES)
    plans = [_Plan.of(result, most) for result, most in zip(evaluation.results, shares, strict=True)]
    with progress_bar("report", sum(len(plan.suspicious) + len(plan.shown) for plan in plans)) as bar:
        sections = [_section(evaluation, plan, bar.update) for plan in plans]
    return render(
        __package__,
        "page.html.j2",
        sections,
        {"number": number, "interval": interval, "chosen": chosen},
        evaluation=evaluation,
        name=Path(evaluation.dataset).resolve().name,
        facts=as_json(evaluation),
        pages=list(map(_figures, evaluation.results)),
        measures=MEASURES,
        means=means(evaluation),
        mean_decisions=mean_decision_rows(evaluation),
    )


@dataclass(frozen=True)
class _Plan:
    """The contents of the page for a category.

    Attributes:
        result: of the category.
        test: the test images.
        shown: positions of those that get pictures.
        suspicious: training images that get pictures.
    """

    result: CategoryResult
    test: list[ScoredImage]
    shown: list[int]
    suspicious: list[TrainCase]

    @classmethod
    def of(cls, result: CategoryResult, most: int) -> "_Plan":
        """Choose test images, at most this many."""
        test = [
            ScoredImage(
                case.image.name,
                "defective" if case.image.is_defective else "good",
                case.image.defect,
                case.score,
                () if case.is_rejected is None else (f"{count(case.n_regions, 'region')} drawn",),
            )
            for case in result.cases
        ]
        suspicious = sorted((case for case in result.train if case.is_suspicious), key=lambda case: -case.score)
        return cls(result, test, telling(test, result.threshold, most), suspicious[:_MOST_SUSPICIOUS])


def _section(evaluation: Evaluation, plan: _Plan, on_progress: Callable[[], object]) -> Section:
    """The scores of a category, with pictures."""
    settings, result = evaluation.settings, plan.result
    limits = ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
    scale = scale_of([case.distances for case in result.cases], result.threshold)

    def card(image: ScoredImage, path: str, distances: DistanceMap, masks: Sequence[str]) -> Card:
        pixels, _ = decode(read_image(path, limits.max_bytes), path, limits, result.depth)
        truth = read_masks(masks, limits) if masks else None
        on_progress()
        return Card(image, draw(pixels, distances, scale, result.threshold, settings.blur_sigma, truth))

    usual = f"median of all {statistics.median(result.ok_scores):.4f}" if result.train else ""
    train = {case.path: ScoredImage(case.path, "train", "train", case.score, (usual,)) for case in result.train}
    cases = [(plan.test[place], result.cases[place]) for place in plan.shown]
    return Section(
        result.category.name,
        _WORDS,
        [*train.values(), *plan.test],
        result.threshold,
        marks_of(evaluation, result),
        result.category.remarks,
        facts_of(evaluation, result),
        [card(train[case.path], case.path, case.distances, ()) for case in plan.suspicious],
        [card(image, case.image.path, case.distances, case.image.masks) for image, case in cases],
        scale,
        any(case.image.masks for _, case in cases),
    )


def marks_of(evaluation: Evaluation, result: CategoryResult) -> list[Mark]:
    """The threshold of the decisions, and the others with good images only; empty without scores."""
    if result.threshold is None:
        return []
    names = {"contract": "contract rule", "recommended": "recommended rule", "hindsight": "best in hindsight"}
    why = result.calibration.why if result.calibration and result.calibration.why else ""
    first = Mark(names.get(evaluation.rule, "as named"), result.threshold, why)
    others = [
        Mark(names[decision.chosen_by], decision.threshold)
        for decision in result.decisions
        if decision.n_ng == 0 and decision.chosen_by != evaluation.rule
    ]
    return [first, *others]


def facts_of(evaluation: Evaluation, result: CategoryResult) -> list[str]:
    """The basis of the threshold of the decisions."""
    counts = f"{len(result.category.train)} training and {len(result.cases)} test images."
    if result.calibration is None:
        return [f"{counts} The training images have no scores: at least two different ones are needed."]
    if evaluation.rule == "manual":
        basis = "You gave this threshold."
    elif evaluation.rule == "contract":
        basis = "It is the 99th percentile of the scores of the training images, each by a memory bank of the others."
    else:
        basis = (
            "It is based on the scores of the training images, each by a memory bank of the others: "
            f"{result.calibration.why}."
        )
    promise = result.calibration.promise
    promised = f" It promises: {promise.text}." if promise else ""
    return [
        f"{counts} The line is at {result.threshold:.4f} at the beginning. {basis} It does not depend on any test "
        f"image.{promised}"
    ]


def _figures(result: CategoryResult) -> dict[str, Any]:
    """The text of the page about a category, besides its scores."""
    escapes = result.groups[0].escapes
    at_threshold = (result.false_rejects.value, 1 - escapes.value) if result.false_rejects and escapes else None
    curve = roc_curve([c.score for c in result.cases], [c.image.is_defective for c in result.cases])
    points: list[tuple[int, float, float | None]] = [
        (shots, *values["image_auroc"]) for shots, values in few_shot_summary(result).items()
    ]
    if points and (value := result.groups[0].measures["image_auroc"].value) is not None:
        points.append((len(result.category.train), value, None))
    return {
        "result": result,
        "roc": roc(*curve, at_threshold),
        "few_shot": few_shot_rows(result),
        "few_shot_plot": few_shots(points) if points else None,
    }
