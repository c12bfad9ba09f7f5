"""The results of an evaluation, as tables for a terminal."""

import statistics
from collections.abc import Sequence

from backend.commands.evaluate.decisions import NG_COUNTS, RULES, ChosenBy, Decision, found_by, mean_rates
from backend.commands.evaluate.metrics import Measure, Rate
from backend.commands.evaluate.results import (
    MEASURES,
    CategoryResult,
    Evaluation,
    MeanDecision,
    mean_decisions,
    means,
)

_CHOSEN: dict[ChosenBy, str] = {
    "contract": "contract rule",
    "recommended": "recommended rule",
    "hindsight": "best in hindsight",
}
_DECISIONS = ("threshold by", "NG images", "threshold", "false rejects", "escapes", "mean error")
_DRAWN = (
    "decisions: by each rule, with good images only and with NG images, which are drawn from the defective test "
    "images and do not count; the best threshold in hindsight is known only after the test"
)
_PAIRS = "with few training images: false rejects / escapes with good images only, the mean over the draws"
_BRACKETS = (
    "in brackets: 95 % confidence intervals of image AUROC; 95 % bootstrap intervals of the other measures, where "
    "every type has 5 images or more"
)


def as_text(evaluation: Evaluation) -> str:
    """Tables for a terminal."""
    tables = []
    for result in evaluation.results:
        rows = [_row(group.name, group.measures) for group in result.groups]
        if len(result.groups) == 2:  # of one type, which is all of them
            rows = rows[:1]
        remarks = "".join(f"\n! {remark}" for remark in result.category.remarks)
        tables.append(
            f"{result.category.name}: {facts(result)}{remarks}\n\n" + _aligned(("", *MEASURES.values()), rows)
        )
        if result.decisions:
            tables.append(_aligned(_DECISIONS, [_decision_row(decision) for decision in result.decisions]))
            if len(result.groups) > 2:
                tables.append(_aligned(*_split(_escape_rows(result))))
        if result.few_shot:
            tables.append(_aligned(*_split(few_shot_rows(result))))
    if len(evaluation.results) > 1:
        rows = [_row(result.category.name, result.groups[0].measures) for result in evaluation.results]
        mean = [number(value) for value in means(evaluation).values()]
        tables.append(_aligned(("", *MEASURES.values()), [*rows, ("mean", *mean)]))
        if of_categories := mean_decision_rows(evaluation):
            tables.append(_aligned(*_split(of_categories)))
    if any(result.decisions for result in evaluation.results):
        tables.append(_DRAWN)
    if evaluation.shots:
        tables.append(_PAIRS)
    return "\n\n".join([*tables, _BRACKETS])


def facts(result: CategoryResult) -> str:
    """The threshold and its decisions, speed and size, in a sentence or two."""
    if result.threshold is None or result.false_rejects is None or result.groups[0].escapes is None:
        judged = "no threshold, because the training images have no scores: at least two different ones are needed"
    else:
        judged = (
            f"threshold {result.threshold:.4f}: {share(result.false_rejects)} false rejects, "
            f"{share(result.groups[0].escapes)} escapes"
        )
    n_train = len(result.category.train)
    return (
        f"{n_train} training, {len(result.cases)} test images; {judged}; {result.ms:.0f} ms an image; "
        f"memory bank {result.bank_size} of {result.n_embeddings}"
    )


def few_shot_summary(result: CategoryResult) -> dict[int, dict[str, tuple[float, float | None]]]:
    """Mean and standard deviation (None for a single seed) of every known measure, by number of shots."""
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


def few_shot_rows(result: CategoryResult) -> list[tuple[str, ...]]:
    """A table of runs with few training images, its header first: measures, and the decisions of each rule."""
    rows: list[tuple[str, ...]] = [("training images", *MEASURES.values(), *_CHOSEN.values())]
    for shots, values in few_shot_summary(result).items():
        cells = (_spread(*values[name]) if name in values else "–" for name in MEASURES)
        decisions = [decision for run in result.few_shot if run.shots == shots for decision in run.decisions]
        rows.append((str(shots), *cells, *_both_rates(decisions)))
    measures = result.groups[0].measures
    cells = (number(measures[name].value) for name in MEASURES)
    return [*rows, (f"all {len(result.category.train)}", *cells, *_both_rates(result.decisions))]


def _both_rates(decisions: Sequence[Decision]) -> list[str]:
    """Mean rates with good images only, by each rule and in hindsight."""
    found = []
    for chosen_by in _CHOSEN:
        those = [one for one in decisions if (one.chosen_by, one.n_ng) == (chosen_by, 0)]
        found.append("{:.1f} / {:.1f} %".format(*(100 * rate for rate in mean_rates(those))) if those else "–")
    return found


def mean_decision_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """A table of the mean rates over the categories, its header first; nothing if no category has decisions."""
    rows = [
        (
            chosen(one),
            str(one.n_ng),
            f"{100 * one.false_reject_rate:.1f} %",
            f"{100 * one.escape_rate:.1f} %",
            f"{100 * one.error:.1f} %",
        )
        for one in mean_decisions(evaluation)
    ]
    return [("mean, threshold by", "NG images", "false rejects", "escapes", "mean error"), *rows] if rows else []


def chosen(decision: Decision | MeanDecision) -> str:
    """The rule of a threshold, in words."""
    return _CHOSEN[decision.chosen_by]


def _decision_row(decision: Decision) -> tuple[str, ...]:
    return (
        chosen(decision),
        str(decision.n_ng),
        f"{decision.threshold:.4f}",
        _short(decision.false_rejects),
        _short(decision.escapes),
        f"{100 * decision.error:.1f} %",
    )


def _escape_rows(result: CategoryResult) -> list[tuple[str, ...]]:
    """Escapes of every type by each rule, its header first."""
    counts = [n_ng for n_ng in NG_COUNTS if found_by(result.decisions, "contract", n_ng)]
    header = [f"{rule}, {f'{n_ng} NG' if n_ng else 'good only'}" for n_ng in counts for rule in RULES]
    rows: list[tuple[str, ...]] = [("escapes, rule", *header)]
    for group in result.groups:
        found = [found_by(group.decisions, rule, n_ng) for n_ng in counts for rule in RULES]
        rows.append(
            (group.name, *("–" if one is None else f"{one.escapes.count} of {one.escapes.total}" for one in found))
        )
    return rows


def _split(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    """The header, and the rest."""
    return rows[0], rows[1:]


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _row(name: str, measures: dict[str, Measure]) -> tuple[str, ...]:
    return (name, *(f"{number(measures[key].value)} {interval(measures[key])}".rstrip() for key in MEASURES))


def number(value: float | None) -> str:
    """A measure with three digits, or a dash if there is none."""
    return "–" if value is None else f"{value:.3f}"


def interval(measure: Measure) -> str:
    """The interval of a measure in brackets, nothing if there is none."""
    return "" if measure.low is None or measure.high is None else f"[{measure.low:.3f}, {measure.high:.3f}]"


def share(rate: Rate) -> str:
    """A rate as count, percentage and interval."""
    low, high = rate.interval
    return f"{rate.count} of {rate.total} ({100 * rate.value:.1f} %, {100 * low:.1f} to {100 * high:.1f} %)"


def _short(rate: Rate) -> str:
    return f"{rate.count} of {rate.total} ({100 * rate.value:.1f} %)"


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
