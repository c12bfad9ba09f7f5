"""How a ROI is looked at in tiles that overlap: which tokens each tile gives, and which tiles a mask hides."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MOST_DETAIL = 5
# Share of a tile's tokens that it gives to its neighbour on each side that has one: those lack what lies beyond the
# border. Two of 32.
_MARGIN_SHARE = 16
# Beyond which OpenCV's Gaussian blur of float32 has no weight, in sigmas; a pixel more for its rounding.
_BLUR_REACH = 4

GridHw = tuple[int, int]
Places = npt.NDArray[np.int64]


def detail_of(metadata: Mapping[str, Any]) -> int:
    """The detail of a memory bank, by what was recorded with it; 1 where that is nothing, or no detail."""
    extractor = metadata.get("extractor")
    recorded = extractor.get("detail") if isinstance(extractor, Mapping) else None
    return recorded if type(recorded) is int and 1 <= recorded <= MOST_DETAIL else 1


class Tile(NamedTuple):
    """A square of the ROI that the network sees at its full size.

    Attributes:
        start: (row, column) of its first token in the ROI's token grid.
        rows, columns: of the tokens that it gives, in the ROI's token grid.
    """

    start: tuple[int, int]
    rows: slice
    columns: slice

    @property
    def own(self) -> tuple[slice, slice]:
        """Rows and columns of the tokens that it gives, in its own token grid."""
        (row, column), rows, columns = self
        return slice(rows.start - row, rows.stop - row), slice(columns.start - column, columns.stop - column)


@dataclass(frozen=True)
class Tiling:
    """The ROI's token grid, made of ``detail x detail`` tiles.

    Neighbours overlap. Of the tokens that both have, each gives those on its own side of the middle, so every token of
    the grid is given once, and none comes from a border of a tile inside the ROI. With detail 1 the tile is the ROI.

    Attributes:
        detail: tiles along each side, 1..5.
        tile_hw: token grid of a tile (rows, columns).
    """

    detail: int
    tile_hw: GridHw

    @property
    def grid_hw(self) -> GridHw:
        """The ROI's token grid (rows, columns)."""
        rows, columns = (_tokens(self.detail, size) for size in self.tile_hw)
        return rows, columns

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, row by row."""
        down, across = (_along(self.detail, size) for size in self.tile_hw)
        return tuple(Tile((row, column), rows, columns) for row, rows in down for column, columns in across)

    def places(self, tiles: Iterable[int]) -> Places:
        """Where the tokens of some tiles stand in the ROI's token grid.

        Args:
            tiles: their numbers.

        Returns:
            int64 [K], rising, row times columns plus column.
        """
        has_tokens = np.zeros(self.grid_hw, np.bool_)
        for number in tiles:
            tile = self.tiles[number]
            has_tokens[tile.rows, tile.columns] = True
        return np.flatnonzero(has_tokens)

    def within(self, mask: npt.NDArray[np.bool_] | None, blur_sigma: float) -> list[int]:
        """The tiles that a mask does not hide altogether: those whose tokens reach a pixel of it.

        Args:
            mask: bool [H, W], or None for every pixel.
            blur_sigma: Gaussian sigma on the distance map, in pixels, which carries distances further.

        Returns:
            Their numbers, rising.
        """
        if mask is None:
            return list(range(len(self.tiles)))
        blurred = math.ceil(_BLUR_REACH * blur_sigma) + 1
        found = []
        for number, tile in enumerate(self.tiles):
            rows, columns = (
                _pixels(tokens, n_tokens, size, blurred)
                for tokens, n_tokens, size in zip((tile.rows, tile.columns), self.grid_hw, mask.shape, strict=True)
            )
            if mask[rows, columns].any():
                found.append(number)
        return found


def _margin(tile: int) -> int:
    """Tokens that a tile of so many leaves to a neighbour."""
    return min(max(1, tile // _MARGIN_SHARE), (tile - 1) // 2)


def _tokens(detail: int, tile: int) -> int:
    return detail * tile - (detail - 1) * 2 * _margin(tile)


def _along(detail: int, tile: int) -> list[tuple[int, slice]]:
    """Of the tiles along a side: the first token, and the tokens that each gives."""
    margin, step, end = _margin(tile), tile - 2 * _margin(tile), _tokens(detail, tile)
    starts = [number * step for number in range(detail)]
    cuts = [0, *(start + margin for start in starts[1:]), end]
    return [(start, slice(*cut)) for start, cut in zip(starts, itertools.pairwise(cuts), strict=True)]


def _pixels(tokens: slice, n_tokens: int, size: int, blurred: int) -> slice:
    """The pixels that some tokens along a side reach: up to the next token's middle, and as far as a blur carries."""
    first, last = (tokens.start - 1) * size / n_tokens, (tokens.stop + 1) * size / n_tokens
    return slice(max(0, math.floor(first) - blurred), math.ceil(last) + blurred)
