"""What an evaluation found: as a table, as JSON, and as one HTML page that needs nothing else."""

import contextlib
import json
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2

from backend import __version__
from backend.commands.console import progress_bar
from backend.commands.evaluate.charts import few_shots, roc, score_histogram
from backend.commands.evaluate.evaluation import Case, CategoryResult, Evaluation, Group
from backend.commands.evaluate.gallery import ColourScale, thumbnails
from backend.commands.evaluate.metrics import (
    CONFIDENCE,
    IMAGE_MEASURES,
    MAX_FPR,
    PIXEL_MEASURES,
    RESAMPLES,
    SEED,
    Measure,
    Rate,
    roc_curve,
)
from backend.common.errors import StorageError
from backend.common.files import write_atomic
from backend.utils import ImageLimits, utc_now

PAGE, RESULTS = "report.html", "results.json"
MEASURES = dict(
    zip(
        IMAGE_MEASURES + PIXEL_MEASURES,
        ("image AUROC", "image AP", "image F1-max", "pixel AUROC", "AUPRO"),
        strict=True,
    )
)
_BRACKETS = (
    "in brackets: 95 % confidence intervals of image AUROC; 95 % bootstrap intervals of the other measures, where "
    "every type has 5 images or more"
)
# Some 25 KB each: a page of 15 MB at most, that a browser opens at once.
_MOST_PICTURES = 600
_PACKAGES = ("numpy", "opencv-python-headless", "scikit-learn", "scipy", "faiss-cpu", "openvino", "torch", "timm")


def write_results(evaluation: Evaluation, folder: Path) -> None:
    """Write the JSON into a folder that is there, and remove the page of an earlier evaluation.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(as_json(evaluation), indent=1, allow_nan=False, ensure_ascii=False)
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
        # Names of files that are not UTF-8 are no text: in JSON and on the page the odd bytes become \udc…
        write_atomic({path: text.encode(errors="backslashreplace")})
    except OSError as exc:
        raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc


def as_text(evaluation: Evaluation) -> str:
    """Tables for a terminal."""
    tables = []
    for result in evaluation.results:
        rows = [_row(group.name, group.measures) for group in result.groups]
        if len(result.groups) == 2:  # of one type, which is all of them
            rows = rows[:1]
        tables.append(f"{result.category.name}: {_facts(result)}\n\n" + _aligned(("", *MEASURES.values()), rows))
        if result.few_shot:
            tables.append(_aligned(("training images", *MEASURES.values()), _few_shot_rows(result)))
    if len(evaluation.results) > 1:
        rows = [_row(result.category.name, result.groups[0].measures) for result in evaluation.results]
        means = [_number(value) for value in _means(evaluation).values()]
        tables.append(_aligned(("", *MEASURES.values()), [*rows, ("mean", *means)]))
    return "\n\n".join([*tables, _BRACKETS])


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the pictures; numbers are finite, or None."""
    settings, features = evaluation.settings, evaluation.features
    return {
        "dataset": evaluation.dataset,
        "created_at_utc": utc_now().isoformat(),
        "settings": {
            **features.identity.as_dict(),
            "runtime": features.runtime.name,
            "device": features.runtime.device,
            "coreset_rate": settings.coreset_rate,
            "score_percentile": settings.score_percentile,
            "blur_sigma": settings.blur_sigma,
            "max_fpr": MAX_FPR,
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
            "shots": list(evaluation.shots),
            "seeds": evaluation.n_seeds,
        },
        "versions": {"backend": __version__, "python": platform.python_version(), **_versions()},
        "categories": [_category_json(result) for result in evaluation.results],
        "mean": _means(evaluation),
    }


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
    environment.filters.update(number=_number, interval=_interval)
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        name=Path(evaluation.dataset).resolve().name,
        facts=as_json(evaluation),
        categories=categories,
        measures=MEASURES,
        means=_means(evaluation),
    )


def _category_page(
    evaluation: Evaluation, result: CategoryResult, shown: Sequence[Case], on_progress: Callable[[], object]
) -> dict[str, Any]:
    settings = evaluation.settings
    limits = ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
    scale = ColourScale.of(result.cases, result.threshold)
    cards = []
    for case in shown:
        cards.append((case, thumbnails(case, scale, result.threshold, settings.blur_sigma, limits)))
        on_progress()
    good, defective = (
        [c.score for c in result.cases if c.image.is_defective == is_defective] for is_defective in (False, True)
    )
    escapes = result.groups[0].escapes
    at_threshold = (result.false_rejects.value, 1 - escapes.value) if result.false_rejects and escapes else None
    curve = roc_curve([c.score for c in result.cases], [c.image.is_defective for c in result.cases])
    points: list[tuple[int, float, float | None]] = [
        (shots, *values["image_auroc"]) for shots, values in _few_shot_summary(result).items()
    ]
    if points and (value := result.groups[0].measures["image_auroc"].value) is not None:
        points.append((len(result.category.train), value, None))
    return {
        "result": result,
        "facts": _facts(result),
        "scale": scale,
        "histogram": score_histogram(good, defective, result.threshold),
        "roc": roc(*curve, at_threshold),
        "few_shot": _few_shot_rows(result),
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


def _category_json(result: CategoryResult) -> dict[str, Any]:
    good = sum(not case.image.is_defective for case in result.cases)
    return {
        "name": result.category.name,
        "n_train": len(result.category.train),
        "n_good": good,
        "n_defective": len(result.cases) - good,
        "n_ignored": result.category.n_ignored,
        "n_embeddings": result.n_embeddings,
        "bank_size": result.bank_size,
        "ms_per_image": result.ms,
        "ok_scores": result.ok_scores,
        "threshold": result.threshold,
        "false_rejects": _rate_json(result.false_rejects),
        "groups": [_group_json(group) for group in result.groups],
        "few_shot": [{"shots": run.shots, "seed": run.seed, **run.values} for run in result.few_shot],
        "images": [
            {
                "name": case.image.name,
                "defect": case.image.defect,
                "score": case.score,
                "rejected": case.is_rejected,
                "n_regions": case.n_regions,
                "has_mask": case.image.mask is not None,
                "ms": case.ms,
            }
            for case in result.cases
        ],
    }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "n_defective": group.n_defective,
        "n_masks": group.n_masks,
        "escapes": _rate_json(group.escapes),
        **{name: vars(measure) for name, measure in group.measures.items()},
    }


def _rate_json(rate: Rate | None) -> dict[str, float] | None:
    if rate is None:
        return None
    low, high = rate.interval
    return {"count": rate.count, "total": rate.total, "rate": rate.value, "low": low, "high": high}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # torch and timm are an extra
            continue
    return found


def _facts(result: CategoryResult) -> str:
    """The threshold and what it does, speed and size, in a sentence or two."""
    if result.threshold is None or result.false_rejects is None or result.groups[0].escapes is None:
        judged = "no threshold, as the training images have no scores: too few of them, or too many"
    else:
        judged = (
            f"threshold {result.threshold:.4f}: {_share(result.false_rejects)} false rejects, "
            f"{_share(result.groups[0].escapes)} escapes"
        )
    n_train = len(result.category.train)
    return (
        f"{n_train} training, {len(result.cases)} test images; {judged}; {result.ms:.0f} ms an image; "
        f"memory bank {result.bank_size} of {result.n_embeddings}"
    )


def _few_shot_summary(result: CategoryResult) -> dict[int, dict[str, tuple[float, float | None]]]:
    """Mean and standard deviation (None of a single seed) of every measure that there is, by number of shots."""
    summary: dict[int, dict[str, tuple[float, float | None]]] = {}
    for shots in dict.fromkeys(run.shots for run in result.few_shot):
        summary[shots] = {}
        for name in MEASURES:
            values = [
                value for run in result.few_shot if run.shots == shots and (value := run.values[name]) is not None
            ]
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else None
                summary[shots][name] = (statistics.fmean(values), deviation)
    return summary


def _few_shot_rows(result: CategoryResult) -> list[tuple[str, ...]]:
    rows = []
    for shots, values in _few_shot_summary(result).items():
        rows.append((str(shots), *(_spread(*values[name]) if name in values else "–" for name in MEASURES)))
    measures = result.groups[0].measures
    return [*rows, (f"all {len(result.category.train)}", *(_number(measures[name].value) for name in MEASURES))]


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _means(evaluation: Evaluation) -> dict[str, float | None]:
    """The mean of every measure over the categories that have it."""
    means: dict[str, float | None] = {}
    for name in MEASURES:
        values = [result.groups[0].measures[name].value for result in evaluation.results]
        known = [value for value in values if value is not None]
        means[name] = statistics.fmean(known) if known else None
    return means


def _row(name: str, measures: dict[str, Measure]) -> tuple[str, ...]:
    return (name, *(f"{_number(measures[key].value)} {_interval(measures[key])}".rstrip() for key in MEASURES))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(measure: Measure) -> str:
    return "" if measure.low is None or measure.high is None else f"[{measure.low:.3f}, {measure.high:.3f}]"


def _share(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.count} of {rate.total} ({100 * rate.value:.1f} %, {100 * low:.1f} to {100 * high:.1f} %)"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in columns: names on the left, the rest on the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
