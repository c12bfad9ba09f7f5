"""What an evaluation found, as one HTML page that needs nothing else, beside the JSON."""

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from backend.commands.console import progress_bar, shown
from backend.commands.evaluate.charts import few_shots, roc, score_histogram
from backend.commands.evaluate.gallery import ColourScale, thumbnails
from backend.commands.evaluate.metrics import roc_curve
from backend.commands.evaluate.results import MEASURES, Case, CategoryResult, Evaluation, means
from backend.commands.evaluate.results_json import RESULTS, as_json
from backend.commands.evaluate.table import facts, few_shot_rows, few_shot_summary, interval, number
from backend.common.errors import StorageError
from backend.common.files import write_atomic
from backend.utils import ImageLimits

PAGE = "report.html"
# Some 25 KB each: a page of 15 MB at most, that a browser opens at once.
_MOST_PICTURES = 600
# Stands for a byte of a file name that is not UTF-8; many readers refuse it in JSON.
_HALF_OF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def write_results(evaluation: Evaluation, folder: Path) -> None:
    """Write the JSON into a folder that is there, and remove the page of an earlier evaluation.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(as_json(evaluation), indent=1, allow_nan=False, ensure_ascii=False)
    text = _HALF_OF_A_CHARACTER.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text)
    _write(folder / RESULTS, text)
    with contextlib.suppress(OSError):  # there is none, or the new page will say what is wrong
        (folder / PAGE).unlink()


def write_page(evaluation: Evaluation, folder: Path) -> None:
    """Write the page into a folder that is there.

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
    """The page, with at most 600 pictures: of every category those judged wrongly, then those nearest to the threshold.

    Raises:
        InvalidImage, TooLarge, InvalidRequest: see `thumbnails`.
    """
    shares = _fair_shares([len(result.cases) for result in evaluation.results], _MOST_PICTURES)
    shown = [_most_telling(result, most) for result, most in zip(evaluation.results, shares, strict=True)]
    with progress_bar("report", sum(map(len, shown))) as bar:
        categories = [
            _category_page(evaluation, result, cases, bar.update)
            for result, cases in zip(evaluation.results, shown, strict=True)
        ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("backend.commands.evaluate", "."),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, interval=interval)
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        name=Path(evaluation.dataset).resolve().name,
        facts=as_json(evaluation),
        categories=categories,
        measures=MEASURES,
        means=means(evaluation),
    )


def _category_page(
    evaluation: Evaluation, result: CategoryResult, shown: Sequence[Case], on_progress: Callable[[], object]
) -> dict[str, Any]:
    settings = evaluation.settings
    limits = ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
    scale = ColourScale.of(result.cases, result.threshold)
    cards = []
    for case in shown:
        cards.append((case, thumbnails(case, scale, result.threshold, settings.blur_sigma, limits, result.depth)))
        on_progress()
    good, defective = (
        [c.score for c in result.cases if c.image.is_defective == is_defective] for is_defective in (False, True)
    )
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
        "facts": facts(result),
        "scale": scale,
        "histogram": score_histogram(good, defective, result.threshold),
        "roc": roc(*curve, at_threshold),
        "few_shot": few_shot_rows(result),
        "few_shot_plot": few_shots(points) if points else None,
        "cards": cards,
    }  # fmt: skip


def _fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many of `total` each gets: all it has, or as many as the others that get less than they have.

    >>> _fair_shares([80, 23, 220], 600), _fair_shares([80, 23, 220], 163)
    ([80, 23, 220], [70, 23, 70])
    """
    shares = [0] * len(sizes)
    for n_served, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[index] = min(sizes[index], (total - sum(shares)) // (len(sizes) - n_served))
    return shares


def _most_telling(result: CategoryResult, most: int) -> list[Case]:
    """The cases for the gallery, in the order of the data set."""
    if len(result.cases) <= most:
        return result.cases
    if result.threshold is None:
        return [result.cases[index * len(result.cases) // most] for index in range(most)]
    threshold = result.threshold

    def rank(case: Case) -> tuple[bool, float]:
        return not (case.is_false_reject or case.is_escape), abs(case.score - threshold)

    chosen = {id(case) for case in sorted(result.cases, key=rank)[:most]}
    return [case for case in result.cases if id(case) in chosen]
