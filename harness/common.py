"""What the scripts share: real images, interleaved timing, percentiles, tables."""

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import numpy.typing as npt
import psutil

Image = npt.NDArray[np.uint8]


def solar_cells(count: int) -> list[Image]:
    """The first `count` images of the package ``elpv-dataset`` (CC BY-NC-SA 4.0), uint8 [300, 300, 3], BGR."""
    folder = Path(elpv_dataset.__file__).parent / "data" / "images"
    images = [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))[:count]]
    return [np.asarray(image, np.uint8) for image in images if image is not None]


def png(image: Image) -> bytes:
    """The image as a PNG file."""
    return cv2.imencode(".png", image)[1].tobytes()


def cell_png(width: int, height: int) -> bytes:
    """A solar cell stretched to a ROI of that size, as a PNG file of three channels."""
    return png(np.asarray(cv2.resize(solar_cells(1)[0], (width, height), interpolation=cv2.INTER_CUBIC), np.uint8))


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Time every contender once per round, in turn, after one warm-up each; median seconds by name.

    `before` runs before each of them and is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(rounds + 1):
        for name, contender in contenders.items():
            before()
            start = time.perf_counter()
            contender()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(process: psutil.Process) -> float:
    """The most memory that the process ever had; NaN where the system does not tell."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return float(getattr(process.memory_info(), "peak_wset", "nan"))
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    assert peak is not None, "every running process of Linux has it"
    return int(peak[1]) * 1024


def p95(values: Sequence[float]) -> float:
    """95th percentile, interpolated."""
    return float(np.percentile(values, 95))


def at_most(claim: float, value: float) -> str:
    """A figure beside the largest value that is claimed of it."""
    return f"{value:.3g} (≤ {claim:g}: {'holds' if value <= claim else '**fails**'})"


def at_least(claim: float, value: float) -> str:
    """A figure beside the smallest value that is claimed of it."""
    return f"{value:.3g} (≥ {claim:g}: {'holds' if value >= claim else '**fails**'})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table, as the documents show it."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
