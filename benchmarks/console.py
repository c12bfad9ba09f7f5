"""Cost of the console's pixel path in browsers: open a picture, warp a ROI, cut it and encode it.

``python -m benchmarks.console`` measures the installed browsers; ``--browser PROGRAM …`` names others. In Chromium, it
also measures waiting times: see `console_waits`.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import console_waits
from harness.images import solar_cells
from harness.measuring import at_most, print_table
from harness.pages import PageServer, pages

_MOST_WARP_MS = 100
_PAGE_S = 300
_STOP_S = 20


def main() -> None:
    """Print a table for each browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", nargs="+", default=["chromium", "firefox-esr"], metavar="PROGRAM")
    for name in parser.parse_args().browser:
        if (program := shutil.which(name)) is None:
            print(f"\n{name} is not installed")
            continue
        with pages(Path(__file__).parent) as server:
            camera = _camera_picture()
            server.files = {
                "camera.png": cv2.imencode(".png", camera)[1].tobytes(),
                "camera.jpg": cv2.imencode(".jpg", camera)[1].tobytes(),
            }
            server.cases = [["camera.png", 1024], ["camera.jpg", 512]]
            visit(program, server, "console.html")
            rows = [
                (what, *(f"{ms:.1f}" for ms in times[:-1]), _claimed(what, times[-1]))
                for what, times in json.loads(server.results["times"][1])
            ]
        print_table(
            f"{name}: milliseconds; the camera's picture has {camera.shape[1]}×{camera.shape[0]} pixels",
            ("what", "first", "fastest", "median"),
            rows,
        )
        if "firefox" not in Path(program).name:
            console_waits.measure(program)


def _camera_picture() -> npt.NDArray[np.uint8]:
    """5 megapixels with the detail of real parts, uint8 [2048, 2448, 3]."""
    cell = cv2.resize(solar_cells(1)[0], (612, 512), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.tile(cell, (4, 4, 1)), np.uint8)


def visit(program: str, server: PageServer, page: str) -> None:
    """Open a page in a fresh profile of a browser, and wait until it posted all it found."""
    address = f"{server.address}/pages/{page}"
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        if "firefox" in Path(program).name:
            command = [program, "--headless", "--no-remote", "--profile", profile, address]
        else:
            command = [program, "--headless", "--no-sandbox", "--no-first-run", f"--user-data-dir={profile}", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not server.done.wait(_PAGE_S):
                raise SystemExit(f"{program} did not come to the end of the page within {_PAGE_S} s")
        finally:
            process.terminate()
            process.wait(_STOP_S)


def _claimed(what: str, ms: float) -> str:
    return at_most(_MOST_WARP_MS, ms) if what.startswith("warp 1024") else f"{ms:.1f}"


if __name__ == "__main__":
    main()
