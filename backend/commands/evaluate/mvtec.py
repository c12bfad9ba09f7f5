"""Data sets in the layout of MVTec AD, and in similar layouts.

::

    CATEGORY/train/good/*                          good parts, to fit on
    CATEGORY/test/good/*                           good parts
    CATEGORY/test/TYPE/*                           defective parts
    CATEGORY/ground_truth/TYPE/NAME_mask.png       where TYPE/NAME.* is defective; NAME.png will do

MVTec AD 2 has ``test_public`` instead of ``test``, and ``ground_truth`` in it; MVTec LOCO a folder NAME of several
masks; BTAD ``ok`` and ``ko`` instead of ``good`` and a type; VisA, as it is prepared for training, masks without
``_mask``.

Bergmann et al., *MVTec AD*, CVPR 2019; Bergmann et al., *MVTec LOCO AD*, IJCV 2022; Heckler-Kram et al., *MVTec AD 2*,
2025; Mishra et al., *BTAD*, ISIE 2021.
"""

from collections.abc import Sequence
from pathlib import Path, PurePath

from backend.commands.console import count, some
from backend.commands.evaluate.assembly import Folders, assemble
from backend.commands.evaluate.dataset import Category
from backend.commands.folder_names import is_left_out
from backend.commands.image_files import Ignored, images_below, natural_order
from backend.common.errors import InvalidRequest

GOOD_NAMES = ("good", "ok", "normal")
MASK_NAMES = ("ground_truth", "groundtruth", "ground-truth", "gt", "mask", "masks")
OPTIONS = "name the folders with --good, --bad and --masks"
_TRAIN, _TEST = ("train",), ("test", "test_public")
_LOCO = {"logical_anomalies", "structural_anomalies"}
_LAYOUT = "train/good, test/good and test/TYPE with images, and ground_truth/TYPE/NAME_mask.png if there are masks"


def looks_like_mvtec(folder: Path) -> bool:
    """Whether there are folders of training or test images."""
    return bool(named(folder, _TRAIN) or named(folder, _TEST))


def read_mvtec(folder: Path) -> Category:
    """The category in a folder that looks like one.

    Raises:
        InvalidRequest: a folder is missing, or two folders have a suitable name; the message names them. See also
            `assemble`.
    """
    train, test = only(folder, _TRAIN) or folder / "train", only(folder, _TEST) or folder / "test"
    good = [_good(train), _good(test)]
    masks = only(folder, MASK_NAMES) or only(test, MASK_NAMES)
    types = [path for path in subfolders(test) if path not in (good[1], masks)]
    if not types:
        raise InvalidRequest(f"{test}: no defective images; put them into {test / 'TYPE'}")
    return assemble(
        folder.resolve().name,
        _layout(test, good[1], [path.name for path in types]),
        Folders(
            [str(good[1])],
            {path.name: [str(path)] for path in types},
            [str(good[0])],
            None if masks is None else str(masks),
            str(test),
            others(folder, (train, test, masks)) + others(train, (good[0],)),
        ),
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, without system folders, in natural order; empty if the folder is missing."""
    if not folder.is_dir():
        return []
    folders = [path for path in folder.iterdir() if path.is_dir() and not is_left_out(path.name)]
    return sorted(folders, key=lambda path: natural_order(PurePath(path.name)))


def named(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in a folder with one of these names, case-insensitive."""
    return [path for path in subfolders(folder) if path.name.casefold() in names]


def only(folder: Path, names: Sequence[str]) -> Path | None:
    """The only folder in a folder with one of these names, case-insensitive.

    Raises:
        InvalidRequest: there are several.
    """
    found = named(folder, names)
    if len(found) > 1:
        raise InvalidRequest(
            f"{folder}: {' and '.join(path.name for path in found)} both have a suitable name; rename one of them, "
            f"or {OPTIONS}"
        )
    return found[0] if found else None


def others(folder: Path, used: Sequence[Path | None]) -> tuple[str, ...]:
    """The other folders in a folder that have images below them, and how many."""
    counts = {path: len(images_below(str(path), Ignored())) for path in subfolders(folder) if path not in used}
    return tuple(f"{path} ({count(number, 'image')})" for path, number in counts.items() if number)


def holds(folder: Path) -> str:
    """The contents of a folder, as a sentence."""
    inside = [f"{path.rpartition('/')[2]}" for path in others(folder, ())]
    direct = sum(PurePath(path).parent == folder for path in images_below(str(folder), Ignored()))
    parts = [*([count(direct, "image")] if direct else []), *inside]
    return f"{folder} holds {some(parts, 6)}" if parts else f"{folder} holds no images"


def _good(folder: Path) -> Path:
    good = only(folder, GOOD_NAMES)
    if good is None:
        found = f"; {holds(folder)}" if folder.is_dir() else ""
        raise InvalidRequest(
            f"{folder / GOOD_NAMES[0]}: no such folder; a data set in MVTec layout has {_LAYOUT}{found}. "
            f"For another layout, {OPTIONS}"
        )
    return good


def _layout(test: Path, good: Path, types: Sequence[str]) -> str:
    """The layout, in words."""
    if test.name.casefold() == "test_public":
        return "MVTec AD 2"
    if not _LOCO.isdisjoint(name.casefold() for name in types):
        return "MVTec LOCO"
    if good.name.casefold() == "ok":
        return "BTAD"
    return "MVTec AD"
