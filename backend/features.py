"""The frozen extractor: ROI image → patch embeddings. Owns preprocessing; the runtimes only run the network."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from backend.common.arrays import Embeddings, Pixels
from backend.common.errors import NonFiniteEmbeddings
from backend.common.telemetry import stage
from backend.tiles import Tile, Tiling

RunNetwork = Callable[[Pixels], Embeddings]

IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # RGB
IMAGENET_STD = np.array((0.229, 0.224, 0.225), np.float32)
# What each of the 256 levels becomes, float32 [3, 256], RGB. After shrinking there are no others.
_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
_NORMALISED = (_LEVELS - IMAGENET_MEAN[:, None]) / IMAGENET_STD[:, None]
# Name of the steps in `preprocess`; memory banks record it, so change it with them.
PREPROCESSING = "stretch-area-linear/imagenet"


class Runtime(Protocol):
    """A frozen ViT at a fixed input size."""

    @property
    def name(self) -> str:
        """``"openvino"`` or ``"torch"``."""
        ...

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        ...

    @property
    def precision(self) -> str:
        """The number format of the network: ``"float32"``, ``"bfloat16"``, ``"int8"`` or ``"float16"``."""
        ...

    @property
    def block(self) -> int | str | None:
        """The block, from 1, after which the network ends; None is the last one; several as in ``"9+10+11+12"``."""
        ...

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patch tokens the network returns, (rows, columns)."""
        ...

    @property
    def dim(self) -> int:
        """Length of one patch token."""
        ...

    @property
    def batch(self) -> int:
        """Images per forward pass if many wait, as in a fit."""
        ...

    def forward(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the network; one call at a time.

        Args:
            pixels: float32 [B, 3, S, S], RGB, normalised with ImageNet mean and standard deviation.

        Returns:
            float32 [B, rows * columns, dim]: the patch tokens after `block` and the final norm, row by row,
            prefix tokens dropped, not L2-normalised; of several blocks side by side.
        """
        ...


@dataclass(frozen=True)
class ExtractorIdentity:
    """Everything that determines the value of an embedding. Memory banks of different identities are never compared.

    Attributes:
        model, weights_sha256, input_size, precision: of the network.
        preprocessing: see `PREPROCESSING`.
        block: see `Runtime`.
        detail: tiles along each side of the ROI; None is 1.
    """

    model: str
    weights_sha256: str
    input_size: int
    preprocessing: str
    precision: str
    block: int | str | None = None
    detail: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for storage; without ``block`` if it is the last, and without ``detail`` if it is 1."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class DinoV2Features:
    """DINOv2 patch embeddings of ROI images (Oquab et al., 2023, arXiv:2304.07193).

    Args:
        runtime: runs the network.
        model_name: timm name of the network, for the identity.
        weights_sha256: hash of its weights, for the identity.
        input_size: side of the network input in pixels.
        detail: tiles along each side of the ROI, each of which the network sees at its full size; see `Tiling`.
    """

    def __init__(
        self, runtime: Runtime, model_name: str, weights_sha256: str, input_size: int, detail: int = 1
    ) -> None:
        self.runtime = runtime
        self.input_size = input_size
        self.tiling = Tiling(detail, runtime.grid_hw)
        # float32 is one answer; below it every runtime rounds in places of its own.
        precision = runtime.precision if runtime.precision == "float32" else f"{runtime.precision}/{runtime.name}"
        self.identity = ExtractorIdentity(
            model_name,
            weights_sha256,
            input_size,
            PREPROCESSING,
            precision,
            runtime.block,
            None if detail == 1 else detail,
        )

    def at(self, detail: int) -> "DinoV2Features":
        """The same network over so many tiles along each side of the ROI."""
        if detail == self.tiling.detail:
            return self
        known = self.identity
        return DinoV2Features(self.runtime, known.model, known.weights_sha256, self.input_size, detail)

    @property
    def token_hw(self) -> tuple[int, int]:
        """The token grid (rows, columns), the same for every image."""
        return self.tiling.grid_hw

    @property
    def dim(self) -> int:
        """Length of one embedding."""
        return self.runtime.dim

    @property
    def canvas_side(self) -> int:
        """Side of the square that an image is stretched to, in pixels: what all tiles together see."""
        return self.token_hw[0] * (self.input_size // self.runtime.grid_hw[0])

    def canvas(self, image: npt.NDArray[np.uint8]) -> Pixels:
        """An image as the tiles are cut from it.

        Args:
            image: uint8 [H, W, 3], BGR, any size.

        Returns:
            float32 [3, canvas_side, canvas_side], see `preprocess`.
        """
        return preprocess(image, self.canvas_side)

    def pixels_of(self, canvas: Pixels, tile: Tile) -> Pixels:
        """What the network sees of a tile: float32 [3, S, S], C-contiguous."""
        patch = self.input_size // self.runtime.grid_hw[0]
        top, left = (start * patch for start in tile.start)
        return np.ascontiguousarray(canvas[:, top : top + self.input_size, left : left + self.input_size])

    def given(self, tokens: Embeddings, tile: Tile) -> Embeddings:
        """Of the tokens of a tile, float32 [T, D], those that it gives, row by row: float32 [n, D]."""
        of_tile = tokens.reshape(*self.runtime.grid_hw, -1)[tile.own]
        return of_tile.reshape(-1, tokens.shape[-1])

    def each_tile(
        self, image: npt.NDArray[np.uint8], run: RunNetwork | None = None, tiles: Iterable[int] | None = None
    ) -> Iterator[tuple[Tile, Embeddings]]:
        """Embed one ROI image, a tile at a time: others who share the network get it in between.

        Args:
            image: uint8 [H, W, 3], BGR, any size.
            run: runs the network where it is shared, float32 [3, S, S] → [T, D]; None runs it at once.
            tiles: numbers of those that are wanted; None is all.

        Yields:
            The tile, and the tokens that it gives: float32 [n, D], row by row, not L2-normalised.

        Raises:
            NonFiniteEmbeddings: see `require_finite`.
        """
        with stage("preprocess"):
            canvas = self.canvas(image)
        for tile in self.tiling.tiles if tiles is None else [self.tiling.tiles[number] for number in tiles]:
            pixels = self.pixels_of(canvas, tile)
            tokens = self.runtime.forward(pixels[None])[0] if run is None else run(pixels)
            require_finite(tokens)
            yield tile, self.given(tokens, tile)

    def extract(
        self, image: npt.NDArray[np.uint8], run: RunNetwork | None = None
    ) -> tuple[Embeddings, tuple[int, int]]:
        """Embed one ROI image.

        Args:
            image: uint8 [H, W, 3], BGR, any size.
            run: see `each_tile`.

        Returns:
            embeddings: float32 [rows * columns, D], row by row, not L2-normalised.
            token_hw: (rows, columns).

        Raises:
            NonFiniteEmbeddings: see `require_finite`.
        """
        embeddings = np.empty((*self.token_hw, self.dim), np.float32)
        for tile, tokens in self.each_tile(image, run):
            part = embeddings[tile.rows, tile.columns]
            part[:] = tokens.reshape(part.shape)
        return embeddings.reshape(-1, self.dim), self.token_hw


def require_finite(embeddings: Embeddings) -> None:
    """Check that no number overflowed: a NaN would hide its part of the distance map from the score.

    Raises:
        NonFiniteEmbeddings: one of them is NaN or infinite.
    """
    if not np.isfinite(embeddings).all():
        raise NonFiniteEmbeddings("the network gave numbers that are not finite; use PRECISION=float32")


def preprocess(image: npt.NDArray[np.uint8], input_size: int) -> npt.NDArray[np.float32]:
    """Stretch to ``input_size``², BGR → RGB, ImageNet mean and standard deviation.

    Stretches by area averaging along an axis that shrinks and bilinearly along one that grows. Never crops and never
    letterboxes: a token covers the same share of the ROI in both directions, and the distance map is mapped back by the
        inverse stretch.

    Args:
        image: uint8 [H, W, 3], BGR.

    Returns:
        float32 [3, input_size, input_size].
    """
    height, width = image.shape[:2]
    shrunk = cv2.resize(image, (min(width, input_size), min(height, input_size)), interpolation=cv2.INTER_AREA)
    pixels = np.empty((3, input_size, input_size), np.float32)
    for plane, levels, target in zip(reversed(cv2.split(shrunk)), _NORMALISED, pixels, strict=True):
        if plane.shape == target.shape:
            cv2.LUT(plane, levels, dst=target)
        else:  # grown in float32: slopes would become steps of whole grey levels, which the network sees
            cv2.resize(cv2.LUT(plane, levels), target.shape, dst=target, interpolation=cv2.INTER_LINEAR)
    return pixels
