"""Data sets in the layout of MVTec AD: which images are there, what they are, and their ground-truth masks.

::

    CATEGORY/train/good/*                          good parts, to fit on
    CATEGORY/test/good/*                           good parts
    CATEGORY/test/TYPE/*                           defective parts
    CATEGORY/ground_truth/TYPE/NAME_mask.png       where TYPE/NAME.* is defective; NAME.png will do

Bergmann et al., *MVTec AD*, CVPR 2019.
"""

from dataclasses import dataclass
from pathlib import Path, PurePath

import cv2
import numpy as np
import numpy.typing as npt

from backend.commands.folder_names import is_left_out
from backend.commands.image_files import find_images, natural_order, read_image
from backend.common.errors import InvalidRequest
from backend.utils import ImageLimits, check_image

GOOD = "good"
_LOSSLESS = (".png", ".bmp")  # in a JPEG, pixels beside a defect are not zero either
_LAYOUT = "train/good, test/good and test/TYPE with images, and ground_truth/TYPE/NAME_mask.png if there are masks"


@dataclass(frozen=True)
class TestImage:
    """An image to be judged.

    Attributes:
        path: its file.
        name: ``TYPE/NAME.png``.
        defect: type of its defect, ``"good"`` without one.
        mask: file of its ground-truth mask, if there is one.
    """

    __test__ = False  # no tests, whatever pytest makes of the name

    path: str
    name: str
    defect: str
    mask: str | None

    @property
    def is_defective(self) -> bool:
        """Whether it has a defect."""
        return self.defect != GOOD


@dataclass(frozen=True)
class Category:
    """One kind of part.

    Attributes:
        name: of its folder.
        train: good images to fit on, in natural order.
        test: good and defective images, type by type, good ones first.
        n_ignored: files in the folders of images that are none, and masks of no image.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[TestImage, ...]
    n_ignored: int

    @property
    def defects(self) -> list[str]:
        """The types of defects, in natural order."""
        return list(dict.fromkeys(image.defect for image in self.test if image.is_defective))


def find_categories(dataset: str) -> list[Category]:
    """The categories of a data set: the folder itself, or those below it, in natural order.

    Args:
        dataset: a folder in MVTec layout, or one that holds several such folders.

    Raises:
        InvalidRequest: it is neither, or cannot be read; the message names the folder and what it lacks.
    """
    folder = Path(dataset)
    try:
        if not folder.is_dir():
            raise InvalidRequest(f"{dataset}: no such folder")
        if _looks_like_one(folder):
            return [_category(folder)]
        below = [path for path in _folders(folder) if _looks_like_one(path)]
        if not below:
            raise InvalidRequest(
                f"{dataset}: no data set in MVTec layout, and none in the folders below it ({_LAYOUT})"
            )
        return [_category(path) for path in below]
    except OSError as exc:
        raise InvalidRequest(f"{exc.filename}: the folder cannot be read ({exc.strerror})") from exc


def read_mask(path: str, limits: ImageLimits) -> npt.NDArray[np.bool_]:
    """A ground-truth mask: bool [H, W], True where any channel but alpha is not zero.

    Raises:
        InvalidRequest: it cannot be decoded, or marks no pixel.
        InvalidImage, UnsupportedImage, TooLarge: see `read_image` and `check_image`.
    """
    content = read_image(path, limits.max_bytes)
    check_image(content, path, limits)
    try:
        # 16 bits stay 16: 1 of 65535 is a defect too
        mask = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        mask = None
    if mask is None:
        raise InvalidRequest(f"{path}: the mask cannot be decoded; it is damaged or no image")
    defective = np.asarray(mask[..., :3].any(axis=-1) if mask.ndim == 3 else mask > 0)
    if not defective.any():
        raise InvalidRequest(f"{path}: the mask marks no pixel as defective; mend it or remove it")
    return defective


def _looks_like_one(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _category(folder: Path) -> Category:
    for needed in (folder / "train" / GOOD, folder / "test" / GOOD):
        if not needed.is_dir():
            raise InvalidRequest(f"{needed}: no such folder; a data set in MVTec layout has {_LAYOUT}")
    train, ignored = find_images([str(folder / "train" / GOOD)])
    n_ignored = len(ignored.files)
    types = _folders(folder / "test")
    types.sort(key=lambda path: path.name != GOOD)
    if len(types) == 1:
        raise InvalidRequest(f"{folder / 'test'}: no defective images; they belong into {folder / 'test' / 'TYPE'}")
    test: list[TestImage] = []
    for type_folder in types:
        images, ignored = find_images([str(type_folder)])
        masks = _masks(folder / "ground_truth" / type_folder.name) if type_folder.name != GOOD else {}
        used = set()
        for path in images.values():
            inner = PurePath(path).relative_to(type_folder)
            stem = inner.with_suffix("").as_posix()
            key = f"{stem}_mask" if f"{stem}_mask" in masks else stem
            used.add(key)
            test.append(TestImage(path, f"{type_folder.name}/{inner.as_posix()}", type_folder.name, masks.get(key)))
        n_ignored += len(ignored.files) + len(masks.keys() - used)
    return Category(folder.resolve().name, tuple(train.values()), tuple(test), n_ignored)


def _masks(folder: Path) -> dict[str, str]:
    """Mask files by their path below the folder, without the extension."""
    masks = [path for path in folder.rglob("*") if path.suffix.lower() in _LOSSLESS and not path.name.startswith(".")]
    return {path.relative_to(folder).with_suffix("").as_posix(): str(path) for path in masks}


def _folders(folder: Path) -> list[Path]:
    folders = [path for path in folder.iterdir() if path.is_dir() and not is_left_out(path.name)]
    return sorted(folders, key=lambda path: natural_order(PurePath(path.name)))
