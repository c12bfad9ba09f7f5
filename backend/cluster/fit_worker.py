"""A worker of a fit on a cluster: it holds the embeddings of some images, and answers questions about them.

Everything that a worker knows follows from its images and from what it is told with each call. So one that was killed
embeds its images again, or reads what it kept on its disk, catches up with the picks, and changes nothing.
"""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backend.bank.block_files import BlockFiles
from backend.bank.checkpoint import Checkpoint
from backend.bank.copies import Look
from backend.bank.embedding import ImageHeaders, embed_all, read_headers
from backend.bank.patches import Rows
from backend.bank.sharded import FitShard
from backend.bank.two_rounds import Pieces
from backend.bit_depth import FULL, BitDepth, Wide, wide_images
from backend.block_memory import block_parts
from backend.cluster.fit_plan import Disk
from backend.cluster.places import Place, open_place, read_image
from backend.cluster.workers import worker_settings
from backend.common.arrays import Embeddings
from backend.common.errors import ConfigError, StorageError
from backend.common.profiles import ProfileName
from backend.features import ExtractorIdentity
from backend.patchcore import l2_normalize
from backend.roi_mask import Shape
from backend.service.fit_executor import Extraction
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

HEADERS_AT_ONCE = 64
# Most bytes of embeddings between the network and the held ones: 64 MiB, or one image if that is more.
_BYTES_AT_ONCE = 64 << 20


class PlacedImage(NamedTuple):
    """An image that every worker can read.

    Attributes:
        address: folder or URL, see `open_place`.
        name: below it.
    """

    address: str
    name: str

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.address}/{self.name}"

    def read(self, max_bytes: int, *, insecure: bool) -> bytes:
        """Its content; see `read_image`."""
        return read_image(open_place(self.address, insecure=insecure), self.name, max_bytes)


@dataclass(frozen=True)
class FitTask:
    """The common input of all workers of a fit.

    Attributes:
        settings: as `settings_to_send` returns them.
        images: of the fit, in order.
        cuts: positions of the first image of each worker, and the number of all images.
        shape: mask of each image.
        checkpoint: folder in which a worker keeps the embeddings of its images until the fit is done.
    """

    settings: Mapping[str, Any]
    images: Sequence[PlacedImage]
    cuts: Sequence[int]
    shape: Shape | None
    checkpoint: Path

    @classmethod
    def of(
        cls,
        settings: Mapping[str, Any],
        images: Sequence[PlacedImage],
        n_workers: int,
        shape: Shape | None,
        checkpoint: Path,
    ) -> "FitTask":
        """The task in which each worker has as many images as the others, or one more or less."""
        cuts = [len(images) * number // n_workers for number in range(n_workers + 1)]
        return cls(settings, images, cuts, shape, checkpoint.resolve())


class ExtractionSpec(NamedTuple):
    """A `Extraction` without the extractor itself.

    Attributes:
        profile, detail: of the extractor.
        identity: of the extractor; that of a worker must be the same.
        depth, tiles: see `Extraction`.
        on_disk: whether the worker keeps the embeddings in files, because its memory does not hold them.
    """

    profile: ProfileName
    detail: int
    identity: ExtractorIdentity
    depth: BitDepth | None
    tiles: Sequence[int] | None
    on_disk: bool = False


class _Held:
    """The embeddings of the images of a worker, as far as they are done.

    Args:
        images: of the worker.
        extraction: how they are embedded.
        n_blocks: of the network.
        checkpoint: keeps the embeddings of each image on disk.
        folder: of files that take the place of memory; None is memory.
    """

    def __init__(
        self,
        images: Sequence[NamedImage],
        extraction: Extraction,
        n_blocks: int,
        checkpoint: Checkpoint,
        folder: Path | None,
    ) -> None:
        self._images, self._extraction, self._checkpoint = images, extraction, checkpoint
        shape = (len(images) * extraction.per_image, extraction.features.dim // n_blocks)
        self._files = None if folder is None else BlockFiles(folder, shape, n_blocks)
        self._parts: list[Embeddings] = (
            [np.empty(shape, np.float32) for _ in range(n_blocks)] if self._files is None else self._files.parts
        )
        self._shard: FitShard | None = None
        self.looks: list[Look] = []

    def embed_until(self, service: InspectionService, end: int) -> None:
        """Embed images up to the position `end`, except those that are done, without a second copy of all of them."""
        n_bytes = self._extraction.per_image * self._extraction.features.dim * 4
        at_once = max(1, _BYTES_AT_ONCE // n_bytes)
        for start in range(len(self.looks), end, at_once):
            self._embed(service, start, min(start + at_once, end))

    def _embed(self, service: InspectionService, start: int, end: int) -> None:
        embedded = embed_all(
            self._images[start:end],
            self._extraction.features,
            service.limits,
            turn=nullcontext,
            checkpoint=self._checkpoint,
            on_progress=lambda _done, _total: None,
            depth=self._extraction.depth,
            tiles=self._extraction.tiles,
        )
        first = start * self._extraction.per_image
        for block, part in enumerate(block_parts(embedded.embeddings, len(self._parts))):
            if self._files is not None:
                self._files.write(block, first, l2_normalize(part))
            else:
                self._parts[block][first : first + len(part)] = l2_normalize(part)
        self.looks += embedded.looks

    def shard(self, service: InspectionService, first: int, images: Rows, pieces: Pieces | None) -> FitShard:
        """All embeddings, as the shard of a fit; see `FitShard`."""
        if self._shard is None:
            self.embed_until(service, len(self._images))
            self._shard = FitShard(self._parts, first, images, pieces)
        return self._shard


class FitWorker:
    """A worker, which holds the embeddings of some images of a fit.

    Args:
        task: the input of the fit.
    """

    def __init__(self, task: FitTask) -> None:
        settings = worker_settings(task.settings)
        self._task = task
        self._service = InspectionService.open(settings)
        self._places: dict[str, Place] = {}
        self._held: _Held | None = None
        self._held_as: tuple[int, ExtractionSpec] | None = None

    def disk(self) -> Disk:
        """Where this worker keeps embeddings, and how many bytes are free or hold embeddings that it kept before.

        Raises:
            StorageError: the folder cannot be looked at.
        """
        folder, kept = self._task.checkpoint, 0
        try:
            for file in folder.iterdir() if folder.exists() else ():
                with suppress(FileNotFoundError):  # of a worker that has just ended
                    kept += file.stat().st_size
            there = next(path for path in (folder, *folder.parents) if path.exists())
            free = shutil.disk_usage(there).free + kept
            return Disk(platform.node(), there.stat().st_dev, str(folder.parent), free)
        except OSError as exc:
            raise StorageError(f"{folder}: the folder cannot be looked at ({exc.strerror})") from exc

    def headers(self, first: int) -> tuple[ImageHeaders, list[Wide]]:
        """The headers of some images of the fit, and which of them have 16 bits.

        Args:
            first: position of the first of these images; there are at most `HEADERS_AT_ONCE`.

        Raises:
            InvalidImage, InvalidShape, TooLarge, UnsupportedImage: one of them cannot be fitted.
        """
        limits = self._service.limits
        parts: list[ImageHeaders] = []
        wide: list[Wide] = []
        for image in self._named(first, first + HEADERS_AT_ONCE):
            read = [_read_once(image)]
            parts.append(read_headers(read, [self._task.shape], limits))
            wide += wide_images(read, limits, self._service.pixels_of)
        return ImageHeaders.joined(parts), wide

    def embed(self, which: tuple[int, int, int], spec: ExtractionSpec) -> list[Look]:
        """Embed some images of a shard, and those before them that are not done.

        Args:
            which: number of the shard, and positions in the fit of the first image and of the end.
            spec: how.

        Returns:
            The looks of these images.

        Raises:
            ConfigError: the extractor is not that of the fit.
            InvalidImage, UnsupportedImage, TooLarge: see `embed_all`.
            StorageError: the disk is full, or cannot be written.
        """
        number, start, end = which
        held, first = self._of_shard(number, spec), self._task.cuts[number]
        held.embed_until(self._service, end - first)
        return held.looks[start - first : end - first]

    def ask(
        self,
        number: int,
        spec: ExtractionSpec,
        images: Rows,
        pieces: Pieces | None,
        method: str,
        block: int,
        *arguments: Any,
    ) -> Any:
        """The answer of a shard; see `FitShard.ask`.

        Args:
            number: of the shard.
            spec: how its images are embedded, if they are not.
            images: int64 [n_images], see `Patches`.
            pieces: see `FitShard`.
            method, block, arguments: see `FitShard.ask`.
        """
        first, end = self._task.cuts[number : number + 2]
        shard = self._of_shard(number, spec).shard(self._service, first, images[first:end], pieces)
        return shard.ask(method, block, *arguments)

    def forget(self) -> None:
        """Delete what is kept on disk: the fit is done."""
        self._held = self._held_as = None
        Checkpoint(self._task.checkpoint, self._service.features.identity).remove()

    def process_id(self) -> int:
        """The process id of the worker."""
        return os.getpid()

    def _of_shard(self, number: int, spec: ExtractionSpec) -> _Held:
        if self._held is None or self._held_as != (number, spec):
            features = self._service.features_of(spec.profile, spec.detail)
            if features.identity != spec.identity:
                raise ConfigError(
                    f"a worker has another extractor ({features.identity}) than the command ({spec.identity}): "
                    "give all machines the same weights and settings"
                )
            bits = spec.depth.bits if spec.depth else FULL
            self._held = _Held(
                self._named(*self._task.cuts[number : number + 2]),
                Extraction(features, spec.depth, spec.tiles),
                features.dim // self._service.features.dim,
                Checkpoint(self._task.checkpoint, features.identity, bits, spec.tiles),
                self._task.checkpoint if spec.on_disk else None,
            )
            self._held_as = (number, spec)
        return self._held

    def _named(self, first: int, end: int) -> list[NamedImage]:
        return [NamedImage(image.title, partial(self._read, image)) for image in self._task.images[first:end]]

    def _read(self, image: PlacedImage) -> bytes:
        if (place := self._places.get(image.address)) is None:  # opening a bucket again costs new connections
            place = open_place(image.address, insecure=self._service.settings.models_url_insecure)
            self._places[image.address] = place
        return read_image(place, image.name, self._service.limits.max_bytes)


def _read_once(image: NamedImage) -> NamedImage:
    """The image with its content in memory."""
    content = image.read()
    return NamedImage(image.name, lambda: content)
