"""The tokens of scenes and of the tiles that see a planted defect, kept in files if wanted; see `benchmarks.detail`.

Files keep float16: distances change by less than 0.001. Without files, the tokens are float32.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend.features import DinoV2Features
from backend.tiles import Tile
from benchmarks.detail_scenes import Bgr, Defect, plant

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """Tokens of a data set's scenes at one detail.

    Attributes:
        features: the extractor, at this detail.
        folder: of the files of the data set; None keeps none.
    """

    features: DinoV2Features
    folder: Path | None

    @property
    def detail(self) -> int:
        """Tiles along each side."""
        return self.features.tiling.detail

    @property
    def grid_hw(self) -> tuple[int, int]:
        """The token grid (rows, columns)."""
        return self.features.token_hw

    def of_scene(self, name: str, scene: Bgr) -> Array:
        """The tokens of a scene, float32 [rows * columns, D].

        Args:
            name: of its file.
            scene: uint8 [H, W, 3], BGR.
        """
        return self._kept(name, lambda: self.features.extract(scene)[0])

    def of_defect(self, number: int, scene: Bgr, defect: Defect) -> Iterator[tuple[Tile, Array]]:
        """The tiles that see a defect, and the tokens that each gives, float32 [n, D].

        Args:
            number: of the scene.
            scene: without the defect, uint8 [H, W, 3], BGR.
            defect: what is planted.
        """
        features = self.features
        before, after = features.canvas(scene), features.canvas(plant(scene, defect))
        for place, tile in enumerate(features.tiling.tiles):
            pixels = features.pixels_of(after, tile)
            if not np.array_equal(pixels, features.pixels_of(before, tile)):
                name = f"clean{number}-{defect.kind.replace(' ', '-')}-{defect.size}-tile{place}"
                yield tile, self._kept(name, lambda pixels=pixels, tile=tile: self._of_tile(pixels, tile))

    def _of_tile(self, pixels: Array, tile: Tile) -> Array:
        return self.features.given(self.features.runtime.forward(pixels[None])[0], tile)

    def _kept(self, name: str, make: Callable[[], Array]) -> Array:
        if self.folder is None:
            return make()
        path = self.folder / str(self.detail) / f"{name}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")  # another process may make the same
            with partial.open("wb") as stream:
                np.save(stream, make().astype(np.float16))
            partial.replace(path)
        return np.load(path).astype(np.float32)
