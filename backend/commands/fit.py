"""``fit``: images in files and folders → the memory bank of a ROI."""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from backend.api.schemas.inspection import FitFields
from backend.commands.arguments import (
    IMAGES,
    Commands,
    add_any_folder,
    add_command,
    add_detail,
    add_images,
    add_roi,
    add_shape,
    add_smallest_defect,
    fields_of,
    key_of,
)
from backend.commands.console import count, print_line, say, shown, some, step_bars
from backend.commands.folders import GOOD_PARTS, check_folders, say_found
from backend.commands.image_files import find_images, read_image
from backend.commands.scoring import max_bytes
from backend.common.config import Settings
from backend.common.errors import TooLarge
from backend.common.profiles import CONTRACT, PROFILES
from backend.common.program import PROGRAM
from backend.disk.layout import checkpoint_folder
from backend.roi_mask import requested_shape
from backend.service.doubts import about_percentile, joined
from backend.service.fit import fit as fit_images
from backend.service.inspection import InspectionService
from backend.service.results import FitResult
from backend.utils import NamedImage

_TEXT = f"""
{IMAGES}
The fit stops if the name of a folder below PATH suggests other images than good parts (test, bad, ng, defects,
ground_truth, ...), if a folder is beside one of good parts, or if masks are beside their images. PATH itself may have
any name, except that of a folder of masks.
The fit replaces the memory bank of the ROI and prints what was built, with a summary of the scores of its images by the
memory bank of the others. If one image is broken, the whole fit fails and the old model stays. If the fit is stopped or
killed, the same command resumes it."""
_EPILOG = """\
example:
  %(prog)s Master1 Pattern good/ --mm-per-px 0.2
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "fit", run, "learn what good parts look like", _TEXT, _EPILOG)
    add_roi(parser)
    add_images(parser)
    add_any_folder(parser)
    add_shape(parser)
    parser.add_argument("--keep-all", action="store_true", help="keep every embedding instead of a coreset")
    parser.add_argument(
        "--append", action="store_true", help="keep the memory bank and add what it lacks from these images"
    )
    parser.add_argument(
        "--group-copies", action="store_true", help="count images that look nearly the same as one image"
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        help="recommended ranks defective parts better, with four memory banks; default PROFILE, or with --append "
        "the profile of the model",
    )
    add_detail(parser, default="DETAIL, or with --append the detail of the model")
    add_smallest_defect(parser)
    parser.add_argument("--thumbnails", action="store_true", help="keep a small picture of every image, for /explain")
    parser.add_argument("--all-scores", action="store_true", help="also print the score of every image")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Fit, and print what was built."""
    fields = fields_of(
        FitFields,
        options,
        memory_fit=options.keep_all,
        append=options.append,
        group_copies=options.group_copies,
        profile=options.profile,
        detail=options.detail,
        smallest_defect_mm=options.smallest_defect_mm,
        thumbnails=options.thumbnails,
        shape=options.shape,
    )
    fitted = fit(settings, fields, options.images, any_folder=options.any_folder)
    print_fitted(fitted, "appended" if options.append else "fitted on", all_scores=options.all_scores)


def print_fitted(fitted: dict[str, Any], did: str, *, all_scores: bool) -> None:
    """Print what was built, and what to do next.

    Args:
        fitted: as `reply_of` returned it.
        did: what was done with the images.
        all_scores: also print the score of every image.
    """
    _say_summary(fitted, did)
    state = fitted.pop("calibration")
    for name in ("ok_scores", "ok_scores_sample"):
        if scores := fitted.pop(name, None):
            fitted[f"{name}_summary"] = _summary(scores)
            if all_scores:
                fitted[name] = scores
    print_line(json.dumps(fitted))
    if state != "applied":
        before = ": the threshold was chosen for the model before" if state == "stale" else ""
        say(f"next: `{PROGRAM} calibrate`{before}")


def _summary(scores: Mapping[str, float]) -> dict[str, float]:
    values = list(scores.values())
    return {"n": len(values), "min": min(values), "median": round(statistics.median(values), 6), "max": max(values)}


def _say_summary(fitted: Mapping[str, Any], did: str) -> None:
    """Print what was built, and name the first doubtful images."""
    bank = f"{fitted['coreset_size']} of {fitted['n_embeddings']} patch embeddings"
    say(f"{did} {count(fitted['n_images'], 'image')}: the memory bank keeps {bank}")
    if "detail_reason" in fitted:
        say(fitted["detail_reason"])
    if scores := fitted.get("ok_scores") or fitted.get("ok_scores_sample"):
        summary = _summary(scores)
        they = "they score" if "ok_scores" in fitted else f"{summary['n']} of them, drawn at random, score"
        say(
            f"by the memory bank of the others {they} {summary['min']:.3f} to {summary['max']:.3f}, "
            f"median {summary['median']:.3f}"
        )
    if names := fitted["suspicious"]:
        scored = [f"{name}{f' ({scores[name]:.3f})' if scores else ''}" for name in names]
        say(f"warning: perhaps defective, as they score far above the others: {some(scored)}")
    if "warning" in fitted:
        say(f"warning: {fitted['warning']}")


def fit(settings: Settings, fields: FitFields, paths: Sequence[str], *, any_folder: bool = False) -> dict[str, Any]:
    """Learn what good parts look like from images in files and folders; an interrupted fit keeps its embeddings.

    Args:
        settings: the configuration.
        fields: as of ``/fit_ok``.
        paths: files and folders.
        any_folder: take all images below the folders, whatever their names suggest.

    Returns:
        The reply of ``/fit_ok``, the number of images, and the state of the calibration.

    Raises:
        InvalidRequest, TooLarge: see `find_images`, `check_folders`; more images than ``MAX_FILES``.
        BackendError: as `fit` of the service.
    """
    images, ignored = find_images(paths)
    if not any_folder:
        check_folders(images, paths, GOOD_PARTS)
    if len(images) > settings.max_files:
        raise TooLarge(f"{count(len(images), 'image')}, but one fit accepts at most {settings.max_files} (MAX_FILES)")
    key, (shape, doubt) = key_of(fields), requested_shape(fields.shape)
    checkpoint = checkpoint_folder(settings.models_dir, key)
    say_found(images, ignored)
    service = InspectionService.open(settings)
    try:
        with step_bars() as on_progress:
            result = fit_images(
                service,
                key,
                [NamedImage(image, partial(read_image, image, max_bytes(settings))) for image in images.values()],
                mm_per_px=fields.mm_per_px,
                keep_all=fields.memory_fit,
                append=fields.append,
                group_copies=fields.group_copies,
                shapes=[shape] * len(images),
                thumbnails=fields.thumbnails,
                profile=fields.profile,
                detail=fields.detail,
                smallest_defect_mm=fields.smallest_defect_mm,
                on_progress=on_progress,
                checkpoint=checkpoint,
            )
    except KeyboardInterrupt:
        say(f"stopped; run the same command again to resume (until then {checkpoint} keeps what is done)")
        raise
    return reply_of(service, list(images.values()), result, doubt)


def reply_of(service: InspectionService, images: Sequence[str], result: FitResult, doubt: str | None) -> dict[str, Any]:
    """The reply of ``/fit_ok``, the number of images, and the state of the calibration.

    Args:
        service: who fitted.
        images: names of the images, in order.
        result: of the fit.
        doubt: what is doubtful about the mask.
    """
    names = [shown(image) for image in images]
    sample = {names[image.index]: image.score for image in result.ok_scores_sample or ()}
    about_score = about_percentile(service.score_percentile_of(result.profile, result.detail), "SCORE_PERCENTILE")
    warning = joined([result.warning, result.unscored, about_score, doubt])
    two_rounds: dict[str, Any] = {}
    if result.covering_radii is not None and result.radius_bounds is not None:
        two_rounds["selection_rounds"] = 2
        two_rounds["covering_radii"] = [round(radius, 6) for radius in result.covering_radii]
        two_rounds["covering_radius_bounds"] = [round(radius, 6) for radius in result.radius_bounds]
    return {
        "n_images": len(images),
        "n_embeddings": result.n_embeddings,
        "coreset_size": result.coreset_size,
        **({"profile": result.profile} if result.profile != CONTRACT else {}),
        **({"detail": result.detail} if result.detail != 1 else {}),
        **({"detail_reason": result.detail_reason} if result.detail_reason else {}),
        "token_shape": list(result.token_hw),
        **two_rounds,
        **({} if result.ok_scores is None else {"ok_scores": dict(zip(names, result.ok_scores, strict=True))}),
        **({"ok_scores_sample": sample} if sample else {}),
        "suspicious": [names[image.index] for image in result.suspicious],
        **({"warning": warning} if warning else {}),
        "calibration": result.calibration_state,
    }
