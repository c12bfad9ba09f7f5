"""Images as files: which of them paths name, and their bytes."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from backend.common.errors import InvalidImage, InvalidRequest, TooLarge
from backend.common.image_headers import SUFFIXES

FoundImages = dict[Path, str]
"""Images by the place where they really are, as they were given: one that is given twice counts once."""


def find_images(paths: Sequence[str]) -> tuple[FoundImages, int]:
    """The images that files and folders name, folders with all that is below them, in natural order (2 before 10).

    Returns:
        images: files named, and files in folders whose extension is an image's and which are not hidden.
        n_ignored: other files in the folders.

    Raises:
        InvalidRequest: a path that does not exist or is no image, or a folder without images.
    """
    images: FoundImages = {}
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


def _images_below(folder: str) -> tuple[list[str], int]:
    """Images below a folder in natural order, and how many other files there are. Links to folders are not followed."""

    def refuse(exc: OSError) -> None:
        raise InvalidRequest(f"{exc.filename}: the folder cannot be read ({exc.strerror})") from exc

    found: list[PurePath] = []
    n_others = 0
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [PurePath(parent, name).relative_to(folder) for name in images]
        n_others += len(files) - len(images)
    if not found:
        raise InvalidRequest(f"{folder}: no images in this folder ({', '.join(SUFFIXES)})")
    prefix = folder.rstrip("/" + os.sep) + "/"
    return [prefix + image.as_posix() for image in sorted(found, key=natural_order)], n_others


def natural_order(path: PurePath) -> tuple[list[list[str | int]], PurePath]:
    """Sorts part10 after part2, and the rest as text without case; the path itself decides between equals."""
    parts = [re.split(r"([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in parts], path
