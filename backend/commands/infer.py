"""``infer``: images in files and folders → a record and a heatmap for each."""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from backend.api.schemas.inspection import InferFields
from backend.commands.arguments import (
    IMAGES,
    RECORDS,
    Commands,
    add_command,
    add_images,
    add_restart,
    add_roi,
    add_shape,
    fields_of,
    key_of,
)
from backend.commands.console import count, print_line, say, shown, some
from backend.commands.excel import Excel, add_excel, excel_of
from backend.commands.folders import say_found
from backend.commands.heatmaps import Heatmaps, check_apart, check_own_folders
from backend.commands.image_files import find_images
from backend.commands.records import Record
from backend.commands.scoring import PictureName, Scorer, open_records, say_warnings, score_all
from backend.common.config import Settings
from backend.common.errors import InvalidRequest
from backend.common.program import PROGRAM
from backend.roi_mask import requested_shape
from backend.service.inspection import InspectionService
from backend.service.pictures import HeatmapName, Wanted, heatmap_text, no_scale, overlay_text, picture_threshold
from backend.service.scoring import Scoring

_TEXT = f"""
{IMAGES}
Each image gives one record: score, threshold, decision, regions, milliseconds, and an error if it failed. Without
--out, records are printed as JSON lines. The exit status is 1 if an image failed.
{RECORDS}"""
_EPILOG = """\
examples:
  %(prog)s Master1 Pattern parts/ --mm-per-px 0.2
  %(prog)s Master1 Pattern parts/ --mm-per-px 0.2 --out results.csv --heatmaps maps/
  %(prog)s Master1 Pattern parts/ --mm-per-px 0.2 --out results.csv --overlays pictures/
  %(prog)s Master1 Pattern parts/ --mm-per-px 0.2 --out results.csv --excel --decimal ,
  %(prog)s Master1 Pattern parts/7.png --mm-per-px 0.2 | jq '{path, score, decision}'
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "infer", run, "score images, and judge them with the calibration", _TEXT, _EPILOG)
    add_roi(parser)
    add_images(parser)
    add_shape(parser)
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="write the records to FILE (.jsonl or .csv), to resume after a stop"
    )
    parser.add_argument("--heatmaps", metavar="FOLDER", type=Path, help="write each heatmap to FOLDER/PATH.png")
    parser.add_argument(
        "--heatmap",
        choices=get_args(HeatmapName),
        help="scale of the heatmaps: contract stretches each image separately; threshold is the same for all images: "
        "128 and above is at or above the threshold",
    )
    parser.add_argument(
        "--overlays", metavar="FOLDER", type=Path, help="write each image with colour and regions to FOLDER/PATH.png"
    )
    add_restart(parser)
    add_excel(parser)


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Judge the images; the exit status is 1 if one failed."""
    if options.heatmap is not None and options.heatmaps is None:
        raise InvalidRequest(f"--heatmap {options.heatmap} is a scale of heatmaps: also give --heatmaps FOLDER")
    fields = fields_of(
        InferFields, options, shape=options.shape, heatmap=options.heatmap, overlay=options.overlays is not None
    )
    n_failed = infer(
        settings,
        fields,
        options.images,
        out=options.out,
        heatmaps=options.heatmaps,
        overlays=options.overlays,
        restart=options.restart,
        excel=excel_of(options, options.out, "--out"),
    )
    if n_failed:
        sys.exit(1)


def infer(
    settings: Settings,
    fields: InferFields,
    paths: Sequence[str],
    *,
    out: Path | None,
    heatmaps: Path | None,
    overlays: Path | None,
    restart: bool,
    excel: Excel | None = None,
) -> int:
    """Judge every image with the calibration of the ROI: a record for each, and the requested pictures.

    Args:
        settings: the configuration.
        fields: as of ``/infer``.
        paths: files and folders.
        out: file of the records, ``.jsonl`` or ``.csv``; None prints them as JSON lines.
        heatmaps, overlays: folders of the pictures; see `Heatmaps`.
        restart: forget what is in `out`.
        excel: whose spreadsheet `out` is for; None writes plain CSV.

    Returns:
        How many images failed, as their records say, and how many pictures of the others could not be written.

    Raises:
        InvalidRequest: see `find_images`, `requested_shape`, `RecordFile`; pictures among the images or in one
            another's place; pictures on the scale of a threshold that there is not.
        BackendError: as `infer` of the service, where it is not about one image.
    """
    shape, doubt = requested_shape(fields.shape)
    images, ignored = find_images(paths)
    pictures = _pictures(list(images.values()), heatmaps, overlays)
    for files in pictures.values():
        check_apart(files.paths.values(), images, paths, files.option)
    with open_records(out, restart=restart, excel=excel) as records:
        say_found(images, ignored)
        service = InspectionService.open(settings)
        wanted = Wanted(fields.wanted.heatmap if heatmaps else None, fields.overlay)
        scorer = Scorer(service, key_of(fields), Scoring(fields.mm_per_px, shape), wanted=wanted)
        _settle_scale(scorer, pictures)
        report = None if records else _print_record
        rows, _ = score_all(scorer, list(images.values()), records, "--out", report, pictures)
    n_before = sum(shown(image) in records.rows for image in rows) if records else 0
    n_failed = sum(bool(row["error"]) for row in rows.values())
    n_ok, n_ng = (sum(row["decision"] == decision for row in rows.values()) for decision in ("ok", "ng"))
    counts = {
        "ok": n_ok,
        "ng": n_ng,
        "not judged, because there is no calibration": len(rows) - n_ok - n_ng - n_failed,
        "failed": n_failed,
    }
    summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if doubt:
        say(f"warning: {doubt}")
    say_warnings(scorer)
    is_uncalibrated = n_ok + n_ng + n_failed < len(rows)
    say(f"{count(len(rows), 'image')}: {summary}" + (f" ({n_before} from an earlier run)" if n_before else ""))
    if is_uncalibrated:
        say(f"next: `{PROGRAM} calibrate` chooses the threshold")
    for files in pictures.values():
        if files.renamed:
            renamed = some([f"{image}: {path}" for image, path in files.renamed.items()])
            say(f"{count(len(files.renamed), files.what)} with a shorter or different name than the image: {renamed}")
        if files.failed:
            failed = some(list(files.failed))
            say(f"{count(len(files.failed), files.what)} of judged images could not be written: {failed}")
    return n_failed + sum(len(files.failed) for files in pictures.values())


def _pictures(images: Sequence[str], heatmaps: Path | None, overlays: Path | None) -> dict[PictureName, Heatmaps]:
    """The files of the pictures.

    Raises:
        InvalidRequest: see `check_own_folders`.
    """
    pictures: dict[PictureName, Heatmaps] = {}
    if heatmaps is not None:
        pictures["heatmap"] = Heatmaps(heatmaps, images)
    if overlays is not None:
        pictures["overlay"] = Heatmaps(overlays, images, "--overlays", "overlay")
    check_own_folders(list(pictures.values()))
    return pictures


def _settle_scale(scorer: Scorer, pictures: Mapping[PictureName, Heatmaps]) -> None:
    """Check that there is a threshold for the pictures, and set the description of their files.

    Raises:
        InvalidRequest: there is none, or it cannot be a unit; the ROI was never fitted.
    """
    options = ["--heatmap threshold"] * (scorer.wanted.heatmap == "threshold") + ["--overlays"] * scorer.wanted.overlay
    if not options:
        return
    calibration, state = scorer.calibration()
    reason = no_scale(calibration, state)
    if calibration is None or reason is not None:
        raise InvalidRequest(f"{' and '.join(options)}: {reason}")
    threshold = picture_threshold(calibration)
    if scorer.wanted.heatmap == "threshold":
        pictures["heatmap"].text = heatmap_text(threshold)
    if scorer.wanted.overlay:
        pictures["overlay"].text = overlay_text(threshold)


def _print_record(record: Record) -> None:
    # On one terminal with the bar, which makes room.
    with tqdm.external_write_mode() if sys.stdout.isatty() else contextlib.nullcontext():
        print_line(record.as_json().decode().rstrip())
