"""The layout of a data set, and its categories.

Besides `mvtec`::

    CATEGORY/good/*, CATEGORY/TYPE/*               and CATEGORY/ground_truth/TYPE/NAME_mask.png, or masks/NAME.png
    CATEGORY/Data/Images/Normal/*, .../Anomaly/*   and Data/Masks/Anomaly/NAME.png: VisA as it is published

Zou et al., *SPot-the-Difference* (VisA), ECCV 2022.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from backend.commands.console import some
from backend.commands.evaluate.assembly import Folders, assemble
from backend.commands.evaluate.dataset import GOOD, Category
from backend.commands.evaluate.mvtec import (
    GOOD_NAMES,
    MASK_NAMES,
    OPTIONS,
    holds,
    looks_like_mvtec,
    named,
    only,
    others,
    read_mvtec,
    subfolders,
)
from backend.commands.folder_names import Kind, kind_of
from backend.commands.image_files import Ignored, images_below
from backend.common.errors import InvalidRequest

_KNOWN = (
    "the layouts of MVTec AD, AD 2 and LOCO, VisA and BTAD, and good/ beside folders of defective parts, such as bad/"
)


def find_categories(dataset: str) -> list[Category]:
    """The categories of a data set: the folder itself, or those below it, in natural order.

    Args:
        dataset: a folder in a known layout, or a folder of such folders.

    Raises:
        InvalidRequest: it is neither, or cannot be read; the message names the folder and what it lacks.
    """
    folder = Path(dataset)
    try:
        if not folder.is_dir():
            raise InvalidRequest(f"{dataset}: no such folder")
        if (read := _reader(folder)) is not None:
            return [read(folder)]
        readers = [(path, read) for path in subfolders(folder) if (read := _reader(path)) is not None]
        if not readers:
            raise InvalidRequest(
                f"{dataset}: neither the folder nor its subfolders have a known layout; {holds(folder)}. "
                f"Known are {_KNOWN}. For another layout, {OPTIONS}"
            )
        return [read(path) for path, read in readers]
    except OSError as exc:
        raise InvalidRequest(f"{exc.filename}: the folder cannot be read ({exc.strerror})") from exc


def category_of(
    good: Sequence[str], bad: Sequence[str], train: Sequence[str] = (), masks: str | None = None
) -> Category:
    """The category of the folders or images that the user names by their kind.

    Args:
        good: good parts.
        bad: defective parts; the name of each folder is the type of its defects.
        train: good parts to fit on; none to take four fifths of `good`.
        masks: folder with ``TYPE/NAME_mask.png`` or ``NAME_mask.png``.

    Raises:
        InvalidRequest: a type has the name of the good parts, or `masks` is not a folder; see also `assemble`.
    """
    if masks is not None and not Path(masks).is_dir():
        raise InvalidRequest(f"--masks {masks}: no such folder")
    types: dict[str, list[str]] = {}
    for path in bad:
        given = Path(path).resolve()
        name = given.name if given.is_dir() else given.parent.name
        if name == GOOD:
            raise InvalidRequest(f"--bad {path}: the type of a defect cannot be called {GOOD}; rename the folder")
        types.setdefault(name, []).append(path)
    given = Path(good[0]).resolve()
    name = (given if given.is_dir() else given.parent).parent.name
    return assemble(name, "the folders that were named", Folders(good, types, train, masks))


def _reader(folder: Path) -> Callable[[Path], Category] | None:
    """The function that reads the folder; None if its layout is unknown."""
    if looks_like_mvtec(folder):
        return read_mvtec
    if _visa_images(folder) is not None:
        return _read_visa
    return _read_beside if named(folder, GOOD_NAMES) else None


def _visa_images(folder: Path) -> Path | None:
    for parent in (*named(folder, ("data",)), folder):
        for images in named(parent, ("images",)):
            if named(images, ("normal",)):
                return images
    return None


def _read_visa(folder: Path) -> Category:
    images = _visa_images(folder)
    assert images is not None
    masks = only(images.parent, ("masks",))
    unused = others(folder, (images.parent, images, masks))
    category = _beside(folder.resolve().name, "VisA", images, masks, unused)
    return category.with_remarks("the split in split_csv of VisA is not read, so published results use another split")


def _read_beside(folder: Path) -> Category:
    return _beside(folder.resolve().name, "good parts beside defective ones", folder, only(folder, MASK_NAMES), ())


def _beside(name: str, layout: str, folder: Path, masks: Path | None, unused: Sequence[str]) -> Category:
    """A category whose folder of good parts is beside those of defective ones.

    Raises:
        InvalidRequest: the names of folders do not show their kinds.
    """
    good = only(folder, GOOD_NAMES)
    assert good is not None
    types = [path for path in subfolders(folder) if path not in (good, masks) and images_below(str(path), Ignored())]
    unclear = [path.name for path in types if kind_of(path.name) in (Kind.GOOD, Kind.MASK, Kind.TEST)]
    if unclear:
        raise InvalidRequest(
            f"{folder}: the name of {some(unclear)}, beside {good.name}, is not a type of defect; {holds(folder)}. "
            f"Rename it, or {OPTIONS}"
        )
    if not types:
        raise InvalidRequest(
            f"{folder}: no defective images; put them into a folder beside {good.name}, such as {folder / 'bad'}"
        )
    return assemble(
        name,
        layout,
        Folders(
            [str(good)],
            {path.name: [str(path)] for path in types},
            masks=None if masks is None else str(masks),
            root=str(folder),
            unused=unused,
        ),
    )
