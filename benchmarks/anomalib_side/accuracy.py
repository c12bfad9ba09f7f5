"""Accuracy beside anomalib: the same images through the service and anomalib's models, judged by the same code.

anomalib's AnomalyDINO has its own defaults (252 pixels, every patch), and once our input size. anomalib's PatchCore
runs on the same DINOv2 weights, because the weights of its ImageNet backbones come only from a hub; the rest is its
default: 10 % of the patches, averages of 3×3, density re-weighting of the farthest patch.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backend.common.config import load_settings
from backend.network.weights import find_weights
from benchmarks.anomalib_side.engines import OURS, THEIRS, say, share_cores
from benchmarks.anomalib_side.worker import Worker
from benchmarks.paired import Scores, interval
from benchmarks.splits import Split, open_split
from harness.measuring import print_table


@dataclass
class Contender:
    """A system, fitted, and what it said of the test images, good ones first."""

    name: str
    worker: Worker
    bank: int
    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="interpreter of anomalib's environment")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in MVTec layout")
    parser.add_argument("--most-train", type=int, default=28, help="good images to fit, evenly chosen (%(default)s)")
    parser.add_argument("--every", type=int, default=1, help="score only every N-th test image of large sets (1)")
    options = parser.parse_args(arguments)
    share_cores()
    # Else glibc gives every pick of anomalib's selection 23 MB of its own, which none of the next fits into: 22 GB.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 20))
    rows = []
    for folder in options.data:
        split = open_split(folder.resolve(), options.most_train, options.every)
        with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
            contenders = fit_all(split, options.python, Path(scratch), stack)
            score_all(contenders, split)
            rows += [row(split, contender, contenders[0]) for contender in contenders]
    print_table(
        "Accuracy beside anomalib: each system fitted to the same good images, then every test image scored in turn",
        (
            "set: good fitted, good + defective scored",
            "system",
            "image AUROC (95 %)",
            "ours − it, paired (95 %)",
            "AP",
            "F1-max",
            "bank",
            "ms per image",
        ),
        rows,
    )


def fit_all(split: Split, python: Path, scratch: Path, stack: contextlib.ExitStack) -> list[Contender]:
    """Start a process per system and fit it; the first is the service with its defaults."""
    settings = load_settings()
    side = settings.input_size
    given = {"weights": str(find_weights(settings).path)}
    dino = {**given, "sampling_ratio": None}
    systems: list[tuple[str, str, str | Path, str, dict[str, Any], dict[str, Any]]] = [
        (f"ours, {settings.coreset_rate:.0%} coreset", OURS, sys.executable, "open", {}, {"keep_all": False}),
        ("ours, every patch", OURS, sys.executable, "open", {}, {"keep_all": True}),
        (
            "AnomalyDINO, its defaults (252 pixels, every patch)",
            THEIRS,
            python,
            "open",
            {**dino, "input_size": 252},
            {},
        ),
        (f"AnomalyDINO at {side} pixels, every patch", THEIRS, python, "open", {**dino, "input_size": side}, {}),
        (
            f"PatchCore on DINOv2 at {side} pixels, 10 % coreset",
            THEIRS,
            python,
            "open_patchcore",
            {**given, "input_size": side},
            {},
        ),
    ]
    contenders = []
    for number, (name, module, interpreter, opening, opened_with, fitted_with) in enumerate(systems):
        say(f"{split.name}: fit of {len(split.train)} images, {name}")
        own = scratch / str(number)
        own.mkdir()
        worker = stack.enter_context(Worker(interpreter, module, own / "log"))
        place = {"models_dir": str(own / "models")} if module == OURS else {"scratch": str(own)}
        version = worker.ask(opening, **opened_with, **place)["name"]
        bank = worker.ask("fit", images=[str(path) for path in split.train], **fitted_with)["bank"]
        worker.ask("infer", image=str(split.train[0]))  # the first takes longer
        contenders.append(Contender(name if module == OURS else f"{version}: {name}", worker, bank))
    return contenders


def score_all(contenders: Sequence[Contender], split: Split) -> None:
    """Score every test image by every system, in turn."""
    test = split.good + split.defective
    for done, path in enumerate(test):
        if done % 10 == 0:
            say(f"{split.name}: {done} of {len(test)} images scored")
        for contender in contenders:
            reply = contender.worker.ask("infer", image=str(path))
            contender.scores.append(reply["score"])
            contender.seconds.append(reply["seconds"])


def row(split: Split, contender: Contender, ours: Contender) -> tuple[object, ...]:
    """A line of the table."""
    scores, own = (_split_scores(one, len(split.good)) for one in (contender, ours))
    resampled = scores.resampled_auroc()
    low, high = interval(resampled)
    gain = own.resampled_auroc() - resampled
    least, most = interval(gain)
    return (
        f"{split.name}: {len(split.train)}, {len(split.good)} + {len(split.defective)}",
        contender.name,
        f"{scores.auroc:.3f} ({low:.3f} … {high:.3f})",
        "" if contender is ours else f"{own.auroc - scores.auroc:+.3f} ({least:+.3f} … {most:+.3f})",
        f"{scores.average_precision:.3f}",
        f"{scores.f1_max:.3f}",
        contender.bank,
        f"{1000 * statistics.median(contender.seconds):.0f}",
    )


def _split_scores(contender: Contender, n_good: int) -> Scores:
    scores = np.array(contender.scores)
    return Scores(scores[:n_good], scores[n_good:])


if __name__ == "__main__":
    main()
