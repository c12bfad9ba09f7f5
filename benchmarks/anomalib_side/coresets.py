"""Our coreset selection beside the plain loop and anomalib's ``KCenterGreedy``, on the same real embeddings."""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.patchcore import coreset_size, l2_normalize
from backend.service.inspection import InspectionService
from benchmarks.anomalib_side.engines import OURS, THEIRS, say, share_cores
from benchmarks.anomalib_side.worker import Worker
from benchmarks.coreset import covering_radius
from harness.images import solar_cells
from harness.measuring import print_table

_SEEDS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="interpreter of anomalib's environment")
    parser.add_argument(
        "--folder",
        type=lambda text: Path(text).resolve(),
        help="images in MVTec layout; default: solar cells of elpv-dataset",
    )
    parser.add_argument("--images", type=int, default=34, help="images whose embeddings are used (%(default)s)")
    options = parser.parse_args(arguments)
    share_cores()
    configure_logging("warning", "console")
    settings = load_settings()
    if options.folder is None:
        images = solar_cells(options.images)
    else:
        paths = sorted(options.folder.glob("train/good/*"))[: options.images]
        images = [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]
    if not images:
        parser.error(f"{options.folder} holds no images in train/good")
    say(f"embeddings of {len(images)} images")
    features = InspectionService.open(settings).features
    embeddings = l2_normalize(np.concatenate([features.extract(image)[0] for image in images]))
    wanted = coreset_size(len(embeddings), settings.coreset_rate)

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        np.save(scratch / "embeddings.npy", embeddings)
        with (
            Worker(sys.executable, OURS, scratch / "rounds.log") as rounds,
            Worker(sys.executable, OURS, scratch / "loop.log") as loop,
            Worker(options.python, THEIRS, scratch / "theirs.log") as theirs,
        ):
            workers = {"rounds": rounds, "loop": loop, "select": theirs}
            for worker in workers.values():
                worker.ask("load", embeddings=str(scratch / "embeddings.npy"))
            replies = {order: [] for order in workers}
            for seed in range(_SEEDS):
                for order, worker in workers.items():
                    say(f"selection of {wanted} out of {len(embeddings)}, {order}, run {seed + 1} of {_SEEDS}")
                    chance = {"seed": seed} if order == "select" else {}
                    replies[order].append(worker.ask(order, n_select=wanted, **chance))

    names = {
        "rounds": "ours",
        "loop": "plain loop, the same start",
        "select": f"anomalib, in {replies['select'][0]['dimensions']} projected dimensions",
    }
    medians = {order: statistics.median(reply["seconds"] for reply in runs) for order, runs in replies.items()}
    rows = []
    for order, runs in replies.items():
        radii = sorted({f"{covering_radius(embeddings, np.array(reply['picks'])):.4f}" for reply in runs})
        rows.append(
            (
                names[order],
                f"{medians[order]:.2f} ({medians[order] / medians['rounds']:.1f})",
                f"{max(reply['grown_mib'] for reply in runs):.0f}",
                ", ".join(radii),
            )
        )
    print_table(
        f"Coreset {len(embeddings)} → {wanted}, median of {_SEEDS} runs in turn; in brackets the ratio to ours",
        ("selection", "seconds", "memory above the embeddings, MiB", "covering radius in all dimensions"),
        rows,
    )


if __name__ == "__main__":
    main()
