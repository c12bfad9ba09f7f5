"""Images and heatmaps as files: which images paths name, their bytes, and where their heatmaps go."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from urllib.parse import quote

from backend.common.errors import InvalidImage, InvalidRequest, StorageError, TooLarge
from backend.utils import TEMPORARY_PREFIX

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

Images = dict[Path, str]
"""Images by the place where they really are, as they were given: one that is given twice counts once."""


def find_images(paths: Sequence[str]) -> tuple[Images, int]:
    """The images that files and folders name, folders with all that is below them, in natural order (2 before 10).

    Returns:
        images: files named, and files in folders whose extension is an image's and which are not hidden.
        n_ignored: other files in the folders.

    Raises:
        InvalidRequest: a path that does not exist or is no image, or a folder without images.
    """
    images: Images = {}
    n_others = 0
    for path in paths:
        if Path(path).is_dir():
            below, others = _images_below(path)
            n_others += others
        elif not Path(path).exists():
            raise InvalidRequest(f"{path}: no such file or folder")
        elif not path.lower().endswith(SUFFIXES):
            raise InvalidRequest(f"{path}: no image by its extension; give {', '.join(SUFFIXES)} files, or folders")
        else:
            below = [path]
        for image in below:
            images.setdefault(Path(image).parent.resolve() / PurePath(image).name, image)
    return images, n_others


def heatmap_path(folder: Path, image: str) -> Path:
    """Where the heatmap of an image goes: the image's path as it was given, below `folder`, with ``.png`` added.

    ``..`` and the root are percent-encoded, so that no path leads out of the folder and no two to the same file.

    >>> heatmap_path(Path("maps"), "lot7/a.jpg").as_posix(), heatmap_path(Path("maps"), "/lot7/../a.png").as_posix()
    ('maps/lot7/a.jpg.png', 'maps/%2Flot7/%2E%2E/a.png.png')
    """
    path = PurePath(image)
    names = ["%2E%2E" if name == ".." else name.replace("%", "%25") for name in path.relative_to(path.anchor).parts]
    names[0] = quote(path.anchor, safe="") + names[0]
    return folder.joinpath(*names[:-1], f"{names[-1]}.png")


def read_image(image: str, max_bytes: int) -> bytes:
    """The bytes of an image.

    Raises:
        InvalidImage: it cannot be read.
        TooLarge: it is larger than `max_bytes`; it is not read.
    """
    path = Path(image)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InvalidImage(f"{image}: the file cannot be read (it is no regular file)")
        if size > max_bytes:
            raise TooLarge(f"{image}: {size} bytes, at most {max_bytes} are accepted")
        return path.read_bytes()
    except OSError as exc:
        raise InvalidImage(f"{image}: the file cannot be read ({exc.strerror})") from exc


def image_sha256(image: str, max_bytes: int) -> str | None:
    """Hash of the bytes of an image; None where `read_image` refuses it."""
    try:
        return hashlib.sha256(read_image(image, max_bytes)).hexdigest()
    except (InvalidImage, TooLarge):
        return None


def check_apart(heatmaps: Iterable[Path], images: Images, paths: Sequence[str]) -> None:
    """Refuse heatmaps that would replace an image, or that the next run would take for one.

    Args:
        heatmaps: where they go.
        images: what `find_images` found in `paths`.
        paths: files and folders.

    Raises:
        InvalidRequest: there is such a heatmap.
    """
    folders = [Path(path).resolve() for path in paths if Path(path).is_dir()]
    for heatmap in heatmaps:
        place = heatmap.parent.resolve()
        if place / heatmap.name in images or any(place.is_relative_to(folder) for folder in folders):
            raise InvalidRequest(f"the heatmap {heatmap} would lie among the images: give --heatmaps another folder")


def write_heatmap(path: Path, png: bytes) -> None:
    """Write a heatmap, with the folders it needs, so that it is there whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(png)
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc


def _images_below(folder: str) -> tuple[list[str], int]:
    """Images below a folder in natural order, and how many other files there are. Links to folders are not followed."""

    def refuse(exc: OSError) -> None:
        raise InvalidRequest(f"{exc.filename}: the folder cannot be read ({exc.strerror})") from exc

    found: list[PurePath] = []
    n_others = 0
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [PurePath(place, name).relative_to(folder) for name in images]
        n_others += len(files) - len(images)
    if not found:
        raise InvalidRequest(f"{folder}: no images in this folder ({', '.join(SUFFIXES)})")
    prefix = folder.rstrip("/" + os.sep) + "/"
    return [prefix + image.as_posix() for image in sorted(found, key=natural_order)], n_others


def natural_order(path: PurePath) -> tuple[list[list[str | int]], PurePath]:
    """Sorts part10 after part2, and the rest as text without case; the path itself decides between equals."""
    parts = [re.split(r"([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in parts], path
