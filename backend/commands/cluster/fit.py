"""``cluster fit``: images → the memory bank of a ROI, by the workers of a cluster."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from backend.api.schemas.inspection import FitFields
from backend.bank.memory_limits import check_comparison
from backend.commands.arguments import (
    Commands,
    add_any_folder,
    add_command,
    add_detail,
    add_roi,
    add_shape,
    add_smallest_defect,
    fields_of,
    key_of,
    natural_number,
)
from backend.commands.console import count, say, step_bars
from backend.commands.fit import print_fitted, reply_of
from backend.commands.folder_names import is_left_out
from backend.commands.folders import ANY_FOLDER, GOOD_PARTS, check_folders, check_names, say_found
from backend.commands.image_files import find_images, natural_order
from backend.commands.scoring import max_bytes
from backend.common.config import Settings
from backend.common.profiles import PROFILES
from backend.disk.layout import checkpoint_folder
from backend.roi_mask import requested_shape
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

if TYPE_CHECKING:
    from backend.cluster.fit_worker import PlacedImage

_TEXT = """
Fits as `fit` does, but the embeddings are in the memory of the workers, and the memory bank is the same. URI is an
image or a folder that all machines see, or s3://BUCKET/PREFIX. The checks of folder names are those of `fit`. If a
worker is killed, another one takes its place, and the result is the same. If the command is stopped or killed, the same
command resumes it. If the memory of the workers does not hold the embeddings, these are kept on disk, and two rounds
select the memory bank. It is then not exactly that of `fit`, and the reply says how closely it covers the images. With
RAY_ADDRESS and RAY_AUTH_TOKEN_PATH, the workers are those of that cluster; otherwise they are processes of this
machine."""
_EPILOG = """\
examples:
  %(prog)s Master1 Pattern good/ --mm-per-px 0.2
  %(prog)s Master1 Pattern s3://factory/good --mm-per-px 0.2 --cores 4
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "fit", run, "learn what good parts look like, from very many images", _TEXT, _EPILOG)
    add_roi(parser)
    parser.add_argument("images", metavar="URI", nargs="+", help="image, folder or URL, with all images below it")
    add_any_folder(parser)
    add_shape(parser)
    parser.add_argument(
        "--group-copies", action="store_true", help="count images that look nearly the same as one image"
    )
    parser.add_argument("--profile", choices=PROFILES, help="as for `fit`; default PROFILE")
    add_detail(parser)
    add_smallest_defect(parser)
    parser.add_argument("--all-scores", action="store_true", help="also print the score of every image")
    parser.add_argument(
        "--workers", metavar="N", type=natural_number, help="number of workers; default: as many as free cores allow"
    )
    parser.add_argument("--cores", metavar="N", type=natural_number, default=1, help="cores of each worker; default 1")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Fit, and print what was built.

    Raises:
        InvalidRequest: a URI has no images, or their folders suggest other images than good parts.
        ConfigError: Ray is not installed, a URL cannot be used, or the cluster has too few cores.
        TooLarge: the memory of the workers, a disk of theirs or the memory of this machine is too small; the message
            has the calculation.
        BackendError: as `fit` of the service.
    """
    # Imported only here: other commands do not need Ray.
    from backend.cluster.fit_worker import FitTask, FitWorker
    from backend.cluster.fits import ClusterExecutor
    from backend.cluster.workers import Workers, connected, count_of_workers, settings_to_send

    fields = fields_of(
        FitFields,
        options,
        group_copies=options.group_copies,
        profile=options.profile,
        detail=options.detail,
        smallest_defect_mm=options.smallest_defect_mm,
        shape=options.shape,
    )
    shape, doubt = requested_shape(fields.shape)
    key, insecure = key_of(fields), settings.models_url_insecure
    images = list(_images_of(options.images, insecure=insecure, any_folder=options.any_folder))
    check_comparison(len(images))
    titles = [image.title for image in images]
    checkpoint = checkpoint_folder(settings.models_dir, key)
    service = InspectionService.open(settings)
    read = [partial(image.read, max_bytes(settings), insecure=insecure) for image in images]
    result = None
    try:
        with connected() as ray, step_bars() as on_progress:
            n_workers = min(len(images), count_of_workers(ray, options.workers, options.cores))
            task = FitTask.of(settings_to_send(settings), images, n_workers, shape, checkpoint)
            workers = Workers(ray, FitWorker, n_workers, options.cores, task)
            executor = ClusterExecutor(ray, workers, task, on_progress, say)
            result = fit(
                service,
                key,
                list(map(NamedImage, titles, read)),
                mm_per_px=fields.mm_per_px,
                group_copies=fields.group_copies,
                shapes=[shape] * len(images),
                profile=fields.profile,
                detail=fields.detail,
                smallest_defect_mm=fields.smallest_defect_mm,
                on_progress=on_progress,
                checkpoint=checkpoint,
                executor=executor,
            )
            executor.forget()
    except KeyboardInterrupt:
        if result is None:
            say(f"stopped; run the same command again to resume (until then {checkpoint} keeps what is done)")
            raise
        say(f"stopped after the model was stored; {checkpoint} may keep embeddings, which nothing needs any more")
    print_fitted(reply_of(service, titles, result, doubt), "fitted on", all_scores=options.all_scores)


def _images_of(uris: Sequence[str], *, insecure: bool, any_folder: bool) -> "Iterator[PlacedImage]":
    """The images of files, folders and URLs, each once, in natural order; what is found is printed.

    Raises:
        InvalidRequest: see `run`.
    """
    from backend.cluster.fit_worker import PlacedImage
    from backend.cluster.places import is_url

    if paths := [uri for uri in uris if not is_url(uri)]:
        found, ignored = find_images(paths)
        if not any_folder:
            check_folders(found, paths, GOOD_PARTS)
        say_found(found, ignored)
        for path in found:
            yield PlacedImage(str(path.parent), path.name)
    titles: set[str] = set()
    for url in dict.fromkeys(uri.rstrip("/") for uri in uris if is_url(uri)):
        for name in _names_below(url, insecure=insecure, any_folder=any_folder):
            image = PlacedImage(url, name)
            if image.title not in titles:  # a URL may be below another one
                titles.add(image.title)
                yield image


def _names_below(url: str, *, insecure: bool, any_folder: bool) -> list[str]:
    from backend.cluster.archives import images_of
    from backend.cluster.places import open_place

    names = images_of(open_place(url, insecure=insecure), url, is_left_out)
    names.sort(key=lambda name: natural_order(PurePosixPath(name)))
    say(f"{count(len(names), 'image')} in {url}")
    if not any_folder:
        root = Path(PurePath(url))
        check_names({root / name: f"{url}/{name}" for name in names}, {root}, (), GOOD_PARTS, ANY_FOLDER)
    return names
