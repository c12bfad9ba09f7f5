"""``cluster infer``: an archive of images → parts of results, by the workers of a cluster."""

import argparse
import sys
from pathlib import Path

from backend.api.schemas.inspection import InferFields
from backend.commands.arguments import (
    Commands,
    add_command,
    add_roi,
    add_shape,
    fields_of,
    key_of,
    natural_number,
)
from backend.commands.console import count, progress_bar, say
from backend.commands.folder_names import is_left_out
from backend.common.config import Settings
from backend.roi_mask import requested_shape
from backend.service.inspection import InspectionService
from backend.service.scoring import Scoring

_PER_PART = 500
_TEXT = """
PLACE and OUT are folders that all machines see, or s3://BUCKET/PREFIX. The image formats are those of `infer`. OUT
gets a Parquet file for every part of the images, with a row for each image. The row of an image that cannot be judged
has its error. After a stop or a kill, the same command continues with the missing parts, and no image gets a second
row. The exit status is 1 if an image of this call failed; earlier parts have their own errors. With RAY_ADDRESS and
RAY_AUTH_TOKEN_PATH, the workers are those of that cluster; otherwise they are processes of this machine."""
_EPILOG = """\
examples:
  %(prog)s Master1 Pattern archive/ --mm-per-px 0.2 --out results/
  %(prog)s Master1 Pattern s3://factory/2026 --mm-per-px 0.2 --out s3://factory/results/2026
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "infer", run, "judge an archive of images", _TEXT, _EPILOG)
    add_roi(parser)
    parser.add_argument("place", metavar="PLACE", help="folder or URL of the images, with all that is below it")
    add_shape(parser)
    parser.add_argument("--out", metavar="OUT", required=True, help="folder or URL of the results")
    parser.add_argument("--heatmaps", action="store_true", help="add the heatmap of each image, as PNG, to its row")
    parser.add_argument(
        "--per-part", metavar="N", type=natural_number, default=_PER_PART, help=f"images of a part; default {_PER_PART}"
    )
    parser.add_argument(
        "--workers", metavar="N", type=natural_number, help="number of workers; default: as many as free cores allow"
    )
    parser.add_argument("--cores", metavar="N", type=natural_number, default=1, help="cores of each worker; default 1")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Judge the images of the missing parts; the exit status is 1 if an image of this call failed.

    Raises:
        InvalidRequest: PLACE has no images, or OUT has the results of another run.
        ConfigError: Ray is not installed, a URL cannot be used, or the cluster has too few cores.
        BackendError: as `infer`, if the error is not about one image.
    """
    # Imported only here: other commands do not need Ray.
    from backend.cluster.archives import Counts, Scorer, Task, conditions_of, images_of, judge_archive
    from backend.cluster.parts import ArchiveRun
    from backend.cluster.places import is_url, open_place
    from backend.cluster.workers import Workers, connected, settings_to_send

    fields = fields_of(InferFields, options, shape=options.shape)
    shape, doubt = requested_shape(fields.shape)
    key, scoring = key_of(fields), Scoring(fields.mm_per_px, shape)
    place, out = (text if is_url(text) else str(Path(text).resolve()) for text in (options.place, options.out))
    service = InspectionService.open(settings)
    names = images_of(open_place(place, insecure=settings.models_url_insecure), options.place, is_left_out)
    conditions = conditions_of(service, key, scoring)
    archive = ArchiveRun.of(place, names, options.per_part, options.heatmaps, conditions)
    missing = archive.missing(open_place(out, insecure=settings.models_url_insecure), options.out)
    n_left = sum(len(archive.images_of(part, names)) for part in missing)
    if doubt:
        say(f"warning: {doubt}")
    say(f"{count(len(names), 'image')}, {len(names) - n_left} of them judged before")
    counts = Counts()
    if missing:
        task = Task(settings_to_send(settings), key, scoring, out, archive)
        try:
            with connected() as ray, progress_bar("infer", len(names), len(names) - n_left) as bar:
                workers = Workers(ray, Scorer, options.workers, options.cores, task)
                counts = judge_archive(workers, archive, names, missing, bar.update)
        except KeyboardInterrupt:
            say("stopped; run the same command again to continue")
            raise
    named = {
        "ok": counts.ok,
        "ng": counts.ng,
        "not judged, without a calibration": counts.unjudged,
        "failed": counts.failed,
    }
    summary = ", ".join(f"{number} {what}" for what, number in named.items() if number)
    say(f"now {count(n_left, 'image')}{f': {summary}' if summary else ''}; the results are in {options.out}")
    if counts.failed:
        sys.exit(1)
