"""Parts per second of ``roi-anomaly watch``, compared with clients that have nothing to cut, or cut and wait in turn.

``python -m benchmarks.watch`` takes JPEG pictures of five megapixels with two ROIs; ``--parts`` says how many, and
``--rounds`` how often.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import cv2
import httpx
import numpy as np

from backend.commands.main import main as roi_anomaly
from backend.commands.watch.arrivals import Arrival, identity_of
from backend.commands.watch.crop import Roi
from backend.commands.watch.layouts import read_layout
from backend.commands.watch.pictures import Crop
from backend.commands.watch.preparing import prepare
from harness.drawn import fit_drawn, ids_of, layout_of, put_layout
from harness.forms import Form
from harness.images import solar_cells
from harness.measuring import print_table
from harness.server import Server, serving

_RECIPE, _SCALE = "line 1", 0.1
_SIZE = (2448, 2048)
_ROIS = {
    "Body": Roi("rect", 1200, 1000, w=1000, h=700, angle_deg=12.5),
    "Ring": Roi("annulus", 1300.25, 900, r=300, r_inner=80),
}
_N_FIT = 10


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-") as name:
        folder = Path(name)
        pictures = _written(folder, options.parts)
        with serving(folder=folder) as server:
            crops, ms = _fitted(server, pictures)
            with server.client() as client:
                contenders: dict[str, Callable[[], float]] = {
                    "crops that were cut before, one request after the other": lambda: _asking(client, crops),
                    "cut and ask in turn": lambda: _in_turn(client, pictures),
                    "watch --url": lambda: _watching(server, folder, pictures),
                }
                rates: dict[str, list[float]] = {contender: [] for contender in contenders}
                for _ in range(options.rounds + 1):
                    for contender, run in contenders.items():
                        rates[contender].append(run())
    medians = {contender: statistics.median(values[1:]) for contender, values in rates.items()}
    most = next(iter(medians.values()))
    print_table(
        f"{len(pictures)} pictures of {_SIZE[0]}×{_SIZE[1]} with two ROIs; reading, cutting and encoding one takes "
        f"{ms:.0f} ms",
        ("", "parts per second", "share of the first"),
        [(contender, f"{rate:.2f}", f"{rate / most:.2f}") for contender, rate in medians.items()],
    )


def _written(folder: Path, n_parts: int) -> list[Path]:
    """Pictures of a camera as JPEG files."""
    (folder / "pictures").mkdir()
    paths = []
    for number, cell in enumerate(solar_cells(max(n_parts, _N_FIT))):
        picture = cv2.resize(cell, _SIZE, interpolation=cv2.INTER_CUBIC)
        paths.append(folder / "pictures" / f"{number:03}.jpg")
        paths[-1].write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    return paths


def _no_template(recipe: str, name: str) -> bytes:
    raise AssertionError(recipe, name)


def _crops_of(picture: Path) -> list[bytes]:
    layout = read_layout(json.dumps(layout_of(_ROIS, _SIZE, _SCALE)).encode(), _RECIPE, "the layout", _no_template)
    identity = identity_of(picture)
    assert identity is not None
    prepared = prepare(picture.parent, Arrival(picture.name, identity), layout)
    return [crop.content for crop in prepared.crops if isinstance(crop, Crop)]


def _fitted(server: Server, pictures: Sequence[Path]) -> tuple[list[list[bytes]], float]:
    """Fit both ROIs; the crops of each picture, and the median milliseconds that they took."""
    crops, seconds = [], []
    for picture in pictures:
        start = time.perf_counter()
        crops.append(_crops_of(picture))
        seconds.append(time.perf_counter() - start)
    with server.client() as client:
        for number, roi in enumerate(_ROIS.values(), 1):
            of_fit = [of_part[number - 1] for of_part in crops[:_N_FIT]]
            fit_drawn(client, ids_of(_RECIPE, number), roi, of_fit, _SCALE, memory_fit="false")
        put_layout(client, _RECIPE, layout_of(_ROIS, _SIZE, _SCALE))
    return crops, 1000 * statistics.median(seconds)


def _ask(client: httpx.Client, crops: Sequence[bytes]) -> None:
    for number, (crop, roi) in enumerate(zip(crops, _ROIS.values(), strict=True), 1):
        shape = {"shape": json.dumps(roi.shape)} if roi.shape else {}
        texts = {**ids_of(_RECIPE, number), "mm_per_px": str(_SCALE), "heatmap": "threshold", "why": "true", **shape}
        Form.of("image", [crop], **texts).post(client, "/infer").raise_for_status()


def _asking(client: httpx.Client, crops: Sequence[Sequence[bytes]]) -> float:
    start = time.perf_counter()
    for of_part in crops:
        _ask(client, of_part)
    return len(crops) / (time.perf_counter() - start)


def _in_turn(client: httpx.Client, pictures: Sequence[Path]) -> float:
    start = time.perf_counter()
    for picture in pictures:
        _ask(client, _crops_of(picture))
    return len(pictures) / (time.perf_counter() - start)


def _watching(server: Server, folder: Path, pictures: Sequence[Path]) -> float:
    """From the first verdict to the last: the start of the command counts for no one."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        incoming, results = Path(name) / "incoming", Path(name) / "results.jsonl"
        incoming.mkdir()
        for picture in pictures:
            os.link(picture, incoming / picture.name)
        command = ["watch", _RECIPE, str(incoming), "--url", server.address, "--once", "--settle", "0"]
        with contextlib.redirect_stderr(io.StringIO()):
            roi_anomaly([*command, "--out", str(results), "--ok", f"{name}/ok", "--ng", f"{name}/ng"])
        told = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert all(part["verdict"] != "not_judged" for part in told)
    times = [datetime.fromisoformat(part["time_utc"]).timestamp() for part in told]
    return float((len(times) - 1) / np.ptp(times))


if __name__ == "__main__":
    main()
