"""Whether a fit fits into the free memory."""

import math

from backend.bank.copies import BYTES_PER_LOOK
from backend.bank.embedding import most_ahead
from backend.common.errors import TooLarge
from backend.common.machine import free_memory
from backend.features import DinoV2Features
from backend.patchcore import coreset_size

# What a fit needs beside its embeddings and images: blocks of distances, the network's own buffers.
_FIXED_BYTES = 256 << 20
# Of every embedding kept: the bank, its index, and both as bytes on their way to the disk.
_COPIES_OF_BANK = 6
# Of every embedding: what the coreset knows about it besides its numbers.
_BYTES_PER_EMBEDDING = 64


def check_memory(
    features: DinoV2Features,
    n_images: int,
    coreset_rate: float,
    most_pixels: int,
    most_bytes: int,
    n_before: int = 0,
    n_patches: int | None = None,
) -> None:
    """Check that a fit fits into the free memory.

    Args:
        features: the extractor.
        n_images: images in the fit.
        coreset_rate: share of their embeddings that the memory bank keeps.
        most_pixels: pixels of the largest of them.
        most_bytes: bytes of the largest file.
        n_before: embeddings of the memory bank that they are appended to.
        n_patches: of each image; None is the whole token grid.

    Raises:
        TooLarge: it needs more memory than is free; the message has the calculation.
    """
    n_patches = math.prod(features.token_hw) if n_patches is None else n_patches
    n_embeddings = n_images * n_patches
    embeddings = n_embeddings * (features.dim * 4 + _BYTES_PER_EMBEDDING)
    bank = (n_before + coreset_size(n_embeddings, coreset_rate)) * features.dim * 4 * _COPIES_OF_BANK
    # One image is decoded at a time; the others are pixels for the network, on their way to it or in its batch.
    batch = features.runtime.batch
    on_the_way = most_ahead(features) + math.ceil(batch / len(features.tiling.tiles)) + 1
    pixels = on_the_way * features.canvas_side**2 + batch * features.input_size**2
    fixed = most_pixels * 3 * 2 + pixels * 3 * 4 + (on_the_way + batch) * most_bytes + _FIXED_BYTES
    needed, free = embeddings + bank + fixed, free_memory()
    if needed > free:
        raise TooLarge(
            f"this fit does not fit into memory: {n_images} images × {n_patches} patches × ({features.dim} × 4 + "
            f"{_BYTES_PER_EMBEDDING}) bytes = {embeddings / 1e6:.0f} MB, plus {bank / 1e6:.0f} MB for a memory bank "
            f"of {100 * coreset_rate:g}% of them and {fixed / 1e6:.0f} MB for any number of images: "
            f"{needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free; send fewer images or free memory"
        )


def check_comparison(n_images: int) -> None:
    """Check that the search for near copies among the images of a fit fits into the free memory.

    Args:
        n_images: images in the fit, whose embeddings are elsewhere.

    Raises:
        TooLarge: it needs more memory than is free; the message has the calculation.
    """
    looks, pairs, free = n_images * BYTES_PER_LOOK, n_images**2 // 8, free_memory()
    if looks + pairs > free:
        raise TooLarge(
            f"the memory of this machine does not hold what a fit compares to find near copies: {n_images} images × "
            f"{BYTES_PER_LOOK} bytes = {looks / 1e6:.0f} MB, plus {pairs / 1e6:.0f} MB for their pairs, but only "
            f"{free / 1e6:.0f} MB are free; fit on fewer images, or start the command on a machine with more memory"
        )


def check_bank(n_embeddings: int, dim: int) -> None:
    """Check that a finished memory bank fits into memory together with its index and its serialised form.

    Args:
        n_embeddings: of the bank.
        dim: length of each.

    Raises:
        TooLarge: it does not fit.
    """
    needed, free = n_embeddings * dim * 4 * (_COPIES_OF_BANK - 1), free_memory()
    if needed > free:
        raise TooLarge(
            f"a memory bank of {n_embeddings} embeddings does not fit into memory: it takes {needed / 1e6:.0f} MB "
            f"more, but only {free / 1e6:.0f} MB are free; append fewer images or free memory"
        )
