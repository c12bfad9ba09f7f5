"""Folders in MVTec layout: ``train/good``, ``test/<type>``, ``ground_truth/<type>/<name>_mask.png``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Data sets with more test images are large.
_LARGE = 200


@dataclass(frozen=True)
class Split:
    """Image files; `masks` has a file per defective image, or is empty where one of them lacks its own."""

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
    train = sorted(folder.glob("train/good/*"))
    if most_train is not None and len(train) > most_train:
        train = [train[index] for index in np.linspace(0, len(train) - 1, most_train).round().astype(int)]
    test = sorted(folder.glob("test/*/*"))
    test = test[::every] if len(test) > _LARGE else test
    good = [path for path in test if path.parent.name == "good"]
    defective = [path for path in test if path.parent.name != "good"]
    if not (train and good and defective):
        raise SystemExit(f"{folder}: train/good, test/good and test/<defect> have to hold images")
    masks = [folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png" for path in defective]
    return Split(folder, train, good, defective, masks if all(mask.exists() for mask in masks) else [])
