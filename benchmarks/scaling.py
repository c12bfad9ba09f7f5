"""Cost against size: images of a fit, embeddings of a memory bank, pixels of a ROI, clients; tables and a figure.

``python -m benchmarks.scaling [--quick] [--out docs/benchmarks.png]``. Everything is timed in turns with the forward
pass or the single request that it is compared with.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from backend.common.config import load_settings
from backend.features import DinoV2Features
from backend.network.runtimes import open_runtime
from backend.network.weights import find_weights
from backend.patchcore import PatchCoreMemory, l2_normalize
from benchmarks.bare_forward import bare_forward
from benchmarks.serving import alone, press
from harness.forms import Form
from harness.images import cell_png, solar_cells
from harness.measuring import interleaved, print_table
from harness.server import Server, serving

_FIT_IMAGES = (4, 8, 16, 32, 64)
_FITTED = 34  # cells of the ROI that is inferred: a memory bank of 697 embeddings at the default rate
_BANK_SIZES = (700, 3500, 7000, 14000, 35000)
_SIDES = (256, 512, 1024, 1792, 2448)  # of the ROI in pixels
_CLIENTS = (1, 2, 4, 8, 16)
_QUICK = slice(None, None, 2)
_ROUNDS = 9
_REQUESTS_PER_CLIENT = 6
_CLIENT_SIDE = 512  # of the ROI that clients at once send

_TEXT, _MUTED, _GRID = "#1c2430", "#5b6675", "#e3e7ec"
_MEASURED, _THROUGHPUT = "#0b7285", "#c2570c"


@dataclass(frozen=True)
class Curve:
    """One cost against size.

    Attributes:
        title: what was done.
        size: what grows, and its unit.
        unit: of the costs.
        names: of what was measured and of the reference beside it.
        points: (size, cost, reference).
        per_second: replies per second at each point, where clients compete.
    """

    title: str
    size: str
    unit: str
    names: tuple[str, str]
    points: list[tuple[float, float, float]]
    per_second: tuple[float, ...] = ()


def fits(server: Server, forward: Callable[[], float], counts: Sequence[int]) -> Curve:
    """Whole fits against as many forward passes."""
    points = []
    for count in counts:
        passes = [forward() for _ in range(_ROUNDS // 2)]
        seconds = server.fit(count, roi_id="Scaling")
        passes += [forward() for _ in range(_ROUNDS // 2)]
        points.append((count, seconds, count * median(passes)))
    return Curve("/fit_ok over HTTP", "images", "seconds", ("/fit_ok", "as many forward passes"), points)


def searches(forward: Callable[[], float], sizes: Sequence[int]) -> Curve:
    """The search for the nearest neighbours of one image's patches, in process."""
    settings = load_settings()
    weights = find_weights(settings)
    runtime, _ = open_runtime(settings, weights)
    features = DinoV2Features(runtime, settings.model_name, weights.sha256, settings.input_size)
    per_image = features.token_hw[0] * features.token_hw[1]
    *fitted, queries = (features.extract(cell)[0] for cell in solar_cells(-(-max(sizes) // per_image) + 1))
    shuffled = np.random.default_rng(0).permutation(l2_normalize(np.concatenate(fitted)))
    banks = {str(size): PatchCoreMemory(shuffled[:size], features.token_hw) for size in sizes}
    contenders = {size: lambda bank=bank: bank.distances(queries) for size, bank in banks.items()}
    seconds = interleaved({**contenders, "forward": forward}, _ROUNDS)
    points = [(size, 1000 * seconds[str(size)], 1000 * seconds["forward"]) for size in sizes]
    return Curve(
        "Search for one image", "embeddings in the memory bank", "milliseconds", ("search", "forward pass"), points
    )


def rois(server: Server, forward: Callable[[], float], sides: Sequence[int]) -> Curve:
    """Square ROIs of growing sides from one client."""
    forms = {str(side): Form.of("image", [cell_png(side, side)]) for side in sides}
    with server.client() as client:
        contenders = {side: lambda form=form: form.infer(client) for side, form in forms.items()}
        seconds = interleaved({**contenders, "forward": forward}, _ROUNDS)
    points = [(side, 1000 * seconds[str(side)], 1000 * seconds["forward"]) for side in sides]
    return Curve(
        "/infer over HTTP, one client", "side of the ROI, pixels", "milliseconds", ("/infer", "forward pass"), points
    )


def crowds(server: Server, counts: Sequence[int]) -> Curve:
    """Clients that send one request after the other, all at once; a lone one before each of these groups."""
    form = Form.of("image", [cell_png(_CLIENT_SIDE, _CLIENT_SIDE)])
    points, per_second = [], []
    for count in counts:
        lone = median(alone(server, form, _ROUNDS))
        load = press(server, form, count, _REQUESTS_PER_CLIENT * count)
        points.append((count, 1000 * median(load.every), 1000 * count * lone))
        per_second.append(load.throughput)
    title, names = f"/infer of {_CLIENT_SIDE}×{_CLIENT_SIDE} over HTTP", ("median /infer", "lone /infer × clients")
    return Curve(title, "clients at once", "milliseconds", names, points, tuple(per_second))


def draw(curves: Sequence[Curve], conditions: str, out: Path) -> None:
    """Draw four curves as the panels of a PNG file."""
    figure = Figure(figsize=(11, 8), dpi=120, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    for axes, curve in zip(figure.subplots(2, 2).flat, curves, strict=True):
        _draw_panel(axes, curve)
    figure.suptitle(conditions, color=_MUTED, fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Software": None})


def _draw_panel(axes: Axes, curve: Curve) -> None:
    sizes, costs, references = zip(*curve.points, strict=True)
    axes.plot(sizes, references, "--", color=_MUTED, linewidth=1, label=curve.names[1])
    axes.plot(sizes, costs, "o-", color=_MEASURED, markersize=4, label=curve.names[0])
    axes.set_title(curve.title, color=_TEXT, loc="left", fontsize=11)
    axes.set_xlabel(curve.size, color=_TEXT)
    axes.set_ylabel(curve.unit, color=_TEXT)
    axes.set_xlim(0)
    axes.set_ylim(0, 1.3 * max(*costs, *references))  # the legend lies above the lines
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_MUTED, length=0)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, labelcolor=_TEXT, fontsize=9, loc="upper left")
    if curve.per_second:
        beside = axes.twinx()
        beside.plot(sizes, curve.per_second, "s-", color=_THROUGHPUT, markersize=4)
        beside.set_ylabel("replies per second", color=_THROUGHPUT)
        beside.set_ylim(0, 1.3 * max(curve.per_second))
        beside.tick_params(colors=_THROUGHPUT, length=0)
        beside.spines[:].set_visible(False)


def _print(curve: Curve, conditions: str) -> None:
    measured, reference = (f"{name}, {curve.unit}" for name in curve.names)
    header = [curve.size, measured, reference, "ratio"]
    rows = [
        [size, *(f"{value:.2f}" if value < 10 else f"{value:.0f}" for value in values), f"{values[0] / values[1]:.2f}"]
        for size, *values in curve.points
    ]
    if curve.per_second:
        header.append("replies per second")
        rows = [[*row, f"{rate:.2f}"] for row, rate in zip(rows, curve.per_second, strict=True)]
    print_table(f"{curve.title}, {conditions}", header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="use only every second size")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.png"), help="the figure (%(default)s)")
    chosen = parser.parse_args(arguments)
    sizes = _QUICK if chosen.quick else slice(None)
    with serving() as server, bare_forward() as forward:
        health = server.wait_for("/health").json()
        server.fit(_FITTED)
        curves = [
            fits(server, forward, _FIT_IMAGES[sizes]),
            searches(forward, _BANK_SIZES[sizes]),
            rois(server, forward, _SIDES[sizes]),
            crowds(server, _CLIENTS[sizes]),
        ]
    conditions = f"{health['runtime']} {health['precision']}, {health['input_size']} pixels, {os.cpu_count()} cores"
    for curve in curves:
        _print(curve, conditions)
    draw(curves, conditions, chosen.out)
    print(f"\nFigure: {chosen.out}")


if __name__ == "__main__":
    main()
