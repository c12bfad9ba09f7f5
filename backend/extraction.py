"""Embedding the images of a fit: decoded in advance, in one array, within the memory that is free."""

import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from backend.checkpoint import Checkpoint
from backend.errors import TooLarge
from backend.features import DinoV2Features, preprocess
from backend.patchcore import coreset_size
from backend.resources import free_memory
from backend.telemetry import stage
from backend.utils import ImageLimits, NamedImage, decode_image

# What a fit needs beside its embeddings and images: blocks of distances, the network's own buffers.
_FIXED_BYTES = 256 << 20
# Of every embedding kept: the bank, its index, and both as bytes on their way to the disk.
_COPIES_OF_BANK = 6
# Of every embedding: what the coreset knows about it besides its numbers.
_BYTES_PER_EMBEDDING = 64

Array = npt.NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R")


class _Known(NamedTuple):
    """An image whose embeddings the checkpoint has."""

    embeddings: Array


class _Fresh(NamedTuple):
    """An image on its way to the network: its encoded bytes and its pixels, float32 [3, S, S]."""

    content: bytes
    pixels: Array


def check_memory(features: DinoV2Features, n_images: int, coreset_rate: float, most_pixels: int) -> None:
    """See that a fit will fit.

    Args:
        features: the extractor.
        n_images: images in the fit.
        coreset_rate: share of their embeddings that the memory bank keeps.
        most_pixels: pixels of the largest of them.

    Raises:
        TooLarge: it needs more memory than is free; the message has the arithmetic.
    """
    rows, columns = features.token_hw
    n_embeddings = n_images * rows * columns
    embeddings = n_embeddings * (features.dim * 4 + _BYTES_PER_EMBEDDING)
    bank = coreset_size(n_embeddings, coreset_rate) * features.dim * 4 * _COPIES_OF_BANK
    fixed = most_pixels * 3 * (_most_ahead(features) + 2) + _FIXED_BYTES
    needed, free = embeddings + bank + fixed, free_memory()
    if needed > free:
        raise TooLarge(
            f"this fit does not fit into memory: {n_images} images × {rows * columns} patches × ({features.dim} × 4 + "
            f"{_BYTES_PER_EMBEDDING}) bytes = {embeddings / 1e6:.0f} MB, with {bank / 1e6:.0f} MB for a memory bank of "
            f"{coreset_rate:.0%} of them and {fixed / 1e6:.0f} MB whatever their number {needed / 1e6:.0f} MB, and "
            f"{free / 1e6:.0f} MB are free; send fewer images or free memory"
        )


def embed_all(
    images: Sequence[NamedImage],
    features: DinoV2Features,
    limits: ImageLimits,
    *,
    turn: Callable[[], AbstractContextManager[None]],
    checkpoint: Checkpoint | None,
    on_progress: Callable[[int, int], None],
) -> Array:
    """Embed all images in order, each decoded while the network runs on those before it.

    Args:
        images: at least one.
        features: the extractor.
        limits: for every image.
        turn: held while the network runs.
        checkpoint: gives and keeps embeddings; None keeps nothing.
        on_progress: called with (embedded, all images).

    Returns:
        float32 [len(images) * rows * columns, D], not L2-normalised.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `decode_image`.
        StorageError: the checkpoint cannot be written.
    """
    rows, columns = features.token_hw
    embeddings = np.empty((len(images), rows * columns, features.dim), np.float32)

    def prepare(image: NamedImage) -> _Known | _Fresh:
        content = image.read()
        if checkpoint is not None and (known := checkpoint.get(content)) is not None:
            return _Known(known)
        with stage("decode"):
            decoded = decode_image(content, image.name, limits)
        with stage("preprocess"):
            return _Fresh(content, preprocess(decoded, features.input_size))

    waiting: list[tuple[int, _Fresh]] = []  # for the next forward pass
    for position, prepared in enumerate(_ahead(prepare, images, _most_ahead(features))):
        if isinstance(prepared, _Known):
            embeddings[position] = prepared.embeddings
        else:
            waiting.append((position, prepared))
        if len(waiting) == features.runtime.batch or (waiting and position == len(images) - 1):
            with turn(), stage("extract"):
                tokens = features.runtime.forward(np.stack([fresh.pixels for _, fresh in waiting]))
            for (index, fresh), own_tokens in zip(waiting, tokens, strict=True):
                embeddings[index] = own_tokens
                if checkpoint is not None:
                    checkpoint.put(fresh.content, own_tokens)
            waiting.clear()
        on_progress(position + 1 - len(waiting), len(images))
    return embeddings.reshape(-1, features.dim)


def _most_ahead(features: DinoV2Features) -> int:
    """How many images are decoded before the network wants them."""
    return 2 * features.runtime.batch


def _ahead(prepare: Callable[[T], R], items: Sequence[T], most_ahead: int) -> Iterator[R]:
    """What `prepare` makes of each item, in order; another thread makes up to `most_ahead` of them in advance."""
    futures: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for item in items:
                futures.append(pool.submit(contextvars.copy_context().run, prepare, item))
                if len(futures) > most_ahead:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:
                future.cancel()
