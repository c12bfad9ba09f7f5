"""The memory banks of several blocks: selection, landings on their patches, and honest distances."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from backend.bank.leave_one_out import (
    MOST_PRODUCTS,
    NO_COSINE,
    PRODUCTS_AT_ONCE,
    HeldOut,
    hold_out,
    last_distance,
    owners,
)
from backend.bank.leave_one_out_sample import choose_sample, hold_out_sample
from backend.block_memory import BlockMemory, Landings, block_parts, build_banks
from backend.common.arrays import Embeddings
from backend.common.telemetry import OnProgress
from backend.patchcore import PatchCoreMemory, distance_of_cosine

Turn = Callable[[], AbstractContextManager[object]]
Distances = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# Two ways to the same distance differ by less; a patch that a bank of the others would gain is nearer by more.
_SAME_DISTANCE = np.float32(1e-3)
_MOST_DISTANCE = np.float32(2.001)


@dataclass(frozen=True)
class BlockBase:
    """The model that a fit of several blocks appends to.

    Attributes:
        memory: its banks.
        covering_radii: of each.
        n_images: how many images it was built from.
    """

    memory: BlockMemory
    covering_radii: Sequence[float]
    n_images: int


@dataclass(frozen=True)
class _OfBlock:
    """The result of a fit for one block.

    Attributes:
        bank, landings, covering_radius: see `BlockMemory` and `BlockBase`.
        held_out: see `hold_out`; of a sample of the images if all would have taken too long.
        distances: float32 [n_images, patches per image], honest distances minus excess radii, of the images of
            `held_out`; None if there are none.
    """

    bank: PatchCoreMemory
    landings: Landings
    covering_radius: float
    held_out: HeldOut
    distances: Distances | None


def build_block_bank(
    embeddings: Embeddings,
    n_blocks: int,
    own: Sequence[int],
    before: Sequence[int],
    token_hw: tuple[int, int],
    coreset_rate: float,
    base: BlockBase | None,
    turn: Turn,
    on_progress: OnProgress,
    places: Rows | None = None,
) -> tuple[BlockMemory, list[float], HeldOut]:
    """Select a memory bank for each block, and compare each image with those of the others.

    Args:
        embeddings: float32 [N, n_blocks * D] of the images, in order, of the blocks side by side; normalised in place.
        n_blocks: how many blocks.
        own: a number for each image, from 0; copies of one have the same.
        before: the number of each image that the base was built from, -1 for one that is not in this fit.
        token_hw: token grid (rows, columns).
        coreset_rate: share to keep, if there is no base.
        base: the model to append to; None starts a new bank.
        turn: see `k_center_greedy`.
        on_progress: called with the step, its finished units and all its units.
        places: see `PatchCoreMemory.build`.

    Returns:
        The banks, their covering radii, and what the fit tells about its images, or about a sample of them.

    Raises:
        Conflict: the images differ too much from those of the base.
    """
    report = partial(on_progress, "coreset")
    if base is None:
        n_different = len(set(own)) * (len(embeddings) // len(own))
        banks = build_banks(embeddings, n_blocks, token_hw, coreset_rate, report, turn, n_different, places)
    else:
        parts = block_parts(embeddings, n_blocks)
        banks = tuple(
            bank.extended(part, radius, base.n_images, turn, report, places)
            for bank, part, radius in zip(base.memory.banks, parts, base.covering_radii, strict=True)
        )
    found = []
    for number, (part, bank) in enumerate(zip(block_parts(embeddings, n_blocks), banks, strict=True)):
        landed = Landings.none(0) if base is None else base.memory.landings[number]
        bound = None if base is None else base.covering_radii[number]
        owner = owners(bank, [*before, *own])
        of_block = _of_block(part, n_blocks, np.array(own), bank, owner, landed, bound, turn)
        if bound is not None:
            of_block = replace(of_block, covering_radius=bound)
        found.append(of_block)
        on_progress("score", number + 1, n_blocks)
    memory = BlockMemory(banks, tuple(of_block.landings for of_block in found))
    return memory, [of_block.covering_radius for of_block in found], _held_out(found)


def _held_out(found: Sequence[_OfBlock]) -> HeldOut:
    """What all blocks together tell about the images; `n_unique` is that of the last block."""
    last = found[-1].held_out
    distances = [of_block.distances for of_block in found if of_block.distances is not None]
    if len(distances) < len(found):
        return last
    return replace(last, distances=np.asarray(np.mean(distances, axis=0), np.float32))


def _of_block(
    embeddings: Embeddings,
    n_blocks: int,
    images: Rows,
    bank: PatchCoreMemory,
    owner: Rows,
    landed: Landings,
    bound: float | None,
    turn: Turn,
) -> _OfBlock:
    """The result of a fit for a block; `landed`: earlier landings on its bank; `bound`: of the covering radius."""
    per_image, n_bank = len(embeddings) // len(images), len(bank.embeddings)
    products = len(embeddings) * n_bank * n_blocks
    has_others = len(np.unique(images)) > 1 or bool(np.any(owner < 0))
    if not has_others:
        held_out = hold_out(embeddings, images, bank.embeddings, owner, turn=turn)
        return _OfBlock(bank, landed.plus(Landings.none(n_bank)), held_out.covering_radius, held_out, None)
    # Where all would take too long, patches at even distances tell enough of where patches land.
    step = -(-products // MOST_PRODUCTS)
    image = np.repeat(images, per_image)
    rows, distances = _land_on_others(embeddings[::step], image[::step], bank.embeddings, owner, turn)
    # Where a bank has embeddings of one image alone, its patches have no other image to land on.
    has_landed = distances <= _MOST_DISTANCE
    landings = landed.plus(Landings.of(rows[has_landed], distances[has_landed], n_bank))
    if step > 1:
        radius = last_distance(bank, len(embeddings)) if bound is None else bound
        sample = choose_sample(images, per_image, n_bank, n_blocks)
        held_out = hold_out_sample(embeddings, images, bank.embeddings, owner, sample, radius, turn=turn)
    else:
        held_out = hold_out(embeddings, images, bank.embeddings, owner, turn=turn)
    assert held_out.distances is not None, "there are others"
    positions = held_out.scored_positions
    honest = held_out.distances.copy()
    for number in np.unique(images[positions]):
        is_own = (image[::step] == number) & has_landed
        radii = landings.without(Landings.of(rows[is_own], distances[is_own], n_bank)).excess_radii()
        for row in np.flatnonzero(images[positions] == number):
            patches = slice(positions[row] * per_image, (positions[row] + 1) * per_image)
            own_rows, own_distances = rows[patches], distances[patches]
            if step > 1:
                own_rows, own_distances = _land_on_others(
                    embeddings[patches], image[patches], bank.embeddings, owner, turn
                )
            # A patch that the bank of the others would gain has nothing that landed on it.
            is_gained = honest[row] < own_distances - _SAME_DISTANCE
            honest[row] -= np.where(is_gained, np.float32(0), radii[own_rows])
    return _OfBlock(bank, landings, held_out.covering_radius, held_out, honest)


def _land_on_others(
    embeddings: Embeddings, image: Rows, bank: Embeddings, owner: Rows, turn: Turn
) -> tuple[Rows, Distances]:
    """Where patches land among the embeddings that are not of their own image.

    Args:
        embeddings: float32 [N, D], L2-normalised.
        image: int64 [N], number of the image of each.
        bank: float32 [M, D], L2-normalised.
        owner: int64 [M], number of the image that each comes from, -1 for another fit's.
        turn: see `k_center_greedy`.

    Returns:
        rows: int64 [N], of the nearest embedding of another image.
        distances: float32 [N], to it; above 2 where no embedding is of another image.
    """
    rows, cosine = np.empty(len(embeddings), np.int64), np.empty(len(embeddings), np.float32)
    at_once = max(1, PRODUCTS_AT_ONCE // len(bank))
    for start in range(0, len(embeddings), at_once):
        with turn():
            piece = slice(start, start + at_once)
            products = np.ascontiguousarray(embeddings[piece]) @ bank.T
            products[image[piece][:, None] == owner] = NO_COSINE
            rows[piece] = products.argmax(axis=1)
            cosine[piece] = np.take_along_axis(products, rows[piece][:, None], axis=1)[:, 0]
    return rows, distance_of_cosine(cosine)
