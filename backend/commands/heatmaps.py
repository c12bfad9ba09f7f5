"""Heatmaps as files: where they go, and how they are written."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from urllib.parse import quote

from backend.commands.image_files import FoundImages
from backend.common.errors import InvalidRequest, StorageError
from backend.common.files import TEMPORARY_PREFIX


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


def check_apart(heatmaps: Iterable[Path], images: FoundImages, paths: Sequence[str]) -> None:
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
        parent = heatmap.parent.resolve()
        if parent / heatmap.name in images or any(parent.is_relative_to(folder) for folder in folders):
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
