"""From the folders of a data set to a category: images, their masks, and a split if there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from backend.commands.console import count
from backend.commands.evaluate.dataset import GOOD, Category, TestImage
from backend.commands.evaluate.masks import MaskFiles
from backend.commands.folders import DEFECTIVE_PARTS, GOOD_PARTS, Parts, check_folders, masks_beside
from backend.commands.image_files import FoundImages, Ignored, find_images, images_below
from backend.common.errors import InvalidRequest

# Of good images, where nothing says which to fit on: the last ones in natural order, so that neighbours of a series,
# which are much alike, do not lie on both sides.
_TEST_SHARE = 5


@dataclass(frozen=True)
class Folders:
    """The places of the images of a category; each path is a folder or an image.

    Attributes:
        good: good parts, to judge.
        defective: defective parts, by type.
        train: good parts, to fit on; empty if they are taken from `good`.
        masks: folder of ground truth, if there is one.
        root: names of images count from there; None keeps paths as they are.
        unused: other folders with images, and how many.
    """

    good: Sequence[str]
    defective: Mapping[str, Sequence[str]]
    train: Sequence[str] = ()
    masks: str | None = None
    root: str | None = None
    unused: Sequence[str] = field(default_factory=tuple)


def assemble(name: str, layout: str, folders: Folders) -> Category:
    """Read the folders of a category.

    Args:
        name: of the category.
        layout: in words.
        folders: its folders.

    Raises:
        InvalidRequest: see `find_images`, `check_folders`; an image has two kinds; a mask belongs to images of several
            types; one good image is too few for a split.
    """
    ignored = Ignored()
    stray: list[str] = []  # masks that lie among images
    good, masks = _read(folders.good, GOOD_PARTS, ignored)
    stray += masks
    train: FoundImages = {}
    if folders.train:
        train, masks = _read(folders.train, GOOD_PARTS, ignored)
        stray += masks
    types: dict[str, FoundImages] = {}
    beside: list[MaskFiles] = []
    for defect, paths in folders.defective.items():
        types[defect], masks = _read(paths, DEFECTIVE_PARTS, ignored)
        beside.append(MaskFiles(masks))
    _refuse_twice({"to fit on": train, GOOD: good, **types})
    remarks = []
    if not folders.train:
        train, good = _split(good)
        remarks.append(
            f"the data set has no training images of its own: the first {len(train)} good images in natural order "
            f"are the training images, the last {len(good)} are the good test images"
        )
    truth = None if folders.masks is None else MaskFiles(images_below(folders.masks, ignored), folders.masks)
    test = [TestImage(path, _name(path, folders.root), GOOD) for path in good.values()]
    owners = _Owners()
    for (defect, images), own in zip(types.items(), beside, strict=True):
        for path in images.values():
            inner = PurePath(_inner(path, folders.defective[defect])).with_suffix("").as_posix()
            typed = f"{defect}/{inner}"
            found = () if truth is None else truth.of(typed) or truth.in_folder(typed) or truth.of(inner)
            owners.add(found, defect, path)
            found = found or own.of(PurePath(path).with_suffix("").as_posix())
            test.append(TestImage(path, _name(path, folders.root), defect, found))
    unused = [*stray, *(mask for own in beside for mask in own.unused()), *(truth.unused() if truth else ())]
    return Category(
        name, layout, tuple(train.values()), tuple(test), ignored, tuple(unused), tuple(folders.unused), tuple(remarks)
    )


class _Owners:
    """Which image each mask belongs to."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, str]] = {}

    def add(self, masks: Sequence[str], defect: str, image: str) -> None:
        """Record the images of these masks.

        Raises:
            InvalidRequest: one belongs to images of two types of defects, and it is unknown which it shows.
        """
        for mask in masks:
            other, another = self._owners.setdefault(mask, (defect, image))
            if other != defect:
                raise InvalidRequest(
                    f"{mask} would be the mask of {another} and of {image}; put the masks of each type into a folder "
                    f"with the name of the type, such as {PurePath(mask).parent / defect}"
                )


def _read(paths: Sequence[str], parts: Parts, ignored: Ignored) -> tuple[FoundImages, list[str]]:
    """Images in folders, and the masks among them."""
    images, others = find_images(paths)
    ignored.files.extend(others.files)
    ignored.folders.extend(others.folders)
    ignored.links.extend(others.links)
    masks = masks_beside(images.values())
    images = {file: image for file, image in images.items() if image not in masks}
    check_folders(images, paths, parts, "rename them")
    return images, sorted(masks)


def _split(good: FoundImages) -> tuple[FoundImages, FoundImages]:
    """Images to fit on and to judge: four fifths, and the last fifth."""
    if len(good) < 2:
        raise InvalidRequest(
            f"{count(len(good), 'good image')}: too few to fit on some and judge others; at least 2 are needed"
        )
    n_test = max(1, len(good) // _TEST_SHARE)
    items = list(good.items())
    return dict(items[:-n_test]), dict(items[-n_test:])


def _refuse_twice(kinds: Mapping[str, FoundImages]) -> None:
    seen: dict[object, str] = {}
    for kind, images in kinds.items():
        for file, image in images.items():
            if (other := seen.setdefault(file, kind)) != kind:
                raise InvalidRequest(f"{image} is given twice, as {other} and as {kind}")


def _name(path: str, root: str | None) -> str:
    return path if root is None else PurePath(path).relative_to(root).as_posix()


def _inner(path: str, given: Sequence[str]) -> str:
    """The path of an image below the given folder; its name, if the image itself was given."""
    for folder in given:
        if path != folder and PurePath(path).is_relative_to(folder):
            return PurePath(path).relative_to(folder).as_posix()
    return PurePath(path).name
