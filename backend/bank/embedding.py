"""Embedding the images of a fit: headers are checked first, then images are decoded in advance and embedded."""

import contextlib
import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import structlog

from backend.bank.checkpoint import Checkpoint, Kept
from backend.bank.copies import Look
from backend.bank.images import BankImage
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


class Embedded(NamedTuple):
    """Images after the network.

    Attributes:
        embeddings: float32 [len(numbers) * rows * columns, D], not L2-normalised.
        numbers: positions of the images that were embedded, in order.
        looks: of every image.
    """

    embeddings: Embeddings
    numbers: list[int]
    looks: list[Look]


class _Prepared(NamedTuple):
    """An image before the network.

    Attributes:
        look: of its pixels.
        embeddings: float32 [rows * columns, D], if the checkpoint has them.
        pixels: float32 [3, S, S] for the network; None if the image is not embedded.
        content: its bytes, if a checkpoint needs them.
    """

    look: Look
    embeddings: Embeddings | None = None
    pixels: Pixels | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class ImageHeaders:
    """What is known about the images of a fit before any is decoded, in their order.

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
        """Pixels of the largest image."""
        return max(height * width for height, width in self.sizes)

    def only(self, numbers: Sequence[int]) -> "ImageHeaders":
        """The headers of some of the images.

        Args:
            numbers: their positions.
        """
        return ImageHeaders(
            [self.sizes[number] for number in numbers], [self.digests[number] for number in numbers], self.most_bytes
        )


def read_headers(images: Sequence[NamedImage], masks: Sequence[Shape | None], limits: ImageLimits) -> ImageHeaders:
    """Refuse images that cannot be fitted, as far as their headers show this.

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
        width, height = check_image(content, image.title, limits)
        try:
            build_mask(mask, (height, width))
        except InvalidShape as exc:
            raise InvalidShape(f"{image.title}: {exc}") from exc
        sizes.append((height, width))
        digests.append(hashlib.sha256(content).hexdigest())
        most_bytes = max(most_bytes, len(content))
    return ImageHeaders(sizes, digests, most_bytes)


@dataclass(frozen=True)
class FitImages:
    """Images of good parts, before any is decoded.

    Attributes:
        images: as they were sent.
        masks: of each, in its pixels.
        headers: their headers.
    """

    images: Sequence[NamedImage]
    masks: Sequence[Shape | None]
    headers: ImageHeaders

    @classmethod
    def read(cls, images: Sequence[NamedImage], masks: Sequence[Shape | None], limits: ImageLimits) -> "FitImages":
        """Refuse images that cannot be fitted, as far as their headers show this; see `read_headers`."""
        return cls(images, masks, read_headers(images, masks, limits))

    def without_files_of(self, known: Sequence[BankImage]) -> "FitImages":
        """The images whose files are not in a memory bank."""
        digests = {image.sha256 for image in known}
        return self.only([number for number, digest in enumerate(self.headers.digests) if digest not in digests])

    def only(self, numbers: Sequence[int]) -> "FitImages":
        """Some of the images.

        Args:
            numbers: their positions.
        """
        chosen = [self.images[n] for n in numbers], [self.masks[n] for n in numbers]
        return FitImages(*chosen, self.headers.only(numbers))


def embed_all(
    images: Sequence[NamedImage],
    features: DinoV2Features,
    limits: ImageLimits,
    *,
    turn: Callable[[], AbstractContextManager[None]],
    checkpoint: Checkpoint | None,
    on_progress: Callable[[int, int], None],
    depth: BitDepth | None = None,
    known: Collection[str] = (),
) -> Embedded:
    """Embed images in order; each is decoded while the network processes the previous ones.

    Args:
        images: at least one.
        features: the extractor.
        limits: for every image.
        turn: held while the network runs.
        checkpoint: gives and keeps embeddings; None keeps nothing.
        on_progress: called with (embedded, all images).
        depth: how images of 16 bits are read; None reads their upper 8.
        known: identities of images that are not embedded.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `decode`.
    """
    rows, columns = features.token_hw
    embeddings = np.empty((len(images), rows * columns, features.dim), np.float32)

    def prepare(image: NamedImage) -> _Prepared:
        content = image.read()
        keeper = checkpoint  # which the fit's own thread may give up at any time
        kept = None if keeper is None else keeper.get(content)
        if kept is not None and kept.look is not None:
            return _Prepared(kept.look, kept.embeddings)
        with stage("decode"):
            decoded, _ = decode(content, image.title, limits, depth)
            look = Look.of(decoded)
        if kept is not None or look.pixels_sha256 in known:
            return _Prepared(look, None if kept is None else kept.embeddings)
        with stage("preprocess"):
            return _Prepared(look, None, preprocess(decoded, features.input_size), content if keeper else None)

    numbers: list[int] = []
    looks: list[Look] = []
    waiting: list[tuple[int, _Prepared, Embeddings]] = []  # row of each, for the next forward pass
    with contextlib.closing(_ahead(prepare, images, most_ahead(features))) as in_order:
        for position, prepared in enumerate(in_order):
            looks.append(prepared.look)
            if prepared.look.pixels_sha256 not in known:
                if prepared.pixels is not None:
                    waiting.append((len(numbers), prepared, prepared.pixels))
                else:
                    embeddings[len(numbers)] = prepared.embeddings
                numbers.append(position)
            if len(waiting) == features.runtime.batch or (waiting and position == len(images) - 1):
                with turn(), stage("extract"):
                    tokens = features.runtime.forward(np.stack([pixels for _, _, pixels in waiting]))
                require_finite(tokens)
                for (row, fresh, _), own_tokens in zip(waiting, tokens, strict=True):
                    embeddings[row] = own_tokens
                    if checkpoint is not None and fresh.content is not None:
                        checkpoint = _keep(checkpoint, fresh.content, Kept(own_tokens, fresh.look))
                waiting.clear()
            on_progress(position + 1 - len(waiting), len(images))
    return Embedded(embeddings[: len(numbers)].reshape(-1, features.dim), numbers, looks)


def _keep(checkpoint: Checkpoint, image: bytes, kept: Kept) -> Checkpoint | None:
    """Store embeddings in the checkpoint; None if this failed, because the fit continues without a checkpoint."""
    try:
        checkpoint.put(image, kept)
    except StorageError as exc:
        log.warning("fit.checkpoint_lost", reason=str(exc))
        return None
    return checkpoint


def most_ahead(features: DinoV2Features) -> int:
    """How many images are prepared in advance."""
    return 2 * features.runtime.batch


def _ahead(prepare: Callable[[T], R], items: Sequence[T], most_ahead: int) -> Generator[R, None, None]:
    """The results of `prepare` for the items, in order; another thread computes up to `most_ahead` in advance."""
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
