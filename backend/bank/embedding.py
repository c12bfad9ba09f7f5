"""Embedding the images of a fit: headers first, then decoded in advance and embedded, in one array."""

import contextlib
import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import structlog

from backend.bank.checkpoint import Checkpoint
from backend.bit_depth import BitDepth, decode
from backend.common.arrays import Embeddings, Pixels
from backend.common.errors import InvalidShape, StorageError
from backend.common.telemetry import stage
from backend.features import DinoV2Features, preprocess, require_finite
from backend.roi_mask import Shape, build_mask
from backend.utils import ImageLimits, NamedImage, check_image

# One for all fits: of each thread that resizes an image, OpenCV 5.0 keeps a kilobyte when it ends.
_preparing = ThreadPoolExecutor(1, "prepare")

log: Any = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class _Known(NamedTuple):
    """An image whose embeddings the checkpoint has."""

    embeddings: Embeddings


class _Fresh(NamedTuple):
    """An image on its way to the network: its pixels, float32 [3, S, S], and its bytes if a checkpoint wants them."""

    content: bytes | None
    pixels: Pixels


@dataclass(frozen=True)
class ImageHeaders:
    """What is known of a fit's images before any is decoded, in their order.

    Attributes:
        sizes: (rows, columns) in pixels.
        digests: sha256 of the files, in hexadecimal digits.
        most_bytes: of the largest file.
    """

    sizes: list[tuple[int, int]]
    digests: list[str]
    most_bytes: int

    @property
    def most_pixels(self) -> int:
        """Of the largest image."""
        return max(height * width for height, width in self.sizes)

    def only(self, numbers: Sequence[int]) -> "ImageHeaders":
        """What is known of some of the images.

        Args:
            numbers: their positions.
        """
        return ImageHeaders(
            [self.sizes[number] for number in numbers], [self.digests[number] for number in numbers], self.most_bytes
        )


def read_headers(images: Sequence[NamedImage], masks: Sequence[Shape | None], limits: ImageLimits) -> ImageHeaders:
    """Refuse images that cannot be fitted, as far as their headers tell.

    Args:
        images: at least one.
        masks: of each image, in its pixels.
        limits: for every image.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `check_image`.
        InvalidShape: see `build_mask`.
    """
    sizes, digests, most_bytes = [], [], 0
    for image, mask in zip(images, masks, strict=True):
        content = image.read()
        width, height = check_image(content, image.name, limits)
        try:
            build_mask(mask, (height, width))
        except InvalidShape as exc:
            raise InvalidShape(f"{image.name}: {exc}") from exc
        sizes.append((height, width))
        digests.append(hashlib.sha256(content).hexdigest())
        most_bytes = max(most_bytes, len(content))
    return ImageHeaders(sizes, digests, most_bytes)


def embed_all(
    images: Sequence[NamedImage],
    features: DinoV2Features,
    limits: ImageLimits,
    *,
    turn: Callable[[], AbstractContextManager[None]],
    checkpoint: Checkpoint | None,
    on_progress: Callable[[int, int], None],
    depth: BitDepth | None = None,
) -> Embeddings:
    """Embed all images in order, each decoded while the network runs on those before it.

    Args:
        images: at least one.
        features: the extractor.
        limits: for every image.
        turn: held while the network runs.
        checkpoint: gives and keeps embeddings; None keeps nothing.
        on_progress: called with (embedded, all images).
        depth: how images of 16 bits are read; None reads their upper 8.

    Returns:
        float32 [len(images) * rows * columns, D], not L2-normalised.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `decode`.
    """
    rows, columns = features.token_hw
    embeddings = np.empty((len(images), rows * columns, features.dim), np.float32)

    def prepare(image: NamedImage) -> _Known | _Fresh:
        content = image.read()
        keeper = checkpoint  # which the fit's own thread may give up at any time
        if keeper is not None and (known := keeper.get(content)) is not None:
            return _Known(known)
        with stage("decode"):
            decoded, _ = decode(content, image.name, limits, depth)
        with stage("preprocess"):
            return _Fresh(content if keeper else None, preprocess(decoded, features.input_size))

    waiting: list[tuple[int, _Fresh]] = []  # for the next forward pass
    with contextlib.closing(_ahead(prepare, images, most_ahead(features))) as in_order:
        for position, prepared in enumerate(in_order):
            if isinstance(prepared, _Known):
                embeddings[position] = prepared.embeddings
            else:
                waiting.append((position, prepared))
            if len(waiting) == features.runtime.batch or (waiting and position == len(images) - 1):
                with turn(), stage("extract"):
                    tokens = features.runtime.forward(np.stack([fresh.pixels for _, fresh in waiting]))
                require_finite(tokens)
                for (index, fresh), own_tokens in zip(waiting, tokens, strict=True):
                    embeddings[index] = own_tokens
                    if checkpoint is not None and fresh.content is not None:
                        checkpoint = _keep(checkpoint, fresh.content, own_tokens)
                waiting.clear()
            on_progress(position + 1 - len(waiting), len(images))
    return embeddings.reshape(-1, features.dim)


def _keep(checkpoint: Checkpoint, image: bytes, tokens: Embeddings) -> Checkpoint | None:
    """Put tokens into the checkpoint; None if that failed: the fit goes on without."""
    try:
        checkpoint.put(image, tokens)
    except StorageError as exc:
        log.warning("fit.checkpoint_lost", reason=str(exc))
        return None
    return checkpoint


def most_ahead(features: DinoV2Features) -> int:
    """How many images are made ready before the network wants them."""
    return 2 * features.runtime.batch


def _ahead(prepare: Callable[[T], R], items: Sequence[T], most_ahead: int) -> Generator[R, None, None]:
    """What `prepare` makes of each item, in order; another thread makes up to `most_ahead` of them in advance."""
    futures: deque[Future[R]] = deque()
    try:
        for item in items:
            futures.append(_preparing.submit(contextvars.copy_context().run, prepare, item))
            if len(futures) > most_ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
