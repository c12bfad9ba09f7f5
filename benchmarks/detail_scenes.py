"""Scenes of 2448×2048 pixels made of real good parts without resampling, and small defects planted into them.

A scene is a tray: cells of one size, row by row, each a crop of one image, mirrored at random; the cells at the right
and at the lower edge may be cut by it. The good images of a data set are split into those that fit scenes show and
those that test scenes show. Each is shown about as often as any other.
See `benchmarks.detail`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.splits import open_split

Bgr = npt.NDArray[np.uint8]

SCENE_HW = (2048, 2448)
SIZES = (8, 12, 16, 24, 32, 48)
KINDS = ("spot", "scratch", "missing texture")
# Pixels that the centre of a defect keeps from the border of the scene.
_MARGIN = 48
# A spot or a scratch differs by so many grey levels from its surroundings, and is brighter on those below the first
# level and darker on those above the second.
_CONTRAST = 55
_DARK, _BRIGHT = 75, 180
_CELL_HW = {"elpv_mono": (300, 300), "magnetic_tile": (256, 204), "hazelnut": (512, 408)}
_OTHER_CELL_HW = (256, 256)


@dataclass(frozen=True)
class Defect:
    """A planted defect.

    Attributes:
        kind: one of `KINDS`.
        size: pixels, the diameter of a spot or of a patch without texture, the length of a scratch.
        x, y: its centre.
        angle: of a scratch, radians.
        sign: 1 is brighter than its surroundings and -1 darker, where they are neither bright nor dark.
    """

    kind: str
    size: int
    x: int
    y: int
    angle: float
    sign: int


@dataclass(frozen=True)
class Tray:
    """The good parts of a data set.

    Attributes:
        name: of the data set.
        cell_hw: rows and columns of a cell.
        fit, test: images, uint8 [H, W, 3], BGR, at least as large as a cell; no image is in both.
    """

    name: str
    cell_hw: tuple[int, int]
    fit: list[Bgr]
    test: list[Bgr]

    @classmethod
    def open(cls, folder: Path) -> "Tray":
        """Split the good images of a folder in MVTec layout, always alike.

        Raises:
            SystemExit: fewer than four are as large as a cell.
        """
        split = open_split(folder)
        height, width = _CELL_HW.get(split.name, _OTHER_CELL_HW)
        images = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in sorted([*split.train, *split.good])]
        large = [np.asarray(i, np.uint8) for i in images if i is not None and i.shape[0] >= height]
        large = [image for image in large if image.shape[1] >= width]
        if len(large) < 4:
            raise SystemExit(f"{folder}: fewer than four good images of {width}×{height} pixels")
        order = np.random.default_rng(0).permutation(len(large))
        half = len(large) // 2
        return cls(split.name, (height, width), [large[n] for n in order[:half]], [large[n] for n in order[half:]])

    def fit_scenes(self, count: int) -> list[Bgr]:
        """Scenes of the images for fits."""
        return _scenes(self.fit, self.cell_hw, count, np.random.default_rng(1))

    def test_scenes(self, count: int) -> list[Bgr]:
        """Scenes of the other images."""
        return _scenes(self.test, self.cell_hw, count, np.random.default_rng(2))


def _scenes(images: Sequence[Bgr], cell_hw: tuple[int, int], count: int, rng: np.random.Generator) -> list[Bgr]:
    (height, width), (cell_height, cell_width) = SCENE_HW, cell_hw
    rows, columns = -(-height // cell_height), -(-width // cell_width)
    scenes, waiting = [], list[int]()
    for _ in range(count):
        scene = np.empty((rows * cell_height, columns * cell_width, 3), np.uint8)
        for cell in range(rows * columns):
            waiting = waiting or rng.permutation(len(images)).tolist()
            image = images[waiting.pop()]
            y = int(rng.integers(image.shape[0] - cell_height + 1))
            x = int(rng.integers(image.shape[1] - cell_width + 1))
            crop = image[y : y + cell_height, x : x + cell_width]
            crop = crop[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
            row, column = divmod(cell, columns)
            top, left = row * cell_height, column * cell_width
            scene[top : top + cell_height, left : left + cell_width] = crop
        scenes.append(np.ascontiguousarray(scene[:height, :width]))
    return scenes


def defects_of(number: int) -> list[Defect]:
    """A defect of each kind and size at random places, for a scene of that number."""
    rng = np.random.default_rng([3, number])
    defects = []
    for kind in KINDS:
        for size in SIZES:
            y, x = (int(rng.integers(_MARGIN, side - _MARGIN)) for side in SCENE_HW)
            defects.append(Defect(kind, size, x, y, float(rng.uniform(0, np.pi)), int(rng.choice((-1, 1)))))
    return defects


def plant(scene: Bgr, defect: Defect) -> Bgr:
    """The scene with one defect.

    Args:
        scene: uint8 [2048, 2448, 3], BGR.
        defect: what and where.
    """
    pixels, x, y = scene.copy(), defect.x, defect.y
    reach = defect.size + 8
    own = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    window = pixels[own].astype(np.float32)
    centre = (x - own[1].start, y - own[0].start)
    soft = np.asarray(cv2.GaussianBlur(_shape(window.shape[:2], defect, centre), (0, 0), 0.8))[..., None]
    if defect.kind == "missing texture":
        window += soft * (np.asarray(cv2.GaussianBlur(window, (0, 0), defect.size / 2)) - window)
    else:
        level = float(window[soft[..., 0] > 0.5].mean())
        sign = 1 if level < _DARK else -1 if level > _BRIGHT else defect.sign
        window += soft * np.float32(sign * _CONTRAST)
    pixels[own] = np.clip(np.rint(window), 0, 255)
    return pixels


def _shape(window_hw: tuple[int, int], defect: Defect, centre: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Where a defect is, float32 0..1 [H, W]."""
    shape, size = np.zeros(window_hw, np.float32), defect.size
    if defect.kind == "scratch":
        dx, dy = np.cos(defect.angle) * (size - 1) / 2, np.sin(defect.angle) * (size - 1) / 2
        ends = [(round(centre[0] + sign * dx), round(centre[1] + sign * dy)) for sign in (-1, 1)]
        cv2.line(shape, ends[0], ends[1], 1.0, 2, cv2.LINE_AA)
    else:
        # In sixteenths of a pixel, so that the diameter is the size.
        cv2.circle(shape, (centre[0] << 4, centre[1] << 4), size << 3, 1.0, -1, cv2.LINE_AA, 4)
    return shape
