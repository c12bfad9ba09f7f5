"""``calibrate``: images in files and folders → the threshold of a ROI."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from backend.api.schemas.calibration import CalibrateFields
from backend.bank.copies import Look
from backend.bit_depth import BitDepth
from backend.calib import DecideBy
from backend.commands.arguments import (
    IMAGES,
    RECORDS,
    Commands,
    add_any_folder,
    add_command,
    add_restart,
    add_roi,
    add_shape,
    fields_of,
    key_of,
)
from backend.commands.console import count, print_line, say
from backend.commands.excel import Excel, add_excel, excel_of
from backend.commands.fit_scores import check_not_both, count_known, count_the_fit
from backend.commands.folders import DEFECTIVE_PARTS, GOOD_PARTS, check_folders, say_found
from backend.commands.image_files import FoundImages, Ignored, find_images, read_image
from backend.commands.records import Row
from backend.commands.scoring import Scorer, max_bytes, open_records, say_warnings, score_all
from backend.common.config import Settings
from backend.common.errors import IncompatibleMemory, InvalidImage, InvalidRequest
from backend.disk.datasets import Label
from backend.disk.fitted import FittedRoi
from backend.roi_mask import Shape, requested_shape
from backend.service.calibration_options import CalibrationOptions
from backend.service.image_calibration import Deciding, ImageCalibration, ImageScores
from backend.service.inspection import InspectionService
from backend.service.region_scores import FitRegions
from backend.service.scoring import Scoring
from backend.utils import NamedImage

_TEXT = f"""
{IMAGES}
The command stops if the name of a folder below --ok suggests other images than good parts, if that of a folder below
--ng suggests good parts, or if it finds masks. The folders that you name may have any name, except that of a folder of
masks.
The command scores the images, stores the threshold (the 99th percentile of the OK scores, or the midpoint between it
and the 5th percentile of the NG scores) and prints the calibration with its promise. Images that were in the fit count
with their scores by the memory bank of the others, if these are known. Without --ok, the images of the fit are the good
ones. If one image cannot be scored, nothing is calibrated.
{RECORDS}"""
_EPILOG = """\
examples:
  %(prog)s Master1 Pattern --mm-per-px 0.2
  %(prog)s Master1 Pattern --ok held-out/ --mm-per-px 0.2
  %(prog)s Master1 Pattern --ok held-out/ --ng bad/ --mm-per-px 0.2 --scores scores.csv
  %(prog)s Master1 Pattern --ok held-out/ --mm-per-px 0.2 --target-false-reject-rate 0.02
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "calibrate", run, "choose the threshold of a ROI", _TEXT, _EPILOG)
    add_roi(parser)
    parser.add_argument(
        "--ok",
        metavar="PATH",
        nargs="+",
        default=[],
        help="good parts that were not in the fit; default: those of the fit, scored by the memory bank of the others",
    )
    parser.add_argument("--ng", metavar="PATH", nargs="+", default=[], help="defective parts, if there are any")
    add_any_folder(parser)
    add_shape(parser)
    parser.add_argument("--area-mm2-thr", metavar="MM2", help="smallest region in mm²; default AREA_MM2_THR")
    parser.add_argument(
        "--score-percentile", metavar="P", help="percentile of the map that is the score; default SCORE_PERCENTILE"
    )
    parser.add_argument(
        "--choose-percentile",
        action="store_true",
        help="choose the percentile that separates --ok from --ng best: 99 unless another is significantly better",
    )
    parser.add_argument(
        "--target-false-reject-rate",
        metavar="RATE",
        help="choose the threshold so that the next good part is rejected with at most this probability",
    )
    parser.add_argument(
        "--rule",
        choices=("contract", "recommended"),
        default="contract",
        help="recommended: the limit that about 2.5 %% of good parts exceed, estimated from the OK images that do "
        "not stand out; NG images can lower it",
    )
    parser.add_argument("--keep", metavar="PATH", nargs="+", default=[], help="OK images that stand out but are good")
    parser.add_argument(
        "--not-good", metavar="PATH", nargs="+", default=[], help="images of --ok that do not show good parts"
    )
    parser.add_argument("--threshold", metavar="T", help="use this threshold, and print what it promises")
    parser.add_argument(
        "--decide-by",
        choices=get_args(DecideBy),
        default="score",
        help="what makes a part NG: its score; a region of at least --area-mm2-thr at or above a pixel threshold, "
        "which is chosen like the threshold of the score; or either",
    )
    parser.add_argument(
        "--pixel-threshold", metavar="T", help="use this pixel threshold; needs --decide-by region or either"
    )
    parser.add_argument(
        "--escape-cost",
        metavar="C",
        help="choose the threshold with the lowest cost per part: the cost of an escaped defective part, in rejected "
        "good parts; needs --defect-rate and at least 10 images in --ng",
    )
    parser.add_argument("--defect-rate", metavar="RATE", help="share of defective parts in production")
    parser.add_argument(
        "--scores", metavar="FILE", type=Path, help="keep the scores in FILE (.jsonl or .csv), to resume after a stop"
    )
    add_restart(parser)
    add_excel(parser)


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Calibrate, and print the calibration."""
    fields = fields_of(
        CalibrateFields,
        options,
        area_mm2_thr=options.area_mm2_thr,
        score_percentile=options.score_percentile,
        target_false_reject_rate=options.target_false_reject_rate,
        rule=options.rule,
        threshold=options.threshold,
        decide_by=options.decide_by,
        pixel_threshold=options.pixel_threshold,
        escape_cost=options.escape_cost,
        defect_rate=options.defect_rate,
    )
    shape, doubt = requested_shape(options.shape)
    calibration = calibrate(
        settings,
        fields,
        shape,
        options.ok,
        options.ng,
        scores=options.scores,
        restart=options.restart,
        choose=options.choose_percentile,
        any_folder=options.any_folder,
        excel=excel_of(options, options.scores, "--scores"),
        keep=options.keep,
        not_good=options.not_good,
    )
    if doubt:
        say(f"warning: {doubt}")
    if "warning" in calibration:
        say(f"warning: {calibration['warning']}")
    print_line(json.dumps(calibration))


def calibrate(
    settings: Settings,
    fields: CalibrateFields,
    shape: Shape | None,
    ok_paths: Sequence[str],
    ng_paths: Sequence[str],
    *,
    scores: Path | None,
    restart: bool,
    choose: bool = False,
    any_folder: bool = False,
    excel: Excel | None = None,
    keep: Sequence[str] = (),
    not_good: Sequence[str] = (),
) -> dict[str, Any]:
    """Score good and defective images and choose the ROI's threshold.

    Args:
        settings: the configuration.
        fields: ids and what the calibration names.
        shape: mask in pixels of the images, the same as for later inferences.
        ok_paths, ng_paths: files and folders; without `ok_paths`, the images of the fit count.
        scores: file that keeps the scores, to resume after a stop.
        restart: delete its records.
        choose: choose the percentile by `choose_percentile`; such scores are not kept.
        any_folder: take all images below the folders, whatever their names suggest.
        excel: whose spreadsheet `scores` is for; None writes plain CSV.
        keep, not_good: OK images, see `ThresholdOptions`; as they were given or found.

    Returns:
        The stored calibration, without missing members.

    Raises:
        InvalidRequest: see `find_images`, `check_folders`, `count_the_fit`, `RecordFile`; an image is given as OK and
            as NG; a choice without NG images, or with an option that it excludes.
        InvalidImage: an image could not be scored; nothing was calibrated.
        BackendError: as `infer` and `calibrate` of the service.
    """
    (ok, ok_ignored), (ng, ng_ignored) = _find(ok_paths, ng_paths, any_folder=any_folder)
    if choose and not ng:
        raise InvalidRequest("--choose-percentile needs images of defective parts: give them with --ng")
    if choose and (scores is not None or fields.score_percentile is not None):
        raise InvalidRequest("--choose-percentile cannot be given with --scores or --score-percentile")
    if scores is not None and fields.decide_by != "score":
        raise InvalidRequest(f"--decide-by {fields.decide_by} cannot be given with --scores, which keeps no regions")
    options = CalibrationOptions(
        fields.score_percentile,
        fields.area_mm2_thr,
        fields.threshold_options(),
        choose,
        tuple(keep),
        tuple(not_good),
        fields.decide_by,
        fields.pixel_threshold,
    )
    options.check(set(ok.values()) if ok else None, len(ng))
    with open_records(scores, restart=restart, excel=excel) as records:
        if ok:
            say_found(ok, ok_ignored, "--ok")
        if ng:
            say_found(ng, ng_ignored, "--ng")
        service = InspectionService.open(settings)
        key, scoring = key_of(fields), Scoring(fields.mm_per_px, shape)
        Scorer(service, key, scoring).conditions()  # says what to do where the ROI was never fitted
        service.store.check_savable(key)
        fitted = service.fitted(key, with_calibration=False)
        percentiles = options.percentiles(fitted.profile, settings.score_percentile, fitted.detail)
        regions = FitRegions.of(service, fitted, options, fields.mm_per_px)
        area = None if regions is None else regions.area_mm2
        scoring = replace(scoring, percentile=percentiles[0], percentiles=percentiles[1:], region_mm2=area)
        scorer = Scorer(service, key, scoring, with_identity=True)
        found = ImageScores(fitted, settings.blur_sigma, percentiles, service.store.miniatures(fitted), regions)
        if not ok:
            count_the_fit(found, shape)
        classes: tuple[tuple[Label, FoundImages], ...] = (("ok", ok), ("ng", ng))
        unknown = {
            label: count_known(found, label, list(images.values()), shape, max_bytes(settings))
            for label, images in classes
        }
        rows, memory_id = score_all(scorer, [*unknown["ok"], *unknown["ng"]], records, "--scores")
    say_warnings(scorer)
    if failed := [row for row in rows.values() if row["error"]]:
        raise InvalidImage(
            f"{len(failed)} of {count(len(ok) + len(ng), 'image')} could not be scored, so nothing was calibrated: "
            "repair them or leave them out"
        )
    if fitted.memory_id != memory_id:
        raise IncompatibleMemory(f"{scorer.key} was fitted anew during this run: begin again")
    others: dict[tuple[Label, str], Look] = {}
    for label, images in unknown.items():
        for image in images:
            look = _count(service, fitted, found, label, image, rows[image], shape)
            if look is not None:
                others[label, image] = look
    for other, original in zip(others, found.originals_of(list(others.values())), strict=True):
        if original is not None:
            found.add_near_copy(*other, original)
    return _told(found.calibrate(service, scorer.key, fields.mm_per_px, options))


def _told(done: ImageCalibration) -> dict[str, Any]:
    """A calibration as the command prints it, without missing members."""
    return {
        **done.calibration.as_dict(),
        **({"unusual": _images_told(done.unusual)} if done.unusual else {}),
        **({"lowered_by": _images_told(done.lowered_by)} if done.lowered_by else {}),
        **({"pixel_unusual": _images_told(done.pixel_unusual)} if done.pixel_unusual else {}),
        **({"warning": done.warning} if done.warning else {}),
        **({"percentile_choice": asdict(done.choice)} if done.choice else {}),
    }


def _images_told(images: Sequence[Deciding]) -> list[dict[str, Any]]:
    return [{name: value for name, value in asdict(image).items() if value is not None} for image in images]


def _find(
    ok_paths: Sequence[str], ng_paths: Sequence[str], *, any_folder: bool
) -> tuple[tuple[FoundImages, Ignored], tuple[FoundImages, Ignored]]:
    """The good and the defective images, each with the other contents of their folders.

    Raises:
        InvalidRequest: see `calibrate`.
    """
    ok, ng = find_images(ok_paths), find_images(ng_paths)
    if not any_folder:
        check_folders(ok[0], ok_paths, GOOD_PARTS)
        check_folders(ng[0], ng_paths, DEFECTIVE_PARTS)
    if both := ok[0].keys() & ng[0].keys():
        raise InvalidRequest(f"{ok[0][min(both)]} is given as OK and as NG")
    return ok, ng


def _count(
    service: InspectionService,
    fitted: FittedRoi,
    found: ImageScores,
    label: Label,
    image: str,
    row: Row,
    shape: Shape | None,
) -> Look | None:
    """Count a scored image; an image of the fit counts with its score by the memory bank of the others.

    Returns:
        Its look, for the comparison with the images of the fit; None if it is one of them, or if these are unknown.
    """
    scores = tuple(float(score) for score in (row["score"], *row.get("scores", ())))
    own = found.own.of_file(row["sha256"])
    if own is None:
        pixels, look = row.get("pixels_sha256"), None
        # Records of older versions do not have it.
        if pixels is None or (found.knows_looks and found.own.of_pixels(pixels) is None):
            look = _look(service, fitted, image, row["sha256"])
            pixels = look.pixels_sha256
        own = found.own.of_pixels(pixels)
        if own is None:
            found.add(label, pixels, image, scores)
            return look if found.knows_looks else None
    if found.sample.stands_for(own, shape):
        found.sample.leave_out(label, own)
        return None
    check_not_both(found, label, image, own)
    found.add(label, own.identity, image, found.by_the_others(own, shape) or scores)
    return None


def _look(service: InspectionService, fitted: FittedRoi, path: str, sha256: str) -> Look:
    """The look of an image that was scored by a model.

    Raises:
        InvalidRequest: its file has changed since then.
    """
    content = read_image(path, max_bytes(service.settings))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InvalidRequest(f"{path} has changed during this run: begin again")
    image = NamedImage(path, lambda: content)
    with service.pixels_of(image):
        pixels, _ = service.decode(image, BitDepth.of(fitted.metadata))
        return Look.of(pixels)
