"""Executors of a fit: they read the headers of images, embed these, and select the memory bank."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from backend.bank.building import Bank, Base, build_bank
from backend.bank.checkpoint import Checkpoint
from backend.bank.embedding import Embedded, FitImages, embed_all
from backend.bank.memory_limits import check_memory
from backend.bank.patches import Rows, Turn
from backend.bit_depth import BitDepth, settle
from backend.common.profiles import DetailName, ProfileName
from backend.disk.progress import Run
from backend.features import DinoV2Features
from backend.roi_mask import Shape
from backend.service.inspection import InspectionService
from backend.utils import NamedImage


class Extraction(NamedTuple):
    """How the images of a fit become embeddings.

    Attributes:
        features: the extractor.
        depth: how images of 16 bits are read.
        tiles: numbers of the tiles that are embedded, rising; None is all.
    """

    features: DinoV2Features
    depth: BitDepth | None
    tiles: Sequence[int] | None

    @property
    def places(self) -> Rows | None:
        """Positions in the token grid of the patches of an image; None is the whole grid."""
        return None if self.tiles is None else self.features.tiling.places(self.tiles)

    @property
    def per_image(self) -> int:
        """Patches of an image."""
        rows, columns = self.features.token_hw
        return rows * columns if self.places is None else len(self.places)


class FitExecutor(Protocol):
    """Executes the steps of a fit that need all its images: in this process, or elsewhere."""

    def read(
        self,
        service: InspectionService,
        images: Sequence[NamedImage],
        masks: Sequence[Shape | None],
        profile: ProfileName,
        detail: DetailName,
    ) -> FitImages:
        """Refuse images that cannot be fitted, as far as their headers show this; see `read_headers`.

        Args:
            service: who fits.
            images, masks: of the fit.
            profile, detail: of the memory bank.
        """
        ...

    def depth(self, service: InspectionService, new: FitImages, recorded: BitDepth | None, run: Run) -> BitDepth | None:
        """How 16-bit images are read; see `settle`."""
        ...

    def embed(
        self,
        service: InspectionService,
        extraction: Extraction,
        new: FitImages,
        rate: float,
        base: Base | None,
        checkpoint: Checkpoint | None,
        run: Run,
    ) -> Embedded:
        """Embed images, except those whose pixels are already in the base.

        Args:
            service: who fits.
            extraction: how.
            new: the images.
            rate: share of the embeddings that the memory bank keeps, if there is no base.
            base: the model to append to.
            checkpoint: keeps what was embedded.
            run: is told of the progress.
        """
        ...

    def build(
        self,
        service: InspectionService,
        extraction: Extraction,
        embedded: Embedded,
        identities: Sequence[str],
        rate: float,
        base: Base | None,
        turn: Turn,
        run: Run,
        joined: Mapping[str, str],
    ) -> Bank:
        """Select the memory bank, and compare each image with that of the others.

        Args:
            service, extraction, rate, base, run: see `embed`.
            embedded: what `embed` returned.
            identities, turn, joined: see `build_bank`.
        """
        ...


class LocalExecutor:
    """Executes a fit whose embeddings fit into the memory of this process; see `FitExecutor`."""

    def read(
        self,
        service: InspectionService,
        images: Sequence[NamedImage],
        masks: Sequence[Shape | None],
        _profile: ProfileName,
        _detail: DetailName,
    ) -> FitImages:
        """See `FitExecutor`."""
        return FitImages.read(images, masks, service.limits)

    def depth(self, service: InspectionService, new: FitImages, recorded: BitDepth | None, run: Run) -> BitDepth | None:
        """See `FitExecutor`."""

        def pixels_of(image: NamedImage) -> contextlib.AbstractContextManager[None]:
            run.raise_if_cancelled()
            return service.pixels_of(image)

        return settle(new.images, service.limits, pixels_of, recorded)

    def embed(
        self,
        service: InspectionService,
        extraction: Extraction,
        new: FitImages,
        rate: float,
        base: Base | None,
        checkpoint: Checkpoint | None,
        run: Run,
    ) -> Embedded:
        """See `FitExecutor`."""
        features, headers = extraction.features, new.headers
        if not new.images:
            return Embedded(np.empty((0, features.dim), np.float32), [], [])
        check_memory(
            features,
            len(new.images),
            base.coreset_rate if base else rate,
            headers.most_pixels,
            headers.most_bytes,
            len(base.memory.embeddings) if base else 0,
            extraction.per_image,
        )
        return embed_all(
            new.images,
            features,
            service.limits,
            turn=service.queue.fit_turn,
            checkpoint=checkpoint,
            on_progress=partial(run.report, "extract"),
            depth=extraction.depth,
            known={image.pixels_sha256 for image in base.images if image.pixels_sha256} if base else (),
            tiles=extraction.tiles,
        )

    def build(
        self,
        service: InspectionService,
        extraction: Extraction,
        embedded: Embedded,
        identities: Sequence[str],
        rate: float,
        base: Base | None,
        turn: Turn,
        run: Run,
        joined: Mapping[str, str],
    ) -> Bank:
        """See `FitExecutor`."""
        return build_bank(
            embedded.embeddings,
            identities,
            extraction.features.token_hw,
            rate,
            base,
            turn,
            run.report,
            joined,
            extraction.features.dim // service.features.dim,
            extraction.places,
        )
