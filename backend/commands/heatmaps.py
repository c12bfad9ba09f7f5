"""Heatmaps and overlays as files: where they go, and how they are written."""

import contextlib
import errno
import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from urllib.parse import quote

from backend.commands.image_files import FoundImages
from backend.common.errors import InvalidRequest, StorageError
from backend.common.files import TEMPORARY_PREFIX, delete, replace
from backend.common.png_writer import png_text

_MOST_BYTES = 255  # of a name, on nearly every file system
_EXTENSION = ".png"
_TEXT_BYTES = 512  # the beginning of a file, with what it says of itself
# These errors are about one name: others can be written. With any other error, none can.
_ABOUT_THE_NAME = frozenset(
    (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
)


class Heatmaps:
    """The heatmaps of a run, or its overlays.

    Args:
        folder: the target.
        images: paths as they were given.
        option: the option of the folder.
        what: noun for its files.

    Attributes:
        text: description in each file, see `png_text`; a file with another description has another scale.
        paths: the file for each image. They differ on every file system.
        renamed: the paths whose name is not that of the image with ``.png``, because it is too long, or differs from
            another only by case.
        failed: the error of each heatmap that could not be written, by image.
    """

    def __init__(self, folder: Path, images: Sequence[str], option: str = "--heatmaps", what: str = "heatmap") -> None:
        self.folder = folder
        self.option = option
        self.what = what
        self.text: str | None = None
        self.paths: dict[str, Path] = {}
        self.renamed: dict[str, Path] = {}
        self.failed: dict[str, str] = {}
        wanted = {image: heatmap_path(folder, image) for image in images}
        taken = {_folded(parent) for path in wanted.values() for parent in path.parents}
        for image, path in wanted.items():
            if _folded(path) in taken:
                path = path.with_name(_marked(path.stem, image, _EXTENSION))
            if path != folder.joinpath(*_names(image)).with_name(_names(image)[-1] + _EXTENSION):
                self.renamed[image] = path
            taken.add(_folded(path))
            self.paths[image] = path

    def lacks(self, image: str) -> bool:
        """Whether the heatmap of an image on this scale is missing."""
        try:
            with self.paths[image].open("rb") as file:
                return png_text(file.read(_TEXT_BYTES)) != self.text
        except OSError:  # none is there, or can be: the path may be too long
            return True

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(f"{self.option} {self.folder}: the folder cannot be made ({exc.strerror})") from exc

    def write(self, image: str, png: bytes) -> str | None:
        """Write the heatmap of an image; returns its path if it is one of `renamed`.

        A name that the file system does not accept is added to `failed`.

        Raises:
            StorageError: nothing can be written, for example because the disk is full.
        """
        try:
            write_heatmap(self.paths[image], png)
        except StorageError as exc:
            if not isinstance(exc.__cause__, OSError) or exc.__cause__.errno not in _ABOUT_THE_NAME:
                raise
            self.failed[image] = str(exc)
        return str(self.renamed[image]) if image in self.renamed and image not in self.failed else None


def heatmap_path(folder: Path, image: str) -> Path:
    """The file of the heatmap of an image: the given path of the image, below `folder`, with ``.png`` added.

    ``..`` and the root are percent-encoded, so that no path leads out of the folder and no two to the same file. A name
    that would be too long is cut, and ends with ``~`` and 16 digits of the SHA-256 of the full name.

    >>> heatmap_path(Path("maps"), "lot7/a.jpg").as_posix(), heatmap_path(Path("maps"), "/lot7/../a.png").as_posix()
    ('maps/lot7/a.jpg.png', 'maps/%2Flot7/%2E%2E/a.png.png')
    """
    *folders, file = _names(image)
    return folder.joinpath(*map(_short, folders), _short(file, _EXTENSION))


def _names(image: str) -> list[str]:
    path = PurePath(image)
    names = ["%2E%2E" if name == ".." else name.replace("%", "%25") for name in path.relative_to(path.anchor).parts]
    names[0] = quote(path.anchor, safe="") + names[0]
    return names


def _short(name: str, extension: str = "") -> str:
    """A possible file name, also with the temporary prefix and suffix while it is written."""
    around = len(TEMPORARY_PREFIX + extension) if extension else 0
    return name + extension if len(os.fsencode(name)) + around <= _MOST_BYTES else _marked(name, name, extension)


def _marked(name: str, what: str, extension: str) -> str:
    """The beginning of a name, with a mark that distinguishes it from other names with this beginning."""
    mark = f"~{hashlib.sha256(os.fsencode(what)).hexdigest()[:16]}{extension}"
    return os.fsencode(name)[: _MOST_BYTES - len(TEMPORARY_PREFIX + mark)].decode(errors="ignore") + mark


def _folded(path: Path) -> str:
    """The path in the form that file systems compare if they ignore case or normalise Unicode."""
    return unicodedata.normalize("NFC", str(path).casefold())


def check_own_folders(pictures: Sequence[Heatmaps]) -> None:
    """Refuse heatmaps and overlays that would replace each other.

    Raises:
        InvalidRequest: two of them have the same file.
    """
    taken: dict[str, str] = {}
    for of_option in pictures:
        for path in of_option.paths.values():
            other = taken.setdefault(_folded(path.parent.resolve() / path.name), of_option.option)
            if other != of_option.option:
                raise InvalidRequest(
                    f"{other} and {of_option.option} would both write {path}: give each its own folder"
                )


def check_apart(
    heatmaps: Iterable[Path], images: FoundImages, paths: Sequence[str], option: str = "--heatmaps"
) -> None:
    """Refuse heatmaps that would replace an image, or that the next run would read as one.

    Args:
        heatmaps: their files.
        images: what `find_images` found in `paths`.
        paths: files and folders.
        option: the option of their folder.

    Raises:
        InvalidRequest: there is such a heatmap.
    """
    folders = [Path(path).resolve() for path in paths if Path(path).is_dir()]
    for heatmap in heatmaps:
        parent = heatmap.parent.resolve()
        if parent / heatmap.name in images or any(parent.is_relative_to(folder) for folder in folders):
            raise InvalidRequest(f"the heatmap {heatmap} would lie among the images: give {option} another folder")


def write_heatmap(path: Path, png: bytes) -> None:
    """Write a heatmap and its folders, so that the file is either complete or absent.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(png)
        replace(temporary, path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            delete(temporary)
        raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc
