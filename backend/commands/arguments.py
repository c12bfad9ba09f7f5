"""Common parts of commands: arguments, their types, and their conversion to fields."""

import argparse
import contextlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from backend.api.schemas.common import RoiIds
from backend.common.config import Settings
from backend.common.errors import InvalidRequest
from backend.common.field_problems import problem_in_words
from backend.common.profiles import DetailName
from backend.common.roi_key import RoiKey, check_recipe
from backend.tiles import MOST_DETAIL

IMAGES = """
Images are canonical ROIs: PNG, JPEG, BMP, TIFF or WebP files, already cropped and rotated. Folders are read with all
their subfolders, in natural order (2.png before 10.png). Other files, hidden files and system folders (@eaDir,
#recycle, $RECYCLE.BIN, __MACOSX, ...) are ignored. The number of images in each folder is printed first."""
RECORDS = """
FILE gets one record per image, as soon as the image is judged. If you give the same command again, it resumes where it
stopped, even if it was killed. FILE never mixes records of different memory banks, calibrations, --mm-per-px, --shape
or image contents: the command stops with an error, and you give another FILE or --restart."""
_DECIMAL_COMMA = re.compile(r"\s*-?[0-9]*,[0-9]+\s*")
_ARGUMENTS = {"role_id": "ROLE", "roi_id": "ROI", "recipe_id": "--recipe"}

Fields = TypeVar("Fields", bound=BaseModel)
RunCommand = Callable[[Settings, argparse.Namespace], None]
"""What a command does."""


class Commands(Protocol):
    """Where commands are added: the result of `argparse.ArgumentParser.add_subparsers`."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add the parser of a command."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions and examples, and has room for our long options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=120)


def add_command(
    commands: Commands, name: str, run: RunCommand, summary: str, text: str = "", epilog: str = ""
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: where.
        name: of the command.
        run: runs it.
        summary: one line, for the list of commands.
        text, epilog: texts of its help, after the summary and at the end.
    """
    added = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{text}",
        epilog=epilog,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    added.set_defaults(run=run)
    return added


def add_ids(parser: argparse.ArgumentParser) -> None:
    """Add the ids of a ROI."""
    parser.add_argument("role_id", metavar="ROLE", help="inspection role, as the GUI names it")
    parser.add_argument("roi_id", metavar="ROI", help="region of interest within the role")
    parser.add_argument("--recipe", dest="recipe_id", metavar="NAME", help="recipe of the ROI; default: none")


def add_roi(parser: argparse.ArgumentParser) -> None:
    """Add the ids of a ROI and its scale."""
    add_ids(parser)
    parser.add_argument("--mm-per-px", required=True, metavar="MM", help="millimetres per pixel of the images")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the paths of images."""
    parser.add_argument("images", metavar="PATH", nargs="+", help="image, or folder with all images below it")


def add_any_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option that ignores the names of folders."""
    parser.add_argument(
        "--any-folder", action="store_true", help="take all images below the folders, whatever their names suggest"
    )


def detail(text: str) -> DetailName:
    """Type of an argument: tiles along each side of a ROI, or auto."""
    if text == "auto":
        return "auto"
    if text in {str(number) for number in range(1, MOST_DETAIL + 1)}:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a whole number from 1 to {MOST_DETAIL}")


def length(text: str) -> float:
    """Type of an argument: millimetres."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= 1e6:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most a million, with a decimal point")


def add_detail(parser: argparse.ArgumentParser, default: str = "DETAIL") -> None:
    """Add in how many tiles the ROI is looked at."""
    parser.add_argument(
        "--detail",
        type=detail,
        metavar="N",
        help="number N of overlapping tiles along each side of the ROI, 1 to 5, or auto: more tiles show smaller "
        f"defects, and an image takes N² passes of the network; default {default}",
    )


def add_smallest_defect(parser: argparse.ArgumentParser) -> None:
    """Add the smallest defect that matters."""
    parser.add_argument(
        "--smallest-defect-mm",
        type=length,
        metavar="MM",
        help="length of the smallest defect that matters, in mm; --detail auto chooses by it",
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add the mask of the images."""
    parser.add_argument(
        "--shape",
        metavar="JSON",
        help='mask in pixels of each image, such as {"kind":"circle","cx":128,"cy":128,"r":120}',
    )


def add_restart(parser: argparse.ArgumentParser) -> None:
    """Add the option that deletes the records of an earlier run."""
    parser.add_argument("--restart", action="store_true", help="delete the records in FILE and begin again")


def percentile(text: str) -> float:
    """Type of an argument: a percentile."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= 100:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, at most 100")


def natural_number(text: str) -> int:
    """Type of an argument: a whole number of at least 1."""
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")


def natural_numbers(text: str) -> list[int]:
    """Type of an argument: several such numbers, sorted and without repetitions."""
    return sorted({natural_number(item) for item in text.split(",")})


def fields_of(
    model: type[Fields],
    options: argparse.Namespace,
    *,
    arguments: Mapping[str, str] = MappingProxyType(_ARGUMENTS),
    **others: Any,
) -> Fields:
    """The fields of a request, by the same rules as over HTTP.

    Args:
        model: of the fields.
        options: as they were parsed.
        arguments: names in messages of fields that are not given as ``--field-name``.
        others: further fields, and those with other names in `options`.

    Raises:
        InvalidRequest: one of them is out of range; the message names the argument.
    """
    given = {name: getattr(options, name, None) for name in ("role_id", "roi_id", "recipe_id", "mm_per_px")}
    values = {name: value for name, value in given.items() if name in model.model_fields} | others
    for name, value in values.items():
        if name not in (*_ARGUMENTS, "shape") and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
            option = f"--{name.replace('_', '-')}"
            raise InvalidRequest(f"{option} {value}: write the number with a decimal point, {value.replace(',', '.')}")
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        names = [str(item["loc"][0]) for item in exc.errors()]
        named = [arguments.get(name, f"--{name.replace('_', '-')}") for name in names]
        problems = zip(named, exc.errors(), strict=True)
        raise InvalidRequest("; ".join(f"{argument}: {problem_in_words(item)}" for argument, item in problems)) from exc


def key_of(fields: RoiIds) -> RoiKey:
    """The ROI with these ids.

    Raises:
        ReservedRecipe, InvalidRequest: see `check_recipe`.
    """
    key = fields.roi_key()
    check_recipe(key.recipe_id)
    return key
