"""The arrays of ``memory.npz`` for the memory banks of several blocks, in addition to the playbook's keys.

``emb`` and ``patches`` are those of the last block. ``blocks`` names all blocks; ``emb_9`` and ``patches_9`` are those
of block 9, and ``landings_9`` and ``landed_9`` the landings on its embeddings: the number of patches, and the sum of
their distances.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backend.block_memory import BlockMemory, Landings
from backend.common.arrays import Embeddings
from backend.common.profiles import RECOMMENDED_BLOCKS

_ROUNDING = 1e-6


class StoredBlocks(NamedTuple):
    """The arrays of several blocks in a file.

    Attributes:
        earlier: embeddings float32 [M, D] and patches int64 [M] of all blocks but the last; patches are None if
            unknown.
        landings: of each block, including the last one.
    """

    earlier: list[tuple[Embeddings, npt.NDArray[np.int64] | None]]
    landings: tuple[Landings, ...]


def block_arrays(memory: BlockMemory) -> dict[str, Any]:
    """The arrays of a file, by name, without ``emb`` and ``patches``."""
    arrays: dict[str, Any] = {"blocks": np.array(RECOMMENDED_BLOCKS)}
    for block, bank, landings in zip(RECOMMENDED_BLOCKS, memory.banks, memory.landings, strict=True):
        arrays |= {f"landings_{block}": landings.count, f"landed_{block}": landings.total}
        if block != RECOMMENDED_BLOCKS[-1]:
            arrays[f"emb_{block}"] = bank.embeddings
            if bank.patches is not None:
                arrays[f"patches_{block}"] = bank.patches
    return arrays


def read_blocks(arrays: Mapping[str, Any], n_patches: int | None) -> StoredBlocks:
    """Read what `block_arrays` gave.

    Args:
        arrays: of the file, by name.
        n_patches: number of patches of all its images; None if unknown.

    Raises:
        KeyError: an array is missing.
        ValueError: an array has another shape or dtype, or contains impossible values.
    """
    blocks = [int(block) for block in arrays["blocks"]]
    if blocks != list(RECOMMENDED_BLOCKS):
        raise ValueError(f"blocks {blocks}")
    earlier, landings = [], []
    for block in blocks:
        embeddings = np.ascontiguousarray(arrays["emb" if block == blocks[-1] else f"emb_{block}"])
        count, total = np.asarray(arrays[f"landings_{block}"]), np.asarray(arrays[f"landed_{block}"])
        n_bank = len(embeddings)
        if count.dtype != np.int64 or total.dtype != np.float64 or count.shape != (n_bank,) or total.shape != (n_bank,):
            raise ValueError("landings of another bank")
        if (
            count.min() < 0
            or not np.isfinite(total).all()
            or np.any(total < 0)
            or np.any(total > 2 * count * (1 + _ROUNDING))
        ):
            raise ValueError("landings that cannot be")
        landings.append(Landings(count, total))
        if block == blocks[-1]:
            continue
        if embeddings.ndim != 2 or embeddings.dtype != np.float32 or not embeddings.size:
            raise ValueError("no embeddings of a block")
        if not np.all(np.abs(np.linalg.norm(embeddings, axis=1) - 1) < 1e-3):
            raise ValueError("embeddings of a block that are not L2-normalised")
        earlier.append((embeddings, _checked_patches(arrays, block, n_bank, n_patches)))
    if len({embeddings.shape[1] for embeddings, _ in earlier} | {arrays["emb"].shape[1]}) != 1:
        raise ValueError("blocks of unequal length")
    return StoredBlocks(earlier, tuple(landings))


def _checked_patches(
    arrays: Mapping[str, Any], block: int, n_bank: int, n_patches: int | None
) -> npt.NDArray[np.int64] | None:
    if n_patches is None or f"patches_{block}" not in arrays:
        return None
    patches = np.asarray(arrays[f"patches_{block}"])
    if patches.shape != (n_bank,) or patches.dtype != np.int64 or patches.min() < -1 or patches.max() >= n_patches:
        raise ValueError("patches of another bank")
    return patches
