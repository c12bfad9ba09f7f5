"""Recipes: everything between an image and its score that a lever can change. The default is the service's."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from backend.infer import to_image_grid
from backend.patchcore import PatchCoreMemory, l2_normalize
from benchmarks.levers.views import TokenFiles, View, read
from benchmarks.paired import Scores
from benchmarks.splits import Split

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
# Neighbours of a bank's patch that tell how dense the bank is around it, as in PatchCore's code.
_SUPPORT = 9
# An image of which less is foreground is taken as a whole.
_LEAST_FOREGROUND = 0.05

_PLAIN = View()
AS_IT_IS = ((0, False),)
MIRRORED = ((0, False), (0, True), (2, True))
TURNED = tuple((turns, False) for turns in range(4))
TURNED_AND_MIRRORED = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))

RULES: dict[str, Callable[[Array, Array], float]] = {
    # Each gets the distances of the tokens [T] and of the pixels [P], foreground only where it is told apart.
    **{f"p{percent:g}": lambda _, pixels, p=percent: _percentile(pixels, p) for percent in (95, 98, 99, 99.5, 99.9)},
    "maximum": lambda _, pixels: float(pixels.max()),
    "mean of the top 1 % of pixels": lambda _, pixels: _top(pixels, 0.01),
    "mean of the top 1 % of patches": lambda tokens, _: _top(tokens, 0.01),
    "mean of the top 2 % of patches": lambda tokens, _: _top(tokens, 0.02),
    "maximum of the patches": lambda tokens, _: float(tokens.max()),
}


@dataclass(frozen=True)
class Recipe:
    """How scores come about.

    Attributes:
        view: how images are shown to the network.
        blocks: whose tokens are used, 1..12; several are L2-normalised each and then joined.
        averaged: whether several blocks are averaged instead of concatenated.
        neighbourhood: side of the square of tokens that are averaged into each token.
        references: (quarter turns, mirrored) that every good image goes into the bank with.
        foreground: whether patches of the background are left out, in the bank and in the score.
        coreset_rate: share of the patches that the bank keeps.
        least_bank: patches that the bank keeps at least, if there are so many.
        neighbours: k, whose mean distance is a patch's distance.
        reweighted: whether distances are weighted by the density of the bank (PatchCore, equation 7).
        blur_sigma: Gaussian sigma on the map, in pixels.
        rule: how a map becomes a score.
    """

    view: View = _PLAIN
    blocks: tuple[int, ...] = (12,)
    averaged: bool = False
    neighbourhood: int = 1
    references: tuple[tuple[int, bool], ...] = AS_IT_IS
    foreground: bool = False
    coreset_rate: float = 0.02
    least_bank: int = 1
    neighbours: int = 1
    reweighted: bool = False
    blur_sigma: float = 1
    rule: str = "p99"

    @property
    def distances(self) -> "Recipe":
        """The part that decides the distances of tokens: equal parts, equal distances."""
        return replace(self, blur_sigma=1, rule="p99")

    @property
    def reference_views(self) -> list[View]:
        """The views of every good image."""
        return [replace(self.view, quarter_turns=turns, mirrored=mirrored) for turns, mirrored in self.references]


@dataclass(frozen=True)
class DataSet:
    """A split and the tokens of its images."""

    split: Split
    files: TokenFiles

    @property
    def test(self) -> list[Path]:
        """Good images, then defective ones."""
        return self.split.good + self.split.defective

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(rows, columns) of the test images in pixels."""
        return [read(path).shape[:2] for path in self.test]

    @cached_property
    def masks(self) -> list[Mask]:
        """Defective pixels of the test images, bool [H, W] each; of a split that has masks."""
        good = [np.zeros(size, bool) for size in self.sizes[: len(self.split.good)]]
        return good + [read(path)[:, :, 0] > 0 for path in self.split.masks]


@dataclass(frozen=True)
class Judged:
    """Distances of every test image's tokens, and what they cost.

    Attributes:
        distances: float32 [rows, columns] per test image.
        foreground: bool [rows, columns] per test image.
        bank: patches in the memory bank.
        search_ms: median per image, from tokens to distances.
    """

    distances: list[Array]
    foreground: list[Mask]
    bank: int
    search_ms: float


def judge(data_set: DataSet, recipe: Recipe, train: Sequence[Path] | None = None) -> Judged:
    """Build the bank and search it for every test image.

    Args:
        data_set: the images.
        recipe: how.
        train: good images of the bank; None is all of them.
    """
    tokens = [
        joined_tokens(data_set.files, path, view, recipe)
        for path in (data_set.split.train if train is None else train)
        for view in recipe.reference_views
    ]
    foreground = Foreground(tokens) if recipe.foreground else None
    flat = np.concatenate(
        [own.reshape(-1, own.shape[-1]) if foreground is None else own[foreground.of(own)] for own in tokens]
    )
    grid = tokens[0].shape[:2]
    del tokens
    rate = min(1, max(recipe.coreset_rate, recipe.least_bank / len(flat)))
    memory = PatchCoreMemory.build(flat, grid, rate)
    search = Search(memory, recipe)
    distances, masks, milliseconds = [], [], []
    for path in data_set.test:
        raw = raw_tokens(data_set.files, path, recipe.view, recipe)
        start = time.perf_counter()
        own = joined(raw, recipe)
        masks.append(np.ones(own.shape[:2], bool) if foreground is None else foreground.of(own))
        distances.append(search.distances(own.reshape(-1, own.shape[-1])).reshape(own.shape[:2]))
        milliseconds.append(1000 * (time.perf_counter() - start))
    return Judged(distances, masks, len(memory.embeddings), statistics.median(milliseconds))


def maps(data_set: DataSet, judged: Judged, recipe: Recipe) -> Iterator[tuple[Array, Mask]]:
    """Distance maps float32 [H, W] on the pixels of the test images, and which pixels are foreground, bool [H, W]."""
    for distances, foreground, size in zip(judged.distances, judged.foreground, data_set.sizes, strict=True):
        kept = cv2.resize(foreground.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        yield to_image_grid(distances, size, recipe.blur_sigma), kept


def score(data_set: DataSet, judged: Judged, recipes: Sequence[Recipe]) -> list[Scores]:
    """Image scores by the rules of recipes that share `judged` and the blur."""
    rows = []
    for distances, foreground, (pixels, kept) in zip(
        judged.distances, judged.foreground, maps(data_set, judged, recipes[0]), strict=True
    ):
        rows.append([RULES[recipe.rule](distances[foreground], pixels[kept]) for recipe in recipes])
    n_good = len(data_set.split.good)
    return [Scores(column[:n_good], column[n_good:]) for column in np.array(rows, np.float64).T]


class Search:
    """Distances to a memory bank, as a recipe wants them."""

    def __init__(self, memory: PatchCoreMemory, recipe: Recipe) -> None:
        self._memory = memory
        self._recipe = recipe
        self._bank = memory.embeddings
        if recipe.reweighted:
            self._support = memory.index.nearest(self._bank, min(_SUPPORT, len(self._bank)))[1]

    def distances(self, embeddings: Array) -> Array:
        """Float32 [T] of embeddings [T, D], not necessarily normalised."""
        if self._recipe.neighbours == 1 and not self._recipe.reweighted:
            return self._memory.distances(embeddings)
        queries = l2_normalize(embeddings)
        squared, rows = self._memory.index.nearest(queries, min(self._recipe.neighbours, len(self._bank)))
        distances = np.sqrt(np.maximum(squared, 0)).mean(axis=1)
        if self._recipe.reweighted:
            support = self._bank[self._support[rows[:, 0]]]  # [T, 9, D]
            to_support = np.linalg.norm(queries[:, None] - support, axis=2)
            distances *= 1 - np.exp(distances) / np.exp(to_support).sum(axis=1)
        return np.asarray(distances, np.float32)


class Foreground:
    """Tells the part from its background by the first principal component of the good images' patches.

    As AnomalyDINO does (Damm et al., 2025, arXiv:2405.14529), but with one component and Otsu's threshold for the ROI
    instead of one per image. The side that fewer patches at the border are on is the foreground.

    Args:
        tokens: float32 [rows, columns, D] of every good image.
    """

    def __init__(self, tokens: Sequence[Array]) -> None:
        flat = np.concatenate([own.reshape(-1, own.shape[-1]) for own in tokens])[:: max(1, len(tokens) // 8)]
        self._mean = flat.mean(axis=0)
        centred = flat - self._mean
        _, vectors = np.linalg.eigh(centred.T @ centred)
        self._axis = vectors[:, -1].astype(np.float32)
        along = centred @ self._axis
        low, high = float(along.min()), float(along.max())
        levels = np.uint8(np.rint((along - low) / (high - low) * 255))
        self._threshold = low + cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0] / 255 * (high - low)
        self._sign = 1
        border = np.concatenate([self._above(own)[_border(own.shape[:2])] for own in tokens])
        if border.mean() > np.concatenate([self._above(own).ravel() for own in tokens]).mean():
            self._sign = -1

    def of(self, tokens: Array) -> Mask:
        """Bool [rows, columns] of tokens [rows, columns, D]; all of it where there is hardly any foreground."""
        found = self._above(tokens)
        return found if found.mean() >= _LEAST_FOREGROUND else np.ones_like(found)

    def _above(self, tokens: Array) -> Mask:
        return np.asarray(self._sign * ((tokens - self._mean) @ self._axis - self._threshold) > 0)


def joined_tokens(files: TokenFiles, path: Path, view: View, recipe: Recipe) -> Array:
    """Embeddings float32 [rows, columns, D] of an image, not normalised."""
    return joined(raw_tokens(files, path, view, recipe), recipe)


def raw_tokens(files: TokenFiles, path: Path, view: View, recipe: Recipe) -> list[Array]:
    """Tokens float32 [rows, columns, D] of each block of a recipe."""
    files.extract(path, view, recipe.blocks)
    height, width = read(path).shape[:2] if view.keeps_aspect else (1, 1)
    grid = view.grid_hw((width, height) if view.quarter_turns % 2 else (height, width))
    return [files.tokens(path, view, block).reshape(*grid, -1) for block in recipe.blocks]


def joined(tokens: Sequence[Array], recipe: Recipe) -> Array:
    """Blocks joined and neighbours averaged, float32 [rows, columns, D]."""
    own = tokens[0]
    if len(tokens) > 1:
        normalised = [l2_normalize(one.reshape(-1, one.shape[-1])).reshape(one.shape) for one in tokens]
        own = np.mean(normalised, axis=0) if recipe.averaged else np.concatenate(normalised, axis=2)
    if recipe.neighbourhood > 1:
        side = recipe.neighbourhood
        own = uniform_filter(own, (side, side, 1), mode="nearest")
    return np.asarray(own, np.float32)


def _percentile(values: Array, percent: float) -> float:
    return float(np.percentile(values, percent))


def _top(values: Array, share: float) -> float:
    """Mean of the largest values: that share of them, at least one."""
    count = math.ceil(share * len(values))
    return float(np.partition(values, len(values) - count)[-count:].mean())


def _border(grid_hw: tuple[int, ...]) -> Mask:
    border = np.ones(grid_hw, bool)
    border[1:-1, 1:-1] = False
    return border
