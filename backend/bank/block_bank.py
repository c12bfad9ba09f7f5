"""The memory banks of several blocks: selection, landings on their patches, and honest distances."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from backend.bank.leave_one_out import MOST_PRODUCTS, HeldOut, RadiusOf, hold_out, last_distance, owners
from backend.bank.leave_one_out_sample import choose_sample, hold_out_sample
from backend.bank.patches import LocalPatches, Patches, Rows, Turn
from backend.block_memory import BlockMemory, Landings, block_parts, build_banks
from backend.common.arrays import Embeddings
from backend.common.telemetry import OnProgress
from backend.patchcore import PatchCoreMemory, distance_of_cosine

Distances = npt.NDArray[np.float32]

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
    images = np.array(own)
    patches = [LocalPatches(part, images, turn) for part in block_parts(embeddings, n_blocks)]
    return compare_blocks(patches, banks, base, before, on_progress)


def compare_blocks(
    parts: Sequence[Patches],
    banks: Sequence[PatchCoreMemory],
    base: BlockBase | None,
    before: Sequence[int],
    on_progress: OnProgress,
    radius_of: RadiusOf = last_distance,
) -> tuple[BlockMemory, list[float], HeldOut]:
    """Compare each image with the memory banks of the others, and count where patches land.

    Args:
        parts: the patches of each block.
        banks: the memory bank of each block.
        base, before, on_progress: see `build_block_bank`.
        radius_of: see `compare_with_others`.

    Returns:
        As `build_block_bank`.
    """
    found = []
    for number, (part, bank) in enumerate(zip(parts, banks, strict=True)):
        landed = Landings.none(0) if base is None else base.memory.landings[number]
        bound = None if base is None else base.covering_radii[number]
        owner = owners(bank, [*before, *part.images.tolist()])
        of_block = _of_block(part, len(parts), bank, owner, landed, bound, radius_of)
        if bound is not None:
            of_block = replace(of_block, covering_radius=bound)
        found.append(of_block)
        on_progress("score", number + 1, len(parts))
    memory = BlockMemory(tuple(banks), tuple(of_block.landings for of_block in found))
    return memory, [of_block.covering_radius for of_block in found], _held_out(found)


def _held_out(found: Sequence[_OfBlock]) -> HeldOut:
    """What all blocks together tell about the images; `n_unique` is that of the last block."""
    last = found[-1].held_out
    distances = [of_block.distances for of_block in found if of_block.distances is not None]
    if len(distances) < len(found):
        return last
    return replace(last, distances=np.asarray(np.mean(distances, axis=0), np.float32))


def _of_block(
    patches: Patches,
    n_blocks: int,
    bank: PatchCoreMemory,
    owner: Rows,
    landed: Landings,
    bound: float | None,
    radius_of: RadiusOf,
) -> _OfBlock:
    """The result of a fit for a block; `landed`: earlier landings on its bank; `bound`: of the covering radius."""
    images, per_image, n_bank = patches.images, patches.per_image, len(bank.embeddings)
    n_patches = len(images) * per_image
    products = n_patches * n_bank * n_blocks
    has_others = len(np.unique(images)) > 1 or bool(np.any(owner < 0))
    if not has_others:
        held_out = hold_out(patches, bank.embeddings, owner)
        return _OfBlock(bank, landed.plus(Landings.none(n_bank)), held_out.covering_radius, held_out, None)
    # Where all would take too long, patches at even distances tell enough of where patches land.
    step = -(-products // MOST_PRODUCTS)
    every = np.arange(0, n_patches, step)
    image = images[every // per_image]
    rows, distances = _land_on_others(patches, bank.embeddings, owner, every)
    # Where a bank has embeddings of one image alone, its patches have no other image to land on.
    has_landed = distances <= _MOST_DISTANCE
    landings = landed.plus(Landings.of(rows[has_landed], distances[has_landed], n_bank))
    if step > 1:
        radius = radius_of(patches, bank) if bound is None else bound
        sample = choose_sample(images, per_image, n_bank, n_blocks)
        held_out = hold_out_sample(patches, bank.embeddings, owner, sample, radius)
    else:
        held_out = hold_out(patches, bank.embeddings, owner)
    assert held_out.distances is not None, "there are others"
    positions = held_out.scored_positions
    honest = held_out.distances.copy()
    for number in np.unique(images[positions]):
        is_own = (image == number) & has_landed
        radii = landings.without(Landings.of(rows[is_own], distances[is_own], n_bank)).excess_radii()
        for row in np.flatnonzero(images[positions] == number):
            own = positions[row] * per_image + np.arange(per_image)
            if step > 1:
                own_rows, own_distances = _land_on_others(patches, bank.embeddings, owner, own)
            else:
                own_rows, own_distances = rows[own], distances[own]
            # A patch that the bank of the others would gain has nothing that landed on it.
            is_gained = honest[row] < own_distances - _SAME_DISTANCE
            honest[row] -= np.where(is_gained, np.float32(0), radii[own_rows])
    return _OfBlock(bank, landings, held_out.covering_radius, held_out, honest)


def _land_on_others(patches: Patches, bank: Embeddings, owner: Rows, rows: Rows) -> tuple[Rows, Distances]:
    """Where patches land among the embeddings that are not of their own image.

    Args:
        patches: of all images.
        bank, owner, rows: see `LocalPatches.land`.

    Returns:
        rows: int64 [N], of the nearest embedding of another image.
        distances: float32 [N], to it; above 2 where no embedding is of another image.
    """
    landed = patches.land(bank, owner, rows)
    return landed.rows, distance_of_cosine(landed.cosine)
