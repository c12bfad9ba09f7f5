"""``evaluate`` on the command line."""

import argparse
import contextlib
import math
from pathlib import Path
from typing import get_args

from backend.calib import RuleName, ThresholdOptions
from backend.commands.arguments import Commands, add_command, add_detail, natural_number, natural_numbers, percentile
from backend.commands.console import print_line, say
from backend.commands.evaluate.dataset import Category
from backend.commands.out_folder import out_folder
from backend.common.config import Settings, load_settings
from backend.common.errors import InvalidRequest
from backend.common.profiles import PROFILES, ProfileName, score_percentile_of

_TEXT = """
DATASET is a folder in a known layout, or a folder of such folders:

  MVTec AD     train/good, test/good, test/TYPE for every type of defect, masks in ground_truth/TYPE/NAME_mask.png
  MVTec AD 2   train/good, test_public/good, test_public/bad, test_public/ground_truth/bad
  MVTec LOCO   as MVTec AD, with several masks of an image in ground_truth/TYPE/NAME/
  BTAD         train/ok, test/ok, test/ko, ground_truth/ko
  VisA         Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly; or as MVTec AD
  two folders  good, and bad or one for every type of defect beside it; masks in ground_truth/TYPE/ or masks/

For any other layout, name the folders with --good, --bad and --masks. The layout that was found and the folders that
were read are printed first. Without a folder of training images, the first 80 % of the good images in natural order are
the training images.

A mask marks the pixels above 0; in a JPEG or WebP those from 128 on. If the alpha channel varies and all visible pixels
have one colour, the alpha channel is the mask.

The command fits on the training images and scores the test images as the service would. Only the training images decide
the threshold. It prints how well the scores separate defective parts from good ones, and the decisions: rejected good
parts and accepted defective parts, for both rules, with good images only and with 3 and 10 NG images of the test. It
writes results.json and report.html, which opens offline and has a movable threshold. MODELS_DIR stays unchanged."""
_EPILOG = """\
examples:
  %(prog)s hazelnut/
  %(prog)s hazelnut/ --profile recommended
  %(prog)s mvtec/ --shots 1,2,4,8,16 --seeds 3 --out results/
  %(prog)s --good lot7/ --bad scratched/ bent/ --masks drawn/
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "evaluate", run, "measure how good the service is on a data set", _TEXT, _EPILOG)
    parser.add_argument(
        "dataset", metavar="DATASET", nargs="?", help="folder in a known layout, or a folder of such folders"
    )
    parser.add_argument("--good", metavar="PATH", nargs="+", help="instead of DATASET: good parts")
    parser.add_argument(
        "--bad",
        metavar="PATH",
        nargs="+",
        help="with --good: defective parts; the name of a folder is the type of its defects",
    )
    parser.add_argument(
        "--train",
        metavar="PATH",
        nargs="+",
        default=[],
        help="with --good: good parts to fit on; default 80 %% of --good",
    )
    parser.add_argument(
        "--masks", metavar="FOLDER", help="with --good: masks, as FOLDER/TYPE/NAME_mask.png or FOLDER/NAME_mask.png"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="folder of the results; default evaluation-NAME, with the name of the data set",
    )
    parser.add_argument(
        "--profile", choices=PROFILES, help="profile of the fit and of the scores, as in fit --profile; default PROFILE"
    )
    add_detail(parser)
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument(
        "--rule",
        choices=get_args(RuleName),
        help="rule for the threshold of the regions, of the line on the page and of the pictures shown first; "
        "default: the rule with the name of the profile",
    )
    threshold.add_argument("--threshold", metavar="T", type=_score, help="use this threshold instead")
    parser.add_argument(
        "--percentile",
        metavar="P",
        type=percentile,
        help="percentile of the map that is the score; default SCORE_PERCENTILE",
    )
    parser.add_argument(
        "--shots",
        metavar="N,N,...",
        type=natural_numbers,
        default=[],
        help="also evaluate with so few training images, drawn at random",
    )
    parser.add_argument(
        "--seeds", metavar="N", type=natural_number, default=1, help="random draws for each of --shots; default 1"
    )


def _score(text: str) -> float:
    """Type of an argument: a score."""
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Evaluate, print the table, and write the page and the results.

    Raises:
        InvalidRequest: the data set cannot be used, or the folder of ``--out`` cannot be made.
    """
    # What they need takes a second to import.
    from backend.commands.evaluate import evaluation, page, results_json, table

    dataset = _dataset(options)
    if options.percentile is not None:
        settings = load_settings(score_percentile=options.percentile)
    profile = options.profile or settings.profile
    detail = options.detail or settings.detail
    if (
        options.percentile is not None
        and (own := score_percentile_of(profile, options.percentile, 1 if detail == "auto" else detail))
        != options.percentile
    ):
        say(f"warning: --percentile {options.percentile:g} has no effect: the score of --profile {profile} is p{own:g}")
    out = options.out or Path(f"evaluation-{Path(dataset).resolve().name}")
    try:
        with out_folder(out):
            result = evaluation.evaluate(
                settings,
                dataset,
                _categories(options),
                shots=options.shots,
                n_seeds=options.seeds,
                profile=profile,
                detail=detail,
                options=_threshold_options(options, profile),
            )
            page.write_results(result, out)
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        raise
    print_line(table.as_text(result))
    try:
        page.write_page(result, out)
    except BaseException:  # minutes later, images may be gone
        say(f"wrote {out / results_json.RESULTS}, but not {page.PAGE}")
        raise
    say(f"wrote {out / page.PAGE} and {out / results_json.RESULTS}")


def _threshold_options(options: argparse.Namespace, profile: ProfileName) -> ThresholdOptions:
    if options.threshold is not None:
        return ThresholdOptions(threshold=options.threshold)
    return ThresholdOptions(rule=options.rule or profile)


def _dataset(options: argparse.Namespace) -> str:
    """The folder that names the data set.

    Raises:
        InvalidRequest: it is not clear what to evaluate.
    """
    if options.dataset is not None:
        if options.good or options.bad or options.train or options.masks:
            raise InvalidRequest("give either DATASET, or --good, --bad, --train and --masks")
        return str(options.dataset)
    if not (options.good and options.bad):
        raise InvalidRequest("give DATASET, or both --good and --bad")
    good = Path(options.good[0])
    return str((good if good.is_dir() else good.parent).resolve().parent)


def _categories(options: argparse.Namespace) -> list[Category]:
    from backend.commands.evaluate.layouts import category_of, find_categories

    if options.dataset is not None:
        return find_categories(options.dataset)
    return [category_of(options.good, options.bad, options.train, options.masks)]
