"""``feedback``: say that rejected parts were good, or accepted ones bad."""

import argparse
from collections.abc import Sequence
from functools import partial

from backend.api.schemas.feedback import FeedbackFields
from backend.commands.arguments import IMAGES, Commands, add_command, add_ids, add_shape, fields_of, key_of
from backend.commands.console import on_a_terminal, print_line, say
from backend.commands.folders import say_found
from backend.commands.image_files import find_images, read_image
from backend.commands.scoring import max_bytes
from backend.common.config import Settings
from backend.roi_mask import requested_shape
from backend.service.feedback import give_feedback
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

_TEXT = f"""
{IMAGES}
good: the part was rejected, but is good. Its image joins the memory bank and the good images of the calibration.
bad: the part was accepted, but is defective. Its score joins those of the defective images.
Then the ROI is calibrated again by the rule of its calibration. Each image is one change, and `rollback` undoes the
last change. One line for each image says what changes. If an image fails, the changes before it stay."""
_EPILOG = """\
examples:
  %(prog)s Master1 Pattern good rejected/part7.png --dry-run
  %(prog)s Master1 Pattern good rejected/part7.png
  %(prog)s Master1 Pattern bad returned/9.png
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "feedback", run, "say that rejected parts were good, or accepted ones bad", _TEXT, _EPILOG
    )
    add_ids(parser)
    parser.add_argument("verdict", choices=("good", "bad"), help="what the parts are")
    parser.add_argument("images", metavar="PATH", nargs="+", help="image, or folder with all images below it")
    parser.add_argument(
        "--mm-per-px", metavar="MM", help="millimetres per pixel; default: the scale of the calibration"
    )
    add_shape(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Apply the verdict on each image, and print what this changes."""
    fields = fields_of(FeedbackFields, options, verdict=options.verdict, shape=options.shape, dry_run=options.dry_run)
    feedback(settings, fields, options.images)


def feedback(settings: Settings, fields: FeedbackFields, paths: Sequence[str]) -> None:
    """Apply the verdict on each image, one after the other.

    Args:
        settings: the configuration.
        fields: as of ``/feedback``.
        paths: files and folders.

    Raises:
        InvalidRequest: see `find_images`, `requested_shape`.
        BackendError: as `give_feedback`; the feedback on earlier images stays.
    """
    shape, doubt = requested_shape(fields.shape)
    key = key_of(fields)
    images, ignored = find_images(paths)
    say_found(images, ignored)
    service = InspectionService.open(settings)
    if doubt:
        say(f"warning: {doubt}")
    for path in images.values():
        image = NamedImage(path, partial(read_image, path, max_bytes(settings)))
        told = give_feedback(
            service,
            key,
            image,
            fields.verdict,
            mm_per_px=fields.mm_per_px,
            shape=shape,
            dry_run=fields.dry_run,
        )
        print_line(on_a_terminal(told.text))
        if told.warning:
            say(f"warning: {told.warning}")
