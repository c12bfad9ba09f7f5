"""``python -m demo.folders cells``: solar cells in the folders that the tutorial works on."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from demo.cells import CITATION, LICENCE, SOURCE, Cell, split_cells

_GOOD, _BAD, _PER_CLASS, _NEW_LAMP = 40, 3, 6, 12
_DIMMED, _GLARE = 0.6, 160.0  # what is left of all light; grey values that the reflection adds
_SPOT = (90.0, 90.0, 50.0)  # its x, y and σ in pixels


def main() -> None:
    """Write the folders; turn what went wrong into one message."""
    parser = argparse.ArgumentParser(prog="python -m demo.folders", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder for good/, bad/, parts/ and new-lamp/")
    folder: Path = parser.parse_args().folder
    print(SOURCE, f"Licence: {LICENCE}", *CITATION, "", sep="\n")
    try:
        counts = write_folders(folder)
    except OSError as exc:
        sys.exit(f"error: {exc}")
    for path, count in counts.items():
        print(f"{count} images in {path}")


def write_folders(folder: Path) -> dict[Path, int]:
    """Write the images of the tutorial, always the same ones.

    Args:
        folder: gets `good` (40), `bad` (three), `parts` (six good and six defective ones) and `new-lamp` (twelve other
            good ones, with the reflection of a lamp on them).

    Returns:
        The folders, and how many images each one got.

    Raises:
        OSError: a file cannot be written.
    """
    split = split_cells(_GOOD, _PER_CLASS, _PER_CLASS + _NEW_LAMP)
    spare = [cell for cell in split.calibrate if cell.defective]
    good = [cell for cell in split.test if not cell.defective]
    defective = [cell for cell in split.test if cell.defective]
    relit = [Cell(cell.name, _with_reflection(cell.png), cell.defective) for cell in good[:_NEW_LAMP]]
    return {
        folder / name: _write(folder / name, cells)
        for name, cells in (
            ("good", split.fit),
            ("bad", spare[:_BAD]),
            ("parts", good[_NEW_LAMP:] + defective[:_PER_CLASS]),
            ("new-lamp", relit),
        )
    }


def _write(folder: Path, cells: Sequence[Cell]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        (folder / cell.name).write_bytes(cell.png)
    return len(cells)


def _with_reflection(png: bytes) -> bytes:
    """The image as a PNG: darker, and with the reflection of a lamp at its upper left."""
    image = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE), np.float64)
    rows, columns = np.indices(image.shape)
    x, y, sigma = _SPOT
    light = _GLARE * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return bytes(cv2.imencode(".png", np.clip(_DIMMED * image + light, 0, 255).astype(np.uint8))[1])


if __name__ == "__main__":
    main()
