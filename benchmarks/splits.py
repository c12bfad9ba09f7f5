"""Fixed parts of data sets in MVTec layout, for measurements that do not take every image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.commands.evaluate.layouts import find_categories
from backend.common.errors import InvalidRequest

# Data sets with more test images are large.
_LARGE = 200


@dataclass(frozen=True)
class Split:
    """Image files; `masks` has a file per defective image, or is empty where one of them has none or several."""

    folder: Path
    train: list[Path]
    good: list[Path]
    defective: list[Path]
    masks: list[Path]

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.name


def open_split(folder: Path, most_train: int | None = None, every: int = 1) -> Split:
    """The images of a folder, or fixed parts of them.

    Args:
        folder: in MVTec layout.
        most_train: how many good images are fitted at most, at even steps; None is all.
        every: of more than 200 test images, every so many are taken.

    Raises:
        SystemExit: there is nothing to fit, or not both good and defective images to score.
    """
    try:
        category, *others = find_categories(str(folder))
    except InvalidRequest as exc:
        raise SystemExit(str(exc)) from exc
    if others:
        raise SystemExit(f"{folder}: several data sets; name each of them")
    train = sorted(Path(path) for path in category.train)
    if most_train is not None and len(train) > most_train:
        train = [train[index] for index in np.linspace(0, len(train) - 1, most_train).round().astype(int)]
    test = sorted(category.test, key=lambda image: Path(image.path))
    test = test[::every] if len(test) > _LARGE else test
    good = [Path(image.path) for image in test if not image.is_defective]
    defective = [Path(image.path) for image in test if image.is_defective]
    masks = [Path(image.masks[0]) for image in test if len(image.masks) == 1]
    return Split(folder, train, good, defective, masks if len(masks) == len(defective) else [])
