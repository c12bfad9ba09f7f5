"""Ground-truth masks: which files belong to an image, and which pixels they mark."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from backend.commands.console import count, some
from backend.commands.evaluate.dataset import Category
from backend.commands.folders import MASK_ENDINGS
from backend.commands.image_files import read_image
from backend.common.errors import InvalidImage, InvalidRequest, UnsupportedImage
from backend.utils import ImageLimits, check_image, decode_numbers

Mask = npt.NDArray[np.bool_]

# In a JPEG, and mostly in a WebP, pixels beside a defect are not zero either.
_LOSSY = (b"\xff\xd8\xff", b"RIFF")
_LOSSY_FROM = 128
_MOST_MARKED = 0.5


class MaskFiles:
    """The masks in a folder, and which of them were requested.

    Args:
        files: their paths.
        folder: names count from there on; None keeps paths unchanged.
    """

    def __init__(self, files: Iterable[str], folder: str | None = None) -> None:
        self._files = list(files)
        self._used: set[str] = set()
        self._by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._by_folder: dict[str, list[str]] = defaultdict(list)
        for file in self._files:
            path = PurePath(file) if folder is None else PurePath(file).relative_to(folder)
            stem = path.with_suffix("").as_posix()
            self._by_name[stem.casefold()].append((stem, file))
            self._by_folder[path.parent.as_posix().casefold()].append(file)

    def of(self, name: str) -> tuple[str, ...]:
        """The masks of an image.

        Args:
            name: path of the image among the masks, without extension.

        Returns:
            ``NAME_mask.*``, else ``NAME.*`` or one with another ending, without regard to case.
        """
        for ending in (MASK_ENDINGS[0], "", *MASK_ENDINGS[1:]):
            stem = name + ending
            if found := self._by_name.get(stem.casefold()):
                mask = min(found, key=lambda known: known[0] != stem)[1]
                self._used.add(mask)
                return (mask,)
        return ()

    def in_folder(self, name: str) -> tuple[str, ...]:
        """All files in the folder ``NAME``; each marks another defect of the image."""
        masks = tuple(self._by_folder.get(name.casefold(), ()))
        self._used.update(masks)
        return masks

    def unused(self) -> tuple[str, ...]:
        """The masks that no image has requested."""
        return tuple(file for file in self._files if file not in self._used)


def read_masks(paths: Sequence[str], limits: ImageLimits) -> Mask:
    """The ground truth of an image: bool [H, W], True where one of its masks marks a pixel.

    Raises:
        InvalidRequest: they differ in size; see also `read_mask`.
        InvalidImage, UnsupportedImage, TooLarge: see `read_mask`.
    """
    united = read_mask(paths[0], limits)
    for path in paths[1:]:
        mask = read_mask(path, limits)
        if mask.shape != united.shape:
            raise InvalidRequest(
                f"{path}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, another of the same image, {paths[0]}, "
                f"has {united.shape[1]}x{united.shape[0]}"
            )
        united |= mask
    return united


def read_mask(path: str, limits: ImageLimits) -> Mask:
    """One mask: bool [H, W], True where any channel but alpha is above 0, or at least 128 in JPEG and WebP.

    If alpha varies, transparent pixels mark nothing; if all others have the same colour, they are the mask.

    Raises:
        InvalidRequest: it cannot be decoded.
        InvalidImage, UnsupportedImage, TooLarge: see `read_image` and `check_image`.
    """
    content = read_image(path, limits.max_bytes)
    numbers = _numbers(content, path, limits)
    lowest = _LOSSY_FROM if content.startswith(_LOSSY) else 1
    if numbers.ndim == 2:
        return np.asarray(numbers >= lowest)
    colours = numbers[..., :3]
    marked = np.asarray((colours >= lowest).any(axis=-1))
    if numbers.shape[2] < 4 or numbers[..., 3].min() == numbers[..., 3].max():
        return marked
    drawn = np.asarray(numbers[..., 3] >= lowest)
    shown = colours[drawn]
    return drawn if (shown == shown[:1]).all() else marked & drawn


def check_masks(category: Category, sizes: Mapping[str, tuple[int, int]], limits: ImageLimits) -> Category:
    """Read every mask once, before the long work.

    Args:
        category: with its masks.
        sizes: (width, height) of every test image, in pixels, by path.
        limits: of a mask.

    Returns:
        The category without the masks that mark nothing, and with remarks on these and on masks that mark more than
        half of their image.

    Raises:
        InvalidRequest: a mask has another size than its image; see also `read_masks`.
        InvalidImage, UnsupportedImage, TooLarge: see `read_mask`.
    """
    empty, inverted, checked = [], [], []
    for image in category.test:
        if image.masks:
            mask, (width, height) = read_masks(image.masks, limits), sizes[image.path]
            if mask.shape != (height, width):
                raise InvalidRequest(
                    f"{image.masks[0]}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, its image {image.path} "
                    f"has {width}x{height}"
                )
            share = float(mask.mean())
            if not share:
                empty.append(image.masks[0])
                image = replace(image, masks=())
            elif share > _MOST_MARKED:
                inverted.append(f"{image.masks[0]}: {100 * share:.0f} %")
        checked.append(image)
    remarks = []
    if inverted:
        remarks.append(
            f"{count(len(inverted), 'mask')} marked more than half of the image ({some(inverted)}). If these masks "
            "are inverted (the defect is black on white), the pixel measures are wrong. Then invert them, such as with "
            "`magick mogrify -negate FILE`, and evaluate again"
        )
    if empty:
        remarks.append(
            f"{count(len(empty), 'mask')} of defective images marked no pixel ({some(empty)}). Their images are left "
            "out of the pixel measures. Repair the masks, or move good images to the good ones"
        )
    return replace(category, test=tuple(checked)).with_remarks(*remarks)


def _numbers(content: bytes, path: str, limits: ImageLimits) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The numbers of an image as they are stored, [H, W] or [H, W, C]: 1 of 65535 is also a defect."""
    check_image(content, path, limits)
    try:
        return decode_numbers(content, path, limits)
    except UnsupportedImage:  # which says what to save it as
        raise
    except InvalidImage as exc:
        raise InvalidRequest(f"{path}: the mask cannot be decoded; it is damaged or not an image") from exc
