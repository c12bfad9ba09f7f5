"""``python -m demo``: the whole service in a minute, on real solar cells, with numbers and a picture at the end."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from sklearn.metrics import roc_auc_score

from backend.api.schemas.calibration import CalibrateReply
from backend.api.schemas.inspection import FitReply
from backend.common.errors import ConfigError
from demo.cells import CITATION, LICENCE, SOURCE, Cell, Split, split_cells
from demo.client import Client, DemoError, open_client
from demo.picture import Inspected, draw

_AREA_MM2_THR = 20.0  # 74 pixels: a spot 5 mm wide


def main() -> None:
    """Run the demo; turn what went wrong into one message."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/out/demo.png"), help="file of the picture (%(default)s)")
    parser.add_argument("--fit", type=_count, default=40, help="good cells to fit (%(default)s)")
    parser.add_argument("--calibrate", type=_count, default=20, help="cells per class to calibrate on (%(default)s)")
    parser.add_argument("--test", type=_count, default=40, help="cells per class to inspect (%(default)s)")
    arguments = parser.parse_args()
    try:
        split = split_cells(arguments.fit, arguments.calibrate, arguments.test)
    except ValueError as exc:
        parser.error(str(exc))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a service started here is stopped, as on Ctrl-C
    console = Console(highlight=False)
    try:
        _demonstrate(console, split, arguments.out)
    except (ConfigError, DemoError, OSError) as exc:
        console.print(f"[bold red]error:[/] {escape(str(exc))}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def _demonstrate(console: Console, split: Split, out: Path) -> None:
    console.print(f"[bold]{SOURCE}[/]", f"Licence: {LICENCE}", *CITATION, "", sep="\n", soft_wrap=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open_client(console) as client:
        with console.status(f"POST /fit_ok: {len(split.fit)} good cells"):
            start = time.perf_counter()
            fit = client.fit_ok(split.fit)
            fit_s = time.perf_counter() - start
        held_out = _inspect(console, client, split.calibrate, "POST /infer, to calibrate")
        calibration = client.calibrate_ng(*_scores(held_out), area_mm2_thr=_AREA_MM2_THR)
        inspected = _inspect(console, client, split.test, "POST /infer, unseen cells", overlays=True)
    _print_results(console, len(split.fit), fit, fit_s, calibration, inspected)
    draw(inspected, calibration.threshold, out)
    console.print(f"\nPicture: [bold]{escape(str(out))}[/] ({LICENCE}, as the images)")


def _inspect(
    console: Console, client: Client, cells: Sequence[Cell], description: str, *, overlays: bool = False
) -> list[Inspected]:
    inspected = []
    for cell in track(cells, f"{description:<26}", console=console):
        start = time.perf_counter()
        reply = client.infer(cell, overlay=overlays)
        inspected.append(Inspected(cell, reply, 1000 * (time.perf_counter() - start)))
    return inspected


def _scores(inspected: Sequence[Inspected]) -> tuple[list[float], list[float]]:
    """Image scores of the good cells, and of the defective ones."""
    good = [item.reply.score for item in inspected if not item.cell.defective]
    return good, [item.reply.score for item in inspected if item.cell.defective]


def _print_results(
    console: Console,
    n_fit: int,
    fit: FitReply,
    fit_s: float,
    calibration: CalibrateReply,
    inspected: Sequence[Inspected],
) -> None:
    good, defective = _scores(inspected)
    false_rejects = sum(not item.right for item in inspected if not item.cell.defective)
    escapes = sum(not item.right for item in inspected if item.cell.defective)
    auroc = roc_auc_score([item.cell.defective for item in inspected], [item.reply.score for item in inspected])
    median_ms, p95_ms = np.percentile([item.ms for item in inspected], [50, 95])

    summary = Table(box=box.SIMPLE_HEAD, title="Results", title_justify="left", show_header=False)
    summary.add_column(style="bold")
    summary.add_column()
    summary.add_row("fit", f"{n_fit} good cells in {fit_s:.1f} s")
    summary.add_row("", f"{fit.n_embeddings} patch embeddings, coreset of {fit.coreset_size}")
    summary.add_row("calibrate", f"{calibration.n_ok} good and {calibration.n_ng} defective cells")
    summary.add_row("", f"p99_ok {calibration.p99_ok:.3f}, p5_ng {calibration.p5_ng:.3f}")
    summary.add_row("threshold", f"{calibration.threshold:.3f}")
    if calibration.warning:
        summary.add_row("[yellow]warning[/]", f"[yellow]{escape(calibration.warning)}[/]")
    summary.add_row("test", f"{len(good)} good and {len(defective)} defective cells, none of them used above")
    for name, scores in (("scores, good", good), ("scores, defective", defective)):
        summary.add_row(name, f"{min(scores):.3f} … {max(scores):.3f}, median {np.median(scores):.3f}")
    summary.add_row("image AUROC", f"{auroc:.3f}")
    summary.add_row("false reject rate", f"{false_rejects / len(good):.1%}")
    summary.add_row("escape rate", f"{escapes / len(defective):.1%}")
    summary.add_row("one /infer", f"median {median_ms:.0f} ms, p95 {p95_ms:.0f} ms, HTTP included")
    console.print(summary)

    matrix = Table(box=box.SIMPLE_HEAD, title="Confusion matrix at the threshold", title_justify="left")
    matrix.add_column()
    matrix.add_column("decided ok", justify="right")
    matrix.add_column("decided ng", justify="right")
    matrix.add_row("[bold]good[/]", str(len(good) - false_rejects), f"{false_rejects} false rejects")
    matrix.add_row("[bold]defective[/]", f"{escapes} escapes", str(len(defective) - escapes))
    console.print(matrix)


if __name__ == "__main__":
    main()
