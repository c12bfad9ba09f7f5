"""Data sets with known defects, in any layout: their images, the kinds of the images, and their masks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from backend.commands.console import count, say, some
from backend.commands.folders import say_ignored
from backend.commands.image_files import Ignored

GOOD = "good"


@dataclass(frozen=True)
class TestImage:
    """A test image.

    Attributes:
        path: its file.
        name: ``TYPE/NAME.png``.
        defect: type of its defect, ``"good"`` without one.
        masks: files of its ground truth, if there are any; a pixel that one of them marks is defective.
    """

    __test__ = False  # no tests, whatever pytest makes of the name

    path: str
    name: str
    defect: str
    masks: tuple[str, ...] = ()

    @property
    def is_defective(self) -> bool:
        """Whether it has a defect."""
        return self.defect != GOOD


@dataclass(frozen=True)
class Category:
    """One kind of part.

    Attributes:
        name: of its folder.
        layout: the recognised layout, in words.
        train: good images to fit on, in natural order.
        test: good and defective images, type by type, good ones first.
        ignored: ignored contents of the folders of images and masks.
        unused_masks: masks without a defective image.
        unused_folders: other folders with images, and how many.
        remarks: remarks about the data for readers of the results.
    """

    name: str
    layout: str
    train: tuple[str, ...]
    test: tuple[TestImage, ...]
    ignored: Ignored
    unused_masks: tuple[str, ...] = ()
    unused_folders: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def defects(self) -> list[str]:
        """The types of defects, in natural order."""
        return list(dict.fromkeys(image.defect for image in self.test if image.is_defective))

    @property
    def n_ignored(self) -> int:
        """Files in the folders of images that are not images, and masks without an image."""
        return len(self.ignored.files) + len(self.unused_masks)

    def with_remarks(self, *remarks: str) -> "Category":
        """The same with further remarks."""
        return replace(self, remarks=(*self.remarks, *remarks))


def say_category(category: Category) -> None:
    """Print how a category was read: its layout, its images by type and folder, and what is not used."""
    say(f"{category.name}: read as {category.layout}")
    say(f"  to fit on: {count(len(category.train), 'image')} in {_folders(category.train)}")
    for defect in (GOOD, *category.defects):
        images = [image for image in category.test if image.defect == defect]
        masks = f", {sum(bool(image.masks) for image in images)} with a mask" if defect != GOOD else ""
        say(f"  {defect}: {count(len(images), 'image')} in {_folders([image.path for image in images])}{masks}")
    say_ignored(category.ignored, "  ")
    if category.unused_masks:
        number = count(len(category.unused_masks), "mask")
        say(f"  not used: {number} without a defective image ({some(category.unused_masks)})")
    for folder in category.unused_folders:
        say(f"  not used: {folder}")
    without = sum(image.is_defective and not image.masks for image in category.test)
    if without:
        say(f"{category.name}: {count(without, 'defective image')} without a mask, left out of the pixel measures")
    for remark in category.remarks:
        say(f"{category.name}: {remark}")


def _folders(images: Sequence[str]) -> str:
    """The folders of images, in a few words."""
    return some(list(Counter(str(PurePath(image).parent) for image in images)))
