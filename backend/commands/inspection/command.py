"""``inspect`` on the command line: one command from folders to verdicts."""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.api.schemas.calibration import CalibrateFields
from backend.commands.arguments import (
    IMAGES,
    Commands,
    add_any_folder,
    add_command,
    add_detail,
    add_shape,
    add_smallest_defect,
    fields_of,
    key_of,
)
from backend.commands.console import count, say, shown
from backend.commands.folder_names import kind_of
from backend.commands.folders import DEFECTIVE_PARTS, GOOD_PARTS, check_folders, say_found
from backend.commands.image_files import find_images
from backend.commands.inspection.images import Images
from backend.commands.out_folder import out_folder
from backend.common.config import Settings
from backend.common.errors import InvalidRequest, TooLarge
from backend.roi_mask import requested_shape

ROLE = "inspect"
# Names of folders that say nothing about what the images show; see also `kind_of`.
_OF_ANY_SET = frozenset(("train", "training", "images", "image", "data", "bilder", "imagenes", "imágenes"))

_TEXT = f"""
Five words are enough. Good images teach what a good part looks like. Bad images are optional and show defects. A part
is bad if its score reaches the threshold. Every image gets a verdict, OK or NG. The model is stored under a name.
{IMAGES}
The command fits with the recommended profile. It chooses the threshold by the recommended rule, from the scores of the
good images by the memory bank of the others. Then it judges every image, and writes results.csv and report.html, which
opens offline. The model stays in MODELS_DIR as role {ROLE}, ROI NAME, for the service and the other commands. If you
give the same command again, it resumes where it stopped, and repeats nothing."""
_EPILOG = """\
examples:
  %(prog)s good/
  %(prog)s good/ --ng bad/
  %(prog)s good/ parts/ --ng bad/ --mm-per-px 0.2
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "inspect", run, "go from folders of images to verdicts and one page", _TEXT, _EPILOG)
    parser.add_argument("good", metavar="GOOD", help="folder of good images; ten or more are best")
    parser.add_argument("parts", metavar="PARTS", nargs="*", help="images of parts to judge")
    parser.add_argument("--ng", metavar="PATH", nargs="+", default=[], help="bad images: they can lower the threshold")
    parser.add_argument(
        "--name", help="name of the model; default: that of the folder, or of the folder above if it is called good"
    )
    parser.add_argument(
        "--mm-per-px", metavar="MM", help="millimetres per pixel of the images; without it, areas are in pixels"
    )
    add_shape(parser)
    add_detail(parser)
    add_smallest_defect(parser)
    parser.add_argument("--keep", metavar="PATH", nargs="+", default=[], help="good images that stand out but are good")
    parser.add_argument("--threshold", metavar="T", help="use this threshold instead of the recommended one")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="folder of the page and the results; default inspection-NAME"
    )
    add_any_folder(parser)


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Inspect, and print the results and the next steps; the exit status is 1 if an image could not be judged.

    Raises:
        InvalidRequest: folders, a name or a threshold that cannot be used; `keep` together with a threshold.
        BackendError: as `fit_once` and `Inspector.inspect`.
    """
    # What they need takes a second to import.
    from backend.commands.inspection import inspection, report
    from backend.service.inspection import InspectionService

    if options.keep and options.threshold is not None:
        raise InvalidRequest(
            "--keep cannot be combined with --threshold: images do not change a threshold that you give"
        )
    name = options.name or shown(name_of(options.good))
    fields = fields_of(
        CalibrateFields,
        options,
        arguments={"roi_id": "--name"},
        role_id=ROLE,
        roi_id=name,
        mm_per_px=1 if options.mm_per_px is None else options.mm_per_px,
        threshold=options.threshold,
        rule="recommended" if options.threshold is None else "contract",
    )
    shape, doubt = requested_shape(options.shape)
    if doubt:
        say(f"warning: {doubt}")
    images = _find(options.good, options.ng, options.parts, any_folder=options.any_folder)
    if len(images.good) > settings.max_files:
        raise TooLarge(
            f"{count(len(images.good), 'good image')}, but one fit accepts at most {settings.max_files} (MAX_FILES)"
        )
    if len(images.good) < 2:
        raise InvalidRequest(f"{options.good} gives 1 good image, and {inspection.NEEDED}")
    out = options.out or Path(f"inspection-{name}")
    key = key_of(fields)
    with out_folder(out):
        service = InspectionService.open(settings)
        asked = inspection.Asked(fields.mm_per_px, shape, options.detail, options.smallest_defect_mm)
        fitted = inspection.fit_once(service, key, images.good, asked)
        inspector = inspection.Inspector(service, key, fitted, fields.mm_per_px, shape, out / "maps")
        found = inspector.inspect(images, fields.threshold_options(), options.keep)
    in_pixels = options.mm_per_px is None
    report.write_results(found, out, areas_in_pixels=in_pixels)
    report.write_page(service, found, out, areas_in_pixels=in_pixels)
    for doubt in found.doubts:
        say(f"warning: {doubt}")
    for line in report.summary(found):
        say(line)
    say(f"wrote {out / report.PAGE} and {out / report.RESULTS}")
    for line in report.next_steps(found):
        say(f"next: {line}")
    if any(image.error for image in found.judged):
        sys.exit(1)


def name_of(good: str) -> str:
    """The name of the model of a folder of good images.

    >>> name_of("lot 7/hazelnut"), name_of("hazelnut/good"), name_of("hazelnut/train/good/")
    ('hazelnut', 'hazelnut', 'hazelnut')
    """
    folder = Path(good).resolve()
    for part in (folder, *folder.parents):
        if part.name and part.name.casefold() not in _OF_ANY_SET and kind_of(part.name) is None:
            return part.name
    return folder.name or "images"


def _find(good: str, bad: Sequence[str], parts: Sequence[str], *, any_folder: bool) -> Images:
    """The images of each kind; prints their numbers.

    Raises:
        InvalidRequest: see `find_images`, `check_folders`; an image is given as two kinds.
    """
    given = {"good images": [good], "bad images": list(bad), "parts": list(parts)}
    found = {what: find_images(paths) for what, paths in given.items()}
    if not any_folder:
        check_folders(found["good images"][0], [good], GOOD_PARTS)
        check_folders(found["bad images"][0], bad, DEFECTIVE_PARTS)
    for one, other in itertools.combinations(found, 2):
        if both := found[one][0].keys() & found[other][0].keys():
            raise InvalidRequest(f"{found[one][0][min(both)]} is given among the {one} and among the {other}")
    for what, (images, ignored) in found.items():
        if images:
            say_found(images, ignored, what)
    return Images(*(images for images, _ in found.values()))
