"""Image files: those that paths name, and their bytes."""

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from backend.commands.folder_names import is_left_out
from backend.common.errors import InvalidImage, InvalidRequest, TooLarge
from backend.common.image_headers import SUFFIXES

FoundImages = dict[Path, str]
"""Images as they were given, by their path without linked folders: one that is given twice counts once."""


@dataclass(frozen=True)
class Ignored:
    """Ignored contents of folders, as paths below the given folders.

    Attributes:
        files: hidden files, and those without the extension of an image.
        folders: hidden folders, and those of the system, such as thumbnails and recycle bins.
        links: links to folders.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def find_images(paths: Sequence[str]) -> tuple[FoundImages, Ignored]:
    """The images of files and folders, with all subfolders, in natural order (2 before 10).

    System folders and hidden folders are not read, unless the user names them.

    Returns:
        images: named files, and files in folders that are not hidden and have the extension of an image.
        ignored: the other contents of the folders.

    Raises:
        InvalidRequest: a path that does not exist, cannot be read or is not an image; a folder without images.
    """
    images: FoundImages = {}
    ignored = Ignored()
    for path in paths:
        if _is_folder(path):
            below = images_below(path, ignored)
            if not below:
                raise InvalidRequest(f"{path}: no images in this folder ({', '.join(SUFFIXES)})")
        elif not path.lower().endswith(SUFFIXES):
            raise InvalidRequest(f"{path}: unsupported file type; use {', '.join(SUFFIXES)} files, or folders")
        else:
            below = [path]
        for image in below:
            images.setdefault(Path(image).parent.resolve() / PurePath(image).name, image)
    return images, ignored


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise InvalidRequest(f"{path}: no such file or folder") from exc
    except OSError as exc:
        raise InvalidRequest(f"{path}: cannot be read ({exc.strerror})") from exc


def images_below(folder: str, ignored: Ignored) -> list[str]:
    """Images below a folder in natural order; other contents are added to `ignored`.

    Links to folders are not followed.

    Raises:
        InvalidRequest: a folder cannot be read.
    """

    def refuse(exc: OSError) -> None:
        raise InvalidRequest(f"{exc.filename}: the folder cannot be read ({exc.strerror})") from exc

    found: list[PurePath] = []
    others: list[PurePath] = []
    left_out: list[PurePath] = []
    links: list[PurePath] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        place = PurePath(parent).relative_to(folder)
        left_out += [place / name for name in folders if is_left_out(name)]
        folders[:] = [name for name in folders if not is_left_out(name)]
        links += [place / name for name in folders if Path(parent, name).is_symlink()]
        for name in files:
            is_image = name.lower().endswith(SUFFIXES) and not name.startswith(".")
            (found if is_image else others).append(place / name)
    prefix = folder.rstrip("/" + os.sep) + "/"
    for paths, names in ((others, ignored.files), (left_out, ignored.folders), (links, ignored.links)):
        names += [prefix + path.as_posix() for path in sorted(paths, key=natural_order)]
    return [prefix + image.as_posix() for image in sorted(found, key=natural_order)]


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
            raise InvalidImage(f"{image}: the file cannot be read (it is not a regular file)")
        if size > max_bytes:
            raise TooLarge(f"{image}: {size} bytes, but at most {max_bytes} are accepted")
        return path.read_bytes()
    except OSError as exc:
        raise InvalidImage(f"{image}: the file cannot be read ({exc.strerror})") from exc


def image_sha256(image: str, max_bytes: int) -> str | None:
    """Hash of the bytes of an image; None if `read_image` refuses it."""
    try:
        return hashlib.sha256(read_image(image, max_bytes)).hexdigest()
    except (InvalidImage, TooLarge):
        return None


def natural_order(path: PurePath) -> tuple[list[list[str | int]], PurePath]:
    """Sorts part10 after part2, and other text without case; for equal keys, the path decides."""
    parts = [re.split(r"([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in parts], path
