"""Images → patch tokens, as the service extracts them or otherwise; each is extracted once and kept in files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from safetensors.numpy import load_file

from backend.features import IMAGENET_MEAN, IMAGENET_STD, PREPROCESSING
from backend.network.openvino_library import op, ov
from backend.network.runtimes import openvino as vit
from backend.network.runtimes.openvino import BLOCKS, PATCH
from backend.network.weights import Weights

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
# Networks for different grids are kept compiled, some 100 MB each.
_MOST_COMPILED = 4


@dataclass(frozen=True)
class View:
    """How an image is shown to the network. The default is the service's.

    Attributes:
        side: pixels per side of the input; the token grid has some (side / 14)² tokens.
        keeps_aspect: the token grid has the image's aspect ratio and the same number of tokens; else it is square.
        quarter_turns: how often the image is turned by 90° to the left, 0..3.
        mirrored: whether it is mirrored, left to right, before it is turned.
    """

    side: int = 448
    keeps_aspect: bool = False
    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def name(self) -> str:
        """Folder of its tokens."""
        return f"{self.side}{'-aspect' * self.keeps_aspect}{'-mirror' * self.mirrored}-turn{self.quarter_turns}"

    def grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Token grid (rows, columns) of an image of that size."""
        tokens = self.side // PATCH
        if not self.keeps_aspect:
            return tokens, tokens
        rows = max(1, round(tokens * (image_hw[0] / image_hw[1]) ** 0.5))
        return rows, max(1, round(tokens**2 / rows))

    def show(self, image: Image) -> Array:
        """What the network gets of an image uint8 [H, W, 3], BGR: float32 [3, rows * 14, columns * 14]."""
        image = np.rot90(image[:, ::-1] if self.mirrored else image, self.quarter_turns)
        rows, columns = self.grid_hw(image.shape[:2])
        return stretch(np.ascontiguousarray(image), (rows * PATCH, columns * PATCH))


class TokenFiles:
    """Patch tokens of a data set's images, extracted when they are first asked for.

    Args:
        data_set: folder that the images' paths are relative to.
        folder: holds a file per image, view and block; a folder per network, preprocessing and data set.
        network: gives tokens that no file holds yet.
    """

    def __init__(self, data_set: Path, folder: Path, network: "Network") -> None:
        self._data_set = data_set
        self._folder = folder / network.name / PREPROCESSING.replace("/", "-") / data_set.name
        self._network = network

    def extract(self, image: Path, view: View, blocks: Sequence[int]) -> None:
        """See that the files of these blocks exist."""
        missing = [block for block in blocks if not self._file(image, view, block).exists()]
        if not missing:
            return
        tokens = self._network.tokens(view.show(read(image)), missing)
        for block, own in zip(missing, tokens, strict=True):
            file = self._file(image, view, block)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}")  # another process may extract the same
            with partial.open("wb") as stream:
                np.save(stream, own)
            partial.replace(file)

    def tokens(self, image: Path, view: View, block: int) -> Array:
        """Tokens float32 [rows * columns, D] of one image after a block, 1..12, and the final norm."""
        self.extract(image, view, [block])
        return np.asarray(np.load(self._file(image, view, block)), np.float32)

    def _file(self, image: Path, view: View, block: int) -> Path:
        return self._folder / view.name / f"block{block}" / image.relative_to(self._data_set).with_suffix(".npy")


class Network:
    """The service's network on OpenVINO, for token grids of any shape, and with the tokens of any block.

    Args:
        weights: as the service finds them.
        precision: ``"float32"`` or ``"bfloat16"``, as the service's ``PRECISION``.
    """

    def __init__(self, weights: Weights, precision: str = "float32") -> None:
        self.name = f"{weights.sha256[:16]}-{precision}"
        self._tensors = load_file(weights.path)
        self._precision = precision
        self._compiled: dict[tuple[tuple[int, int], tuple[int, ...]], ov.InferRequest] = {}

    def tokens(self, pixels: Array, blocks: Sequence[int] = (BLOCKS,)) -> list[Array]:
        """Patch tokens float32 [rows * columns, D] after each of the blocks, 1..12, and the final norm.

        Args:
            pixels: float32 [3, rows * 14, columns * 14], preprocessed.
            blocks: in rising order.
        """
        grid_hw = (pixels.shape[1] // PATCH, pixels.shape[2] // PATCH)
        key = (grid_hw, tuple(blocks))
        if key not in self._compiled:
            if len(self._compiled) == _MOST_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
            model = _build(self._tensors, grid_hw, blocks, self._precision)
            hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
            self._compiled[key] = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
        found = self._compiled[key].infer([pixels[None]])
        return [np.array(found[index][0]) for index in range(len(blocks))]


def _build(weights: vit.Tensors, grid_hw: tuple[int, int], blocks: Sequence[int], precision: str) -> ov.Model:
    """`backend.network.runtimes.openvino.build_vit`, for a grid of any shape and with an output per block."""
    rows, columns = grid_hw
    n_patches = rows * columns
    products = vit.FloatProducts(ov.Type.bf16 if precision == "bfloat16" else None)
    pixels = op.parameter([1, 3, rows * PATCH, columns * PATCH], np.float32)
    patches = op.convolution(
        pixels, vit._constant(weights["patch_embed.proj.weight"]), [PATCH, PATCH], [0, 0], [0, 0], [1, 1]
    )
    patches = op.transpose(op.reshape(patches, vit._shape(1, vit.DIM, n_patches), False), vit._shape(0, 2, 1))
    position = resample_position_grid(weights["pos_embed"], grid_hw)
    tokens = op.add(patches, vit._constant(position[:, 1:] + weights["patch_embed.proj.bias"]))
    tokens = op.concat([vit._constant(weights["cls_token"] + position[:, :1]), tokens], 1)
    outputs = []
    for index in range(max(blocks)):
        block = f"blocks.{index}."
        tokens = op.add(tokens, vit._attention(tokens, weights, block, n_patches + 1, products))
        tokens = op.add(tokens, vit._mlp(tokens, weights, block, products))
        if index + 1 in blocks:
            normed = vit._layer_norm(tokens, weights, "norm")
            ends = vit._shape(1), vit._shape(n_patches + 1), vit._shape(1), vit._shape(1)
            outputs.append(op.slice(normed, *ends))
    return ov.Model(outputs, [pixels], "dinov2_vits14")


def resample_position_grid(pos_embed: Array, grid_hw: tuple[int, int]) -> Array:
    """What the service does to the position grid, for a grid of any shape: float32 [1, 1 + rows * columns, D]."""
    prefix, grid = pos_embed[:, :1], pos_embed[0, 1:]
    trained = round(len(grid) ** 0.5)
    if grid_hw == (trained, trained):
        return pos_embed
    channels = grid.reshape(trained, trained, -1).transpose(2, 0, 1)
    resized = [np.asarray(PIL.Image.fromarray(c).resize(grid_hw[::-1], PIL.Image.Resampling.BICUBIC)) for c in channels]
    flat = np.stack(resized, axis=-1).reshape(1, grid_hw[0] * grid_hw[1], -1)
    return np.concatenate([prefix, flat], axis=1)


def stretch(image: Image, size_hw: tuple[int, int]) -> Array:
    """What `backend.features.preprocess` does, to any size.

    Args:
        image: uint8 [H, W, 3], BGR.
        size_hw: (rows, columns) in pixels.

    Returns:
        float32 [3, *size_hw], RGB, normalised.
    """
    height, width = size_hw
    shrunk = cv2.resize(image, (min(image.shape[1], width), min(image.shape[0], height)), interpolation=cv2.INTER_AREA)
    normalised = (shrunk[:, :, ::-1].astype(np.float32) / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD
    grown = cv2.resize(normalised, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(grown.transpose(2, 0, 1))


def read(path: Path) -> Image:
    """An image file on its own pixel grid, uint8 [H, W, 3], BGR."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert image is not None, f"{path} is no image"
    return np.asarray(image, np.uint8)
