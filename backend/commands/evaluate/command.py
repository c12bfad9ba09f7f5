"""``evaluate`` on the command line."""

import argparse
import contextlib
from pathlib import Path

from backend.commands.arguments import Commands, add_command, natural_number, natural_numbers, percentile
from backend.commands.console import print_line, say
from backend.commands.evaluate.dataset import Category
from backend.common.config import Settings, load_settings
from backend.common.errors import InvalidRequest

_TEXT = """
DATASET is a folder in a layout that is known, or holds several such folders:

  MVTec AD     train/good, test/good, test/TYPE for every type of defect, masks in ground_truth/TYPE/NAME_mask.png
  MVTec AD 2   train/good, test_public/good, test_public/bad, test_public/ground_truth/bad
  MVTec LOCO   as MVTec AD, with several masks of an image in ground_truth/TYPE/NAME/
  BTAD         train/ok, test/ok, test/ko, ground_truth/ko
  VisA         Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly; or as MVTec AD
  two folders  good, and bad or one for every type of defect beside it; masks in ground_truth/TYPE/ or masks/

Of any other layout, name the folders with --good, --bad and --masks. Which layout was found and what was read is
printed first. Where there is no folder of training images, the first 80 % of the good ones are, in natural order.

A mask marks where its pixels are above 0; a JPEG or WebP from 128 on. Where alpha varies and all that is drawn has one
colour, alpha is the mask.

Fits on the training images and scores the test images as the service would. The threshold comes from the training
images alone. Prints a table, and writes report.html, which opens offline, and results.json. MODELS_DIR is not
touched."""
_EPILOG = """\
examples:
  %(prog)s hazelnut/
  %(prog)s mvtec/ --shots 1,2,4,8,16 --seeds 3 --out results/
  %(prog)s --good lot7/ --bad scratched/ bent/ --masks drawn/
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "evaluate", run, "measure how good the service is on a data set", _TEXT, _EPILOG)
    parser.add_argument(
        "dataset", metavar="DATASET", nargs="?", help="folder in a known layout, or folder of such folders"
    )
    parser.add_argument("--good", metavar="PATH", nargs="+", help="instead of DATASET: good parts")
    parser.add_argument(
        "--bad",
        metavar="PATH",
        nargs="+",
        help="with --good: defective parts; a folder's name is the type of its defects",
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
        "--out", metavar="FOLDER", type=Path, help="where the results go; default evaluation-NAME, of the data set"
    )
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
        help="also with so few training images, drawn at random",
    )
    parser.add_argument(
        "--seeds", metavar="N", type=natural_number, default=1, help="draws for each of --shots; default 1"
    )


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
    out = options.out or Path(f"evaluation-{Path(dataset).resolve().name}")
    is_new = not out.exists()
    try:  # before minutes are spent
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidRequest(f"--out {out}: the folder cannot be made ({exc.strerror})") from exc
    try:
        result = evaluation.evaluate(
            settings, dataset, _categories(options), shots=options.shots, n_seeds=options.seeds
        )
        page.write_results(result, out)
    except BaseException as exc:
        if is_new:
            with contextlib.suppress(OSError):  # a file was put there meanwhile
                out.rmdir()
        if isinstance(exc, KeyboardInterrupt):
            say("stopped; nothing was written")
        raise
    print_line(table.as_text(result))
    try:
        page.write_page(result, out)
    except BaseException:  # minutes later, images may be gone
        say(f"wrote {out / results_json.RESULTS}, but not {page.PAGE}")
        raise
    say(f"wrote {out / page.PAGE} and {out / results_json.RESULTS}")


def _dataset(options: argparse.Namespace) -> str:
    """The folder that the data set is called after.

    Raises:
        InvalidRequest: it is not clear what to evaluate.
    """
    if options.dataset is not None:
        if options.good or options.bad or options.train or options.masks:
            raise InvalidRequest("give DATASET, or --good, --bad, --train and --masks, but not both")
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
