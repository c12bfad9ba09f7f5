"""``fit``: images in files and folders → the memory bank of a ROI."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from backend.api.schemas.inspection import FitFields
from backend.commands.arguments import IMAGES, Commands, add_command, add_images, add_roi, add_shape, fields_of, key_of
from backend.commands.console import count, print_line, say, step_bars
from backend.commands.image_files import read_image
from backend.commands.scoring import find, max_bytes
from backend.common.config import Settings
from backend.common.errors import TooLarge
from backend.disk.layout import checkpoint_folder
from backend.roi_mask import parse_shape
from backend.service.fit import fit as fit_images
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

_TEXT = f"""
{IMAGES}
Replaces the memory bank of the ROI and prints what was built. One broken image fails the whole fit and leaves the old
model as it was. Stopped or killed, it goes on where it was when the same command is given again."""
_EPILOG = """\
example:
  python -m backend fit Master1 Pattern good/ --mm-per-px 0.2
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "fit", run, "learn what good parts look like", _TEXT, _EPILOG)
    add_roi(parser)
    add_images(parser)
    add_shape(parser)
    parser.add_argument("--keep-all", action="store_true", help="keep every embedding instead of a coreset")
    parser.add_argument(
        "--append", action="store_true", help="keep the memory bank and add what it lacks of these images"
    )
    parser.add_argument("--thumbnails", action="store_true", help="keep a small picture of every image, for /explain")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Fit, and print what was built."""
    fields = fields_of(
        FitFields,
        options,
        memory_fit=options.keep_all,
        append=options.append,
        thumbnails=options.thumbnails,
        shape=options.shape,
    )
    print_line(json.dumps(fit(settings, fields, options.images)))


def fit(settings: Settings, fields: FitFields, paths: Sequence[str]) -> dict[str, Any]:
    """Learn what OK looks like from images in files and folders; an interrupted fit keeps its embeddings.

    Returns:
        What ``/fit_ok`` replies.

    Raises:
        InvalidRequest, TooLarge: see `find_images`; more images than ``MAX_FILES``.
        BackendError: as `fit` of the service.
    """
    images = find(paths)
    if len(images) > settings.max_files:
        raise TooLarge(
            f"{count(len(images), 'image')}, at most {settings.max_files} are accepted in one fit (MAX_FILES)"
        )
    key, shape = key_of(fields), parse_shape(fields.shape)
    checkpoint = checkpoint_folder(settings.models_dir, key)
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
                shapes=[shape] * len(images),
                thumbnails=fields.thumbnails,
                on_progress=on_progress,
                checkpoint=checkpoint,
            )
    except KeyboardInterrupt:
        say(f"stopped; run the same command again to go on (until then {checkpoint} keeps what is done)")
        raise
    return {
        "n_embeddings": result.n_embeddings,
        "coreset_size": result.coreset_size,
        "token_shape": list(result.token_hw),
        **(
            {} if result.ok_scores is None else {"ok_scores": dict(zip(images.values(), result.ok_scores, strict=True))}
        ),
        "suspicious": [list(images.values())[image.index] for image in result.suspicious],
    }
