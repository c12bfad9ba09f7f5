"""Scenes of a camera: parts pasted into larger pictures without resampling, so that the crop of a ROI is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tests.factories import SHARED

Image = npt.NDArray[np.uint8]

TILES = SHARED / "data" / "magnetic_tile"
SIDE = 200
"""Of a part; parts are square."""
_SEEN = 60
"""Within so many pixels of the middle of a part, every ROI of the tests sees a defect."""
_LEAST_DEFECT = 500
_SCENE = (700, 560)
_MARGIN = 40


@dataclass(frozen=True)
class Parts:
    """Parts, uint8 [SIDE, SIDE, 3].

    Attributes:
        good: for the fit.
        bad: for the threshold.
        fresh_good, fresh_bad: for the inspection.
    """

    good: Sequence[Image]
    bad: Sequence[Image]
    fresh_good: Sequence[Image]
    fresh_bad: Sequence[Image]


def parts(n_good: int, n_bad: int, n_fresh: int) -> Parts:
    """Magnetic tiles where the data set is there, else drawn ones with the texture of ground steel."""
    good = list(_good_tiles(n_good + n_fresh)) if TILES.is_dir() else [drawn(seed) for seed in range(n_good + n_fresh)]
    bad = list(_bad_tiles(2 * n_bad)) if TILES.is_dir() else [drawn(seed, True) for seed in range(100, 100 + 2 * n_bad)]
    return Parts(good[:n_good], bad[:n_bad], good[n_good:], bad[n_bad:])


def _good_tiles(n: int) -> Iterator[Image]:
    for path in sorted((TILES / "train" / "good").iterdir()):
        tile = cv2.imread(str(path))
        if n and min(tile.shape[:2]) >= SIDE:
            n -= 1
            yield _window(tile, (tile.shape[0] // 2, tile.shape[1] // 2))


def _bad_tiles(n: int) -> Iterator[Image]:
    """Those with the largest defects that lie in the middle of a part."""
    found = []
    for path in sorted((TILES / "test").glob("b*/*")):
        tile, mask = cv2.imread(str(path)), _mask_of(path)
        rows, columns = np.nonzero(mask)
        if min(tile.shape[:2]) >= SIDE and len(rows) > _LEAST_DEFECT:
            part_mask = _window(mask, (int(rows.mean()), int(columns.mean())))
            middle = SIDE // 2
            seen = np.count_nonzero(part_mask[middle - _SEEN : middle + _SEEN, middle - _SEEN : middle + _SEEN])
            found.append((-seen, path.name, _window(tile, (int(rows.mean()), int(columns.mean())))))
    return (tile for _, _, tile in sorted(found, key=lambda one: one[:2])[:n])


def _mask_of(path: Path) -> Image:
    (mask,) = (TILES / "ground_truth" / path.parent.name).glob(f"{path.stem}*")
    return np.asarray(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), np.uint8)


def _window(image: Image, centre: tuple[int, int]) -> Image:
    """The part around a place, moved into the image where it would reach beyond it."""
    top, left = (min(max(at - SIDE // 2, 0), size - SIDE) for at, size in zip(centre, image.shape[:2], strict=True))
    return image[top : top + SIDE, left : left + SIDE]


def drawn(seed: int, is_bad: bool = False) -> Image:
    """Grooves and grain, and a dark pit in a bad one."""
    rng = np.random.default_rng(seed)
    grooves = cv2.resize(rng.normal(0, 14, (SIDE, 5)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    image = 120 + grooves + rng.normal(0, 5, (SIDE, SIDE))
    if is_bad:
        at = rng.integers(SIDE // 2 - 25, SIDE // 2 + 25, 2)
        cv2.ellipse(image, at.tolist(), (16, 9), float(rng.uniform(0, 180)), 0, 360, 25, -1)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


@dataclass(frozen=True)
class Place:
    """Where the parts of a recipe lie in its scenes.

    Attributes:
        x, y: of the left upper corner, pixels.
        quarters: by how many quarters of a turn the parts lie turned, clockwise.
    """

    x: int
    y: int
    quarters: int

    @classmethod
    def at_random(cls, rng: np.random.Generator, quarters: int) -> "Place":
        """Anywhere in a scene."""
        x, y = (int(rng.integers(_MARGIN, size - SIDE - _MARGIN)) for size in _SCENE)
        return cls(x, y, quarters)

    @property
    def centre(self) -> tuple[float, float]:
        """Of the part, in the console's coordinates."""
        return self.x + SIDE / 2, self.y + SIDE / 2

    def scene(self, part: Image, rng: np.random.Generator) -> Image:
        """A scene with this part, uint8 [560, 700, 3]; all else in it is another one in each scene."""
        width, height = _SCENE
        coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
        scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            centre = rng.integers(0, (width, height)).tolist()
            cv2.circle(scene, centre, int(rng.integers(10, 60)), rng.integers(0, 256, 3).tolist(), -1)
        scene[self.y : self.y + SIDE, self.x : self.x + SIDE] = np.rot90(part, -self.quarters)
        return np.asarray(scene, np.uint8)
