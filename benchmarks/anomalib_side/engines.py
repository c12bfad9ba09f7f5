"""The service beside anomalib's AnomalyDINO: the same weights, images, input size and cores, in turn."""

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from backend.common.config import load_settings
from backend.features import preprocess
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.weights import find_weights
from benchmarks.anomalib_side.worker import Worker
from demo.cells import Cell, split_cells
from harness.measuring import print_table

OURS, THEIRS = "benchmarks.anomalib_side.ours", "benchmarks.anomalib_side.theirs"
_CORES = 2
_NATIVE_SIZE = 518  # the position grid of the weights is used as it is


@dataclass
class Split:
    """Image files to fit, and good and defective ones to score."""

    fit: list[Path]
    good: list[Path]
    defective: list[Path]


@dataclass(frozen=True)
class Sides:
    """What both engines are given; `python` is the interpreter of anomalib's environment."""

    python: Path
    weights: Path
    input_size: int
    coreset_rate: float


@dataclass
class Contender:
    """One engine and what was measured of it; `fit` only of those that fit."""

    name: str
    worker: Worker
    order: str
    fit: dict[str, Any] | None = None
    peak_mib: float = 0
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def warm_up(self, image: Path) -> None:
        """Score an image for nothing."""
        self.peak_mib = self.worker.ask(self.order, image=str(image))["peak_mib"]

    def infer(self, image: Path) -> None:
        """Score an image and keep time and score."""
        reply = self.worker.ask(self.order, image=str(image))
        self.seconds.append(reply["seconds"])
        self.scores.append(reply["score"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="interpreter of anomalib's environment")
    parser.add_argument(
        "--folder",
        type=lambda text: Path(text).resolve(),
        help="images in MVTec layout; default: solar cells of elpv-dataset",
    )
    parser.add_argument("--fit", type=int, default=34, help="good images to fit (%(default)s)")
    parser.add_argument("--test", type=int, default=20, help="images per class to score (%(default)s)")
    options = parser.parse_args(arguments)
    share_cores()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if options.folder is None:
            split = split_solar_cells(scratch, options.fit, options.test)
        else:
            split = split_mvtec(options.folder, options.fit, options.test)
        if not split.fit:
            parser.error(f"{options.folder} holds no images in train/good")
        settings = load_settings()
        sides = Sides(options.python, find_weights(settings).path, settings.input_size, settings.coreset_rate)
        _print_token_agreement(sides, scratch / "tokens", split.fit[0])
        _compare(sides, scratch / "coreset", split, keep_all=False)
        _compare(sides, scratch / "all", split, keep_all=True)


def share_cores() -> None:
    """Keep this process, and the workers it starts, on the same two cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])


def say(what: str) -> None:
    """Progress."""
    print(what, file=sys.stderr, flush=True)


def split_solar_cells(scratch: Path, n_fit: int, n_test: int) -> Split:
    """Monocrystalline solar cells of ``elpv-dataset`` (CC BY-NC-SA 4.0), written to files."""
    cells = split_cells(n_fit, 0, n_test)

    def write(cell: Cell) -> Path:
        path = scratch / cell.name
        path.write_bytes(cell.png)
        return path

    return Split(
        [write(cell) for cell in cells.fit],
        [write(cell) for cell in cells.test if not cell.defective],
        [write(cell) for cell in cells.test if cell.defective],
    )


def split_mvtec(folder: Path, n_fit: int, n_test: int) -> Split:
    """Images in MVTec layout, at most `n_test` of each class, drawn at random but always the same."""
    test = sorted(folder.glob("test/*/*"))
    good = [path for path in test if path.parent.name == "good"]
    defective = [path for path in test if path.parent.name != "good"]
    draw = random.Random(0)  # noqa: S311
    return Split(
        sorted(folder.glob("train/good/*"))[:n_fit],
        draw.sample(good, min(n_test, len(good))),
        draw.sample(defective, min(n_test, len(defective))),
    )


def _print_token_agreement(sides: Sides, scratch: Path, image: Path) -> None:
    """Print how far apart the tokens are, from a process of its own whose memory nobody looks at."""
    scratch.mkdir()
    pixels, output = scratch / "pixels.npy", scratch / "tokens.npy"
    lowest = []
    with Worker(sides.python, THEIRS, scratch / "log") as theirs:
        theirs.ask("open", **_opening(sides, scratch, keep_all=True))
        for side in (_NATIVE_SIZE, sides.input_size):
            np.save(pixels, preprocess(np.asarray(cv2.imread(str(image)), np.uint8), side))
            theirs.ask("tokens", pixels=str(pixels), output=str(output))
            left, right = OpenVinoRuntime(sides.weights, side).forward(np.load(pixels)[None])[0], np.load(output)
            norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
            lowest.append(float(((left * right).sum(axis=1) / norms).min()))
    assert lowest[0] > 0.9999, "not the same network"
    print(
        "\nBoth run the same weights, tensor for tensor. Lowest cosine of our tokens and anomalib's on one image: "
        f"{lowest[0]:.7f} at {_NATIVE_SIZE} pixels; {lowest[1]:.3f} at {sides.input_size}, where the position grid is "
        "resampled, by anomalib without antialiasing."
    )


def _compare(sides: Sides, scratch: Path, split: Split, keep_all: bool) -> None:
    """Fit and score with one size of the memory bank, and print its table."""
    scratch.mkdir()
    images = [str(path) for path in split.fit]
    with contextlib.ExitStack() as stack:

        def start(interpreter: str | Path, module: str, log: str) -> Worker:
            return stack.enter_context(Worker(interpreter, module, scratch / log))

        say(f"fit of {len(images)} images, ours")
        ours = start(sys.executable, OURS, "ours.log")
        name = ours.ask("open", models_dir=str(scratch / "models"))["name"]
        fit = ours.ask("fit", images=images, keep_all=keep_all)
        contenders = [Contender(name, ours, "infer", fit)]

        say(f"fit of {len(images)} images, anomalib")
        theirs = start(sides.python, THEIRS, "theirs.log")
        anomalib = theirs.ask("open", **_opening(sides, scratch, keep_all))["name"]
        fit = theirs.ask("fit", images=images)
        contenders.append(Contender(f"{anomalib}, torch float32", theirs, "infer", fit))
        for contender in contenders:
            contender.warm_up(split.fit[0])

        say("export of anomalib's model to OpenVINO")
        exported = theirs.ask("export")["path"]
        for precision in ("f32", None):
            folder = scratch / f"exported-{precision}"  # in one they share a cache, and OpenVINO 2026.4.1 crashes on it
            folder.mkdir()
            worker = start(sides.python, THEIRS, f"{folder.name}.log")
            chosen = worker.ask("open_exported", path=exported, scratch=str(folder), precision=precision)["precision"]
            shown = "float32" if precision else f"{chosen}, its own choice here"
            contenders.append(Contender(f"{anomalib}, exported to OpenVINO, {shown}", worker, "infer_exported"))
            contenders[-1].warm_up(split.fit[0])

        test = split.good + split.defective or split.fit
        for done, image in enumerate(test):
            if done % 10 == 0:
                say(f"inference, {done} of {len(test)} images")
            for contender in contenders:
                contender.infer(image)
    bank = "every embedding" if keep_all else f"a {sides.coreset_rate:.0%} coreset"
    title = (
        f"Memory bank of {bank}: one fit of {len(images)} images, then {len(test)} images scored in turn, at "
        f"{sides.input_size} pixels on {_CORES} cores; in brackets the ratio to ours"
    )
    _print_contenders(title, contenders, [False] * len(split.good) + [True] * len(split.defective))


def _opening(sides: Sides, scratch: Path, keep_all: bool) -> dict[str, Any]:
    """Arguments with which anomalib's side is opened."""
    return {
        "weights": str(sides.weights),
        "scratch": str(scratch),
        "input_size": sides.input_size,
        "sampling_ratio": None if keep_all else sides.coreset_rate,
    }


def _print_contenders(title: str, contenders: Sequence[Contender], defective: Sequence[bool]) -> None:
    """Print the table; `defective` says which of the scored images are, or is empty where nobody knows."""
    first = contenders[0]
    assert first.fit is not None
    our_ms = 1000 * statistics.median(first.seconds)
    rows = []
    for contender in contenders:
        fit = ["", "", ""]
        if contender.fit is not None:
            seconds = _beside(contender.fit["seconds"], first.fit["seconds"], 1)
            fit = [contender.fit["bank"], seconds, f"{contender.fit['coreset_s']:.2f}"]
        milliseconds = _beside(1000 * statistics.median(contender.seconds), our_ms, 0)
        auroc = f"{roc_auc_score(defective, contender.scores):.3f}" if len(set(defective)) == 2 else ""
        rows.append((contender.name, *fit, milliseconds, _beside(contender.peak_mib, first.peak_mib, 0), auroc))
    print_table(
        title,
        ("engine", "bank", "fit s", "of it coreset s", "one image, median ms", "peak memory MiB", "image AUROC"),
        rows,
    )


def _beside(value: float, ours: float, digits: int) -> str:
    return f"{value:.{digits}f} ({value / ours:.2f})"


if __name__ == "__main__":
    main()
