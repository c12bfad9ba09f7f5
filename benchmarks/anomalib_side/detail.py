"""Small defects on large ROIs beside anomalib's tiling: the scenes and the defects of `benchmarks.detail`.

``python -m benchmarks.anomalib_side.detail PYTHON FOLDER …``: anomalib's PatchCore on the weights of the service, with
its Tiler: tiles of the network's size on the canvas of the same detail, which overlap as ours do. Its default stride
overlaps nothing, and its default bank keeps 10 % of the embeddings; ours keeps fewer, and ``--ratio`` sets its. Its
score is its own: the distance of the farthest patch, weighted by the neighbours of its nearest one.

It looks at a whole scene for each planted defect: N² passes each.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2

from backend.common.config import load_settings
from backend.network.weights import find_weights
from backend.tiles import Tiling
from benchmarks.anomalib_side.engines import THEIRS, say, share_cores
from benchmarks.anomalib_side.worker import Worker
from benchmarks.detail import Found, print_tables
from benchmarks.detail_scenes import KINDS, SIZES, Bgr, Defect, Tray, defects_of, plant

_PATCH = 14
Ask = Callable[..., dict[str, Any]]


def tiled(detail: int, input_size: int) -> dict[str, int]:
    """How anomalib is to tile for a detail: the canvas, the tiles and their stride, in pixels.

    >>> tiled(3, 448)
    {'canvas': 1232, 'tile': 448, 'stride': 392}
    """
    side = input_size // _PATCH
    rows, _ = Tiling(detail, (side, side)).grid_hw
    stride = (rows - side) // (detail - 1) if detail > 1 else side
    return {"canvas": rows * _PATCH, "tile": input_size, "stride": stride * _PATCH}


def judge(
    tray: Tray, detail: int, ask: Ask, folder: Path, fit: int, scenes: int, planted: Sequence[Sequence[Defect]]
) -> Found:
    """Fit scenes, and score others without and with each of their defects alone.

    Args:
        tray: the parts.
        detail: tiles along each side.
        ask: gives an order to the worker that was opened.
        folder: for the files of the scenes.
        fit, scenes: how many.
        planted: the defects of each scene that has any.
    """

    def write(name: str, scene: Bgr) -> str:
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), scene)
        return str(path)

    fitted = [write(f"fit{number}", scene) for number, scene in enumerate(tray.fit_scenes(fit))]
    fit_reply = ask("fit", images=fitted)
    found = Found(tray.name, "anomalib", detail, "its own", True, fit_reply["bank"], fit_reply["bank_mb"])
    for number, scene in enumerate(tray.test_scenes(scenes)):
        say(f"{tray.name}, detail {detail}: scene {number + 1} of {scenes}")
        before = ask("infer", image=write("scene", scene))["score"]
        found.clean.append(before)
        for defect in planted[number] if number < len(planted) else ():
            after = ask("infer", image=write("planted", plant(scene, defect)))["score"]
            found.scores.setdefault((defect.kind, defect.size), []).append((before, after))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, help="interpreter of anomalib's environment")
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--details", metavar="N", nargs="+", type=int, default=[1, 3], help="default 1 and 3")
    parser.add_argument("--fit", metavar="N", type=int, default=6, help="scenes in a fit; default 6")
    parser.add_argument("--scenes", metavar="N", type=int, default=6, help="scenes without defects; default 6")
    parser.add_argument("--planted", metavar="N", type=int, default=4, help="how many of them with; default 4")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of defects; default all")
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES, help="of defects; default all")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of the embeddings in its bank; default 0.1")
    options = parser.parse_args(arguments)
    share_cores()
    settings = load_settings()
    given = {"weights": str(find_weights(settings).path), "ratio": options.ratio}
    planted = [
        [defect for defect in defects_of(number) if defect.kind in options.kinds and defect.size in options.sizes]
        for number in range(min(options.planted, options.scenes))
    ]
    measured = []
    for tray in map(Tray.open, options.folders):
        for detail in options.details:
            with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
                folder = Path(scratch)
                theirs = stack.enter_context(Worker(options.python, THEIRS, folder / "log"))
                theirs.ask("open_tiled_patchcore", scratch=scratch, **given, **tiled(detail, settings.input_size))
                measured.append(judge(tray, detail, theirs.ask, folder, options.fit, options.scenes, planted))
    print_tables(measured)


if __name__ == "__main__":
    main()
