"""``python -m demo.tutorial_pictures . docs/``: the pictures of docs/tutorial.md, from what its commands wrote."""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.image
from matplotlib.figure import Figure
from PIL import Image

from demo.cells import LICENCE

_NOTE = f"Images: ELPV data set, {LICENCE}; so is this picture, which is adapted from it."
_OK, _NG = "#0b7285", "#c2570c"
_WIDTH = 10.0
_CELL = 1.55
_TEXT = "#1c2430"
_MUTED = "#5b6675"


def main() -> None:
    """Draw the three pictures."""
    parser = argparse.ArgumentParser(prog="python -m demo.tutorial_pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder in which the commands of the tutorial ran")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    arguments = parser.parse_args()
    cells, out = arguments.folder / "cells", arguments.out
    rows = [
        ("good/", sorted((cells / "good").glob("*.png"))[:6]),
        ("bad/", sorted((cells / "bad").glob("*.png"))),
        ("new-lamp/", sorted((cells / "new-lamp").glob("*.png"))[:6]),
    ]
    draw_folders(rows, out / "tutorial-folders.png")
    inspected = _records(arguments.folder / "inspection-cells" / "results.csv")
    groups = {name: [record for record in inspected if record["given_as"] == name] for name in ("good", "bad", "part")}
    groups["new lamp"] = _records(arguments.folder / "new-lamp.csv")
    draw_scores(groups, out / "tutorial-scores.png")
    overlays = sorted((arguments.folder / "overlays").rglob("*.png"))
    draw_folders([("overlays/", overlays[:6])], out / "tutorial-overlays.png")


def draw_folders(rows: Sequence[tuple[str, Sequence[Path]]], path: Path) -> None:
    """Write a picture with a row of images for each folder.

    Args:
        rows: names of the folders, and up to six of their images.
        path: the file, PNG.
    """
    height = len(rows) * (_CELL + 0.3) + 0.3
    figure = Figure(figsize=(_WIDTH, height), dpi=100)
    for row, (name, images) in enumerate(rows):
        top = height - row * (_CELL + 0.3) - 0.3
        figure.text(0.01, top / height, name, fontsize=11, weight="bold", color=_TEXT, va="bottom")
        for column, image in enumerate(images):
            box = (0.1 + column * (_CELL + 0.08)) / _WIDTH, (top - _CELL) / height, _CELL / _WIDTH, _CELL / height
            axes = figure.add_axes(box)
            axes.imshow(matplotlib.image.imread(image), cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
    _save(figure, path)


def draw_scores(groups: Mapping[str, Sequence[Mapping[str, str]]], path: Path) -> None:
    """Write a picture of all scores over one axis.

    Args:
        groups: name → records with `score` and `threshold`, as the commands write them.
        path: the file, PNG.
    """
    threshold = float(next(iter(groups.values()))[0]["threshold"])
    figure = Figure(figsize=(_WIDTH, 3), dpi=100)
    axes = figure.add_axes((0.1, 0.22, 0.87, 0.66))
    for row, images in enumerate(groups.values()):
        for image in images:
            colour = _NG if float(image["score"]) >= threshold else _OK
            axes.scatter(float(image["score"]), -row, s=60, color=colour, alpha=0.6, linewidth=0)
    axes.axvline(threshold, color=_TEXT, linewidth=2)
    axes.text(threshold, 0.6, f"threshold {threshold:.2f}", ha="center", va="bottom", color=_TEXT)
    axes.set(yticks=[-row for row in range(len(groups))], yticklabels=list(groups), ylim=(0.5 - len(groups), 0.55))
    axes.tick_params(length=0, colors=_MUTED)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f5f7f9")
    _save(figure, path)


def _records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _save(figure: Figure, path: Path) -> None:
    figure.text(0.01, 0.02, _NOTE, fontsize=8, color=_MUTED)
    figure.savefig(path)
    with Image.open(path) as image:
        colours = image.convert("RGB").quantize(200)
    colours.save(path, optimize=True)


if __name__ == "__main__":
    main()
