"""``python -m benchmarks.levers``: the effect of each single lever on accuracy, and its cost.

Every lever changes one thing of the service's defaults. Differences come with the 95 % interval of a paired bootstrap
over the test images; one that excludes 0 is bold. Images are embedded once per view and block; `--cache` keeps that.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backend.commands.evaluate.metrics import PIXEL_MEASURES, PixelHistograms
from backend.common.config import load_settings
from backend.network.weights import find_weights
from benchmarks.levers.recipes import MIRRORED, RULES, TURNED, TURNED_AND_MIRRORED, DataSet, Recipe, judge, maps, score
from benchmarks.levers.views import Network, TokenFiles, View, read
from benchmarks.paired import Scores, interval
from benchmarks.splits import open_split
from harness.measuring import interleaved, print_table

DEFAULT = Recipe()
LEVERS: dict[str, dict[str, Recipe]] = {
    "rules": {rule: Recipe(rule=rule) for rule in RULES if rule != DEFAULT.rule},
    "coreset": {
        **{f"coreset {rate:.0%}": Recipe(coreset_rate=rate) for rate in (0.01, 0.05, 0.1, 0.25)},
        "every patch": Recipe(coreset_rate=1),
    },
    "search": {
        "k = 3": Recipe(neighbours=3),
        "density re-weighting": Recipe(reweighted=True),
        "maximum of the patches, density re-weighting": Recipe(reweighted=True, rule="maximum of the patches"),
        "3×3 neighbourhood": Recipe(neighbourhood=3),
        "blur σ = 4": Recipe(blur_sigma=4),
        "blur σ = 4, p99.9": Recipe(blur_sigma=4, rule="p99.9"),
        "no blur": Recipe(blur_sigma=0),
        "foreground only": Recipe(foreground=True),
    },
    "references": {
        "references mirrored too": Recipe(references=MIRRORED),
        "references turned too": Recipe(references=TURNED),
        "references turned and mirrored": Recipe(references=TURNED_AND_MIRRORED),
    },
    "blocks": {
        **{f"block {block} alone": Recipe(blocks=(block,)) for block in (6, 8, 9, 10, 11)},
        "blocks 9 + 12": Recipe(blocks=(9, 12)),
        "blocks 11 + 12": Recipe(blocks=(11, 12)),
        "blocks 9 … 12": Recipe(blocks=(9, 10, 11, 12)),
        "mean of blocks 9 … 12": Recipe(blocks=(9, 10, 11, 12), averaged=True),
        "blocks 6 + 9 + 12": Recipe(blocks=(6, 9, 12)),
    },
    "size": {
        **{f"input {side}": Recipe(view=View(side=side)) for side in (336, 560, 672)},
        "aspect kept, as many tokens": Recipe(view=View(keeps_aspect=True)),
    },
}
_SHOTS = (1, 2, 4, 8)
_SEEDS = 3
# Every patch of many references would take the search longer than it tells.
_SHOT_LEVERS = {
    "2 % coreset": Recipe(),
    "25 % coreset": Recipe(coreset_rate=0.25),
    "every patch": Recipe(coreset_rate=1),
    "mirrored too, 2 % coreset": Recipe(references=MIRRORED),
    "mirrored too, 25 % coreset": Recipe(references=MIRRORED, coreset_rate=0.25),
    "turned too, 25 % coreset": Recipe(references=TURNED, coreset_rate=0.25),
    "turned and mirrored, 2 % coreset": Recipe(references=TURNED_AND_MIRRORED),
    "turned and mirrored, 25 % coreset": Recipe(references=TURNED_AND_MIRRORED, coreset_rate=0.25),
}


@dataclass(frozen=True)
class Outcome:
    """What a lever led to; `pixels` by `PIXEL_MEASURES`, None where there are no masks."""

    scores: Scores
    pixels: dict[str, float | None]
    bank: int
    search_ms: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=_folder, nargs="+", required=True, help="folders in MVTec layout")
    single = [name for group in LEVERS.values() for name in group]
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="LEVER",
        choices=[*LEVERS, "shots", *single],
        default=[*LEVERS, "shots"],
        help=f"single levers, or groups of them: {', '.join([*LEVERS, 'shots'])} (all)",
    )
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the network (%(default)s)"
    )
    parser.add_argument("--most-train", type=int, help="good images to fit, evenly chosen (all)")
    parser.add_argument(
        "--every", type=int, default=1, help="test only every N-th image of data sets with more than 200 (1)"
    )
    parser.add_argument("--cache", type=_folder, help="folder of the tokens, 1.6 MB for each image and view")
    options = parser.parse_args(arguments)
    network = Network(find_weights(load_settings()), options.precision)
    levers = {
        name: recipe
        for group, recipes in LEVERS.items()
        for name, recipe in recipes.items()
        if group in options.only or name in options.only
    }
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch)
        sets = [
            DataSet(open_split(folder, options.most_train, options.every), TokenFiles(folder, cache, network))
            for folder in options.data
        ]
        if levers:
            outcomes = {data_set.split.name: pull(data_set, {"default": DEFAULT, **levers}) for data_set in sets}
            milliseconds = time_views(network, sets[0].test[0], levers)
            for data_set in sets:
                print_details(data_set, outcomes[data_set.split.name], milliseconds)
                if len({path.parent for path in data_set.split.defective}) > 1:
                    print_types(data_set, outcomes[data_set.split.name])
            print_summary(sets, outcomes)
        if "shots" in options.only:
            print_shots({data_set.split.name: few_shots(data_set) for data_set in sets})


def pull(data_set: DataSet, levers: Mapping[str, Recipe]) -> dict[str, Outcome]:
    """What each lever leads to on a data set; work that levers share is done once."""
    outcomes = {}
    for distances in tqdm(dict.fromkeys(recipe.distances for recipe in levers.values()), desc=data_set.split.name):
        judged = judge(data_set, distances)
        of_these = {name: recipe for name, recipe in levers.items() if recipe.distances == distances}
        for sigma in dict.fromkeys(recipe.blur_sigma for recipe in of_these.values()):
            recipes = {name: recipe for name, recipe in of_these.items() if recipe.blur_sigma == sigma}
            pixels = dict.fromkeys(PIXEL_MEASURES)
            if data_set.split.masks:
                histograms = PixelHistograms()
                drawn = maps(data_set, judged, next(iter(recipes.values())))
                for (distance_map, kept), mask in zip(drawn, data_set.masks, strict=True):
                    histograms.add("test", distance_map * kept, mask)
                pixels = histograms.values(["test"])
            for name, scores in zip(recipes, score(data_set, judged, list(recipes.values())), strict=True):
                outcomes[name] = Outcome(scores, pixels, judged.bank, judged.search_ms)
    return {name: outcomes[name] for name in levers}


def time_views(network: Network, image: Path, levers: Mapping[str, Recipe]) -> dict[str, float]:
    """Median milliseconds of the network per lever, all in turn."""
    pixels = read(image)
    shown = {(r.view, r.blocks): (r.view.show(pixels), r.blocks) for r in (DEFAULT, *levers.values())}
    seconds = interleaved({str(key): (lambda given=given: network.tokens(*given)) for key, given in shown.items()}, 5)
    return {name: 1000 * seconds[str((r.view, r.blocks))] for name, r in {"default": DEFAULT, **levers}.items()}


def difference(lever: Scores, default: Scores) -> str:
    """Difference of two AUROCs with its interval, bold where that excludes 0."""
    low, high = interval(lever.resampled_auroc() - default.resampled_auroc())
    text = f"{lever.auroc - default.auroc:+.3f} ({low:+.3f} … {high:+.3f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def print_details(data_set: DataSet, outcomes: Mapping[str, Outcome], milliseconds: Mapping[str, float]) -> None:
    """Every figure of one data set."""
    default = outcomes["default"]
    rows = []
    for name, outcome in outcomes.items():
        scores = outcome.scores
        low, high = interval(scores.resampled_auroc())
        rows.append(
            (
                name,
                f"{scores.auroc:.3f} ({low:.3f} … {high:.3f})",
                "" if name == "default" else difference(scores, default.scores),
                f"{scores.average_precision:.3f}",
                f"{scores.f1_max:.3f}",
                *(f"{value:.3f}" for value in outcome.pixels.values() if value is not None),
                outcome.bank,
                f"{milliseconds[name]:.0f} ({milliseconds[name] / milliseconds['default']:.2f})",
                f"{outcome.search_ms:.1f}",
            )
        )
    print_table(
        f"{data_set.split.name}: {len(data_set.split.train)} good images fitted; {len(data_set.split.good)} good and "
        f"{len(data_set.split.defective)} defective images scored",
        (
            "lever",
            "image AUROC (95 %)",
            "difference, paired (95 %)",
            "AP",
            "F1-max",
            *(("pixel AUROC", "AUPRO") if data_set.split.masks else ()),
            "bank",
            "network ms (ratio)",
            "search ms",
        ),
        rows,
    )


def print_summary(sets: Sequence[DataSet], outcomes: Mapping[str, Mapping[str, Outcome]]) -> None:
    """Every lever beside every data set."""
    first = outcomes[sets[0].split.name]
    rows = []
    for name in first:
        row = [name]
        for data_set in sets:
            scores, default = (
                outcomes[data_set.split.name][name].scores,
                outcomes[data_set.split.name]["default"].scores,
            )
            row.append(f"{scores.auroc:.3f}" if name == "default" else difference(scores, default))
        rows.append(row)
    print_table(
        "Image AUROC: the default's, then every lever's difference with its paired 95 % interval",
        ("lever", *(data_set.split.name for data_set in sets)),
        rows,
    )


def print_types(data_set: DataSet, outcomes: Mapping[str, Outcome]) -> None:
    """Every lever beside every type of defect, each against the same good images."""
    kinds = [path.parent.name for path in data_set.split.defective]
    rows = []
    for name, outcome in outcomes.items():
        row = [name]
        for kind in dict.fromkeys(kinds):
            of_kind = np.array(kinds) == kind
            scores, default = (
                Scores(one.scores.good, one.scores.defective[of_kind]) for one in (outcome, outcomes["default"])
            )
            row.append(f"{scores.auroc:.3f}" if name == "default" else difference(scores, default))
        rows.append(row)
    print_table(
        f"{data_set.split.name}, image AUROC by type of defect: the default's, then every lever's paired difference",
        ("lever", *(f"{kind} ({kinds.count(kind)})" for kind in dict.fromkeys(kinds))),
        rows,
    )


def few_shots(data_set: DataSet) -> dict[tuple[str, int], list[float]]:
    """AUROCs by lever and number of good images: one per draw."""
    found = {}
    train = data_set.split.train
    cases = [(name, shots) for shots in _SHOTS if shots <= len(train) for name in _SHOT_LEVERS]
    for name, shots in tqdm(cases, desc=f"{data_set.split.name}, few images"):
        recipe = _SHOT_LEVERS[name]
        found[name, shots] = []
        for seed in range(_SEEDS):
            drawn = np.random.default_rng(seed).permutation(len(train))[:shots]
            judged = judge(data_set, recipe, [train[index] for index in drawn])
            found[name, shots].append(score(data_set, judged, [recipe])[0].auroc)
    return found


def print_shots(found: Mapping[str, Mapping[tuple[str, int], list[float]]]) -> None:
    """Means over the draws, and their range."""
    for data_set, cases in found.items():
        rows = []
        for name in _SHOT_LEVERS:
            draws = [cases[name, shots] for shots in _SHOTS if (name, shots) in cases]
            rows.append((name, *(f"{statistics.mean(own):.3f} ({min(own):.3f} … {max(own):.3f})" for own in draws)))
        print_table(
            f"{data_set}: image AUROC with few good images, mean of {_SEEDS} draws and their range",
            ("bank", *(f"{shots} image{'s' * (shots > 1)}" for shots in _SHOTS if (name, shots) in cases)),
            rows,
        )


def _folder(text: str) -> Path:
    return Path(text).resolve()


if __name__ == "__main__":
    main()
