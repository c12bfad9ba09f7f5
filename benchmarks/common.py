"""What the scripts share: real images, interleaved timing, tables."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def solar_cells(count: int) -> list[Image]:
    """The first `count` images of the package ``elpv-dataset`` (CC BY-NC-SA 4.0), uint8 [300, 300, 3], BGR."""
    folder = Path(elpv_dataset.__file__).parent / "data" / "images"
    images = [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))[:count]]
    return [np.asarray(image, np.uint8) for image in images if image is not None]


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time every contender once per round, in turn, after one warm-up each; median seconds by name."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(rounds + 1):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table, as the documents show it."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
