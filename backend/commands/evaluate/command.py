"""``evaluate`` on the command line."""

import argparse
import contextlib
from pathlib import Path

from backend.commands.arguments import Commands, add_command, natural_number, natural_numbers, percentile
from backend.commands.console import print_line, say
from backend.common.config import Settings, load_settings
from backend.common.errors import InvalidRequest

_TEXT = """
DATASET is a folder in MVTec layout, or holds several such folders: train/good, test/good, test/TYPE for every type of
defect, and masks in ground_truth/TYPE/NAME_mask.png if there are any.

Fits on train/good and scores the test images as the service would. The threshold comes from the training images alone.
Prints a table, and writes report.html, which opens offline, and results.json. MODELS_DIR is not touched."""
_EPILOG = """\
examples:
  python -m backend evaluate hazelnut/
  python -m backend evaluate mvtec/ --shots 1,2,4,8,16 --seeds 3 --out results/
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "evaluate", run, "measure how good the service is on a data set", _TEXT, _EPILOG)
    parser.add_argument("dataset", metavar="DATASET", help="folder in MVTec layout, or folder of such folders")
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
    """Evaluate, print the table, and write the page and the results."""
    # What they need takes a second to import.
    from backend.commands.evaluate import evaluation, page, results_json, table

    if options.percentile is not None:
        settings = load_settings(score_percentile=options.percentile)
    out = options.out or Path(f"evaluation-{Path(options.dataset).resolve().name}")
    is_new = not out.exists()
    try:  # before minutes are spent
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidRequest(f"--out {out}: the folder cannot be made ({exc.strerror})") from exc
    try:
        result = evaluation.evaluate(settings, options.dataset, shots=options.shots, n_seeds=options.seeds)
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
