"""Embedding the images of a fit: headers are checked first, then images are decoded in advance and embedded."""

import contextlib
import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import structlog

from backend.bank.checkpoint import Checkpoint, Kept
from backend.bank.copies import Look
from backend.bank.images import BankImage
from backend.bit_depth import BitDepth, decode
from backend.common.arrays import Embeddings, Pixels
from backend.common.errors import InvalidShape, StorageError
from backend.common.telemetry import stage
from backend.features import DinoV2Features, require_finite
from backend.roi_mask import Shape, build_mask
from backend.tiles import Places, Tiling
from backend.utils import ImageLimits, NamedImage, check_image

# One for all fits: of each thread that resizes an image, OpenCV 5.0 keeps a kilobyte when it ends.
_preparing = ThreadPoolExecutor(1, "prepare")

log: Any = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Embedded(NamedTuple):
    """Images after the network.

    Attributes:
        embeddings: float32 [len(numbers) * K, D] of the K tokens of each image, not L2-normalised.
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
        embeddings: float32 [K, D], if the checkpoint has them.
        canvas: see `DinoV2Features.canvas`; None if the image is not embedded.
        content: its bytes, if a checkpoint needs them.
    """

    look: Look
    embeddings: Embeddings | None = None
    canvas: Pixels | None = None
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

    @classmethod
    def joined(cls, parts: "Sequence[ImageHeaders]") -> "ImageHeaders":
        """The headers of the images of several parts, one part after the other; at least one."""
        return cls(
            [size for part in parts for size in part.sizes],
            [digest for part in parts for digest in part.digests],
            max(part.most_bytes for part in parts),
        )

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


class _Waiting(NamedTuple):
    """A tile that waits for the next forward pass.

    Attributes:
        row: of its image among those that are embedded.
        image: that it is cut from.
        canvas: that of the image.
        tile: its number.
    """

    row: int
    image: _Prepared
    canvas: Pixels
    tile: int


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
    tiles: Sequence[int] | None = None,
) -> Embedded:
    """Embed images in order; each is decoded while the network processes the previous ones.

    Args:
        images: at least one.
        features: the extractor.
        limits: for every image.
        turn: held while the network runs.
        checkpoint: gives and keeps embeddings; None keeps nothing.
        on_progress: called with (embedded, all images), after every pass.
        depth: how images of 16 bits are read; None reads their upper 8.
        known: identities of images that are not embedded.
        tiles: numbers of the tiles that are embedded, rising; None is all.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `decode`.
    """
    rows_of = _rows_of(features.tiling, tiles)
    n_patches = sum(len(rows) for rows in rows_of.values())
    embeddings = np.empty((len(images), n_patches, features.dim), np.float32)

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
            return _Prepared(look, None, features.canvas(decoded), content if keeper else None)

    numbers: list[int] = []
    looks: list[Look] = []
    waiting: list[_Waiting] = []
    with contextlib.closing(_ahead(prepare, images, most_ahead(features))) as in_order:
        for position, prepared in enumerate(in_order):
            looks.append(prepared.look)
            if prepared.look.pixels_sha256 not in known:
                if prepared.canvas is not None:
                    waiting += [_Waiting(len(numbers), prepared, prepared.canvas, tile) for tile in rows_of]
                else:
                    embeddings[len(numbers)] = prepared.embeddings
                numbers.append(position)
            has_passed = False
            while len(waiting) >= features.runtime.batch or (waiting and position == len(images) - 1):
                together, waiting = waiting[: features.runtime.batch], waiting[features.runtime.batch :]
                _embed_together(together, features, turn, rows_of, embeddings)
                for done in together:
                    if done.tile == max(rows_of) and checkpoint is not None and done.image.content is not None:
                        kept = Kept(embeddings[done.row], done.image.look)
                        checkpoint = _keep(checkpoint, done.image.content, kept)
                on_progress(position + 1 - len({tile.row for tile in waiting}), len(images))
                has_passed = True
            if not has_passed:
                on_progress(position + 1 - len({tile.row for tile in waiting}), len(images))
    return Embedded(embeddings[: len(numbers)].reshape(-1, features.dim), numbers, looks)


def _rows_of(tiling: Tiling, tiles: Sequence[int] | None) -> dict[int, Places]:
    """For each tile, by its number, which rows of an image's embeddings its tokens are."""
    numbers = range(len(tiling.tiles)) if tiles is None else tiles
    row = np.full(tiling.grid_hw, -1)
    places = tiling.places(numbers)
    row.flat[places] = np.arange(len(places))
    return {number: row[tiling.tiles[number].rows, tiling.tiles[number].columns].ravel() for number in numbers}


def _embed_together(
    waiting: Sequence[_Waiting],
    features: DinoV2Features,
    turn: Callable[[], AbstractContextManager[None]],
    rows_of: Mapping[int, Places],
    embeddings: npt.NDArray[np.float32],
) -> None:
    """Run the network on some tiles, and put what they give into ``embeddings``, float32 [n_images, K, D]."""
    tiles = [features.tiling.tiles[each.tile] for each in waiting]
    pixels = np.stack([features.pixels_of(each.canvas, tile) for each, tile in zip(waiting, tiles, strict=True)])
    with turn(), stage("extract"):
        tokens = features.runtime.forward(pixels)
    require_finite(tokens)
    for each, tile, own_tokens in zip(waiting, tiles, tokens, strict=True):
        embeddings[each.row][rows_of[each.tile]] = features.given(own_tokens, tile)


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
    return max(1, 2 * features.runtime.batch // len(features.tiling.tiles))


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
