"""A fit by the workers of a cluster: each holds the embeddings of some images, and all together select the bank."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import structlog

from backend.bank.building import Bank, Base
from backend.bank.checkpoint import Checkpoint
from backend.bank.copies import Look
from backend.bank.embedding import Embedded, FitImages, ImageHeaders
from backend.bank.patches import Turn
from backend.bank.sharded import ShardedBlock, bank_of_shards, n_selected
from backend.bank.two_rounds import Pieces
from backend.bit_depth import BitDepth, Wide, agreed_depth
from backend.cluster.fit_plan import FitSize, Plan, check_disks, plan_of
from backend.cluster.fit_worker import HEADERS_AT_ONCE, ExtractionSpec, FitTask
from backend.cluster.workers import Workers
from backend.common.arrays import Embeddings
from backend.common.errors import InvalidRequest
from backend.common.profiles import CONTRACT, RECOMMENDED, DetailName, ProfileName, capped_rate, coreset_rate_of
from backend.common.telemetry import OnProgress
from backend.disk.progress import Run
from backend.patchcore import coreset_size
from backend.roi_mask import Shape
from backend.service.fit_executor import Extraction
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

_EMBEDDED_AT_ONCE = 16
# An array of so many bytes is sent to the object store of the cluster once, not with every call.
_SENT_ONCE = 1 << 20
_FORGET_WITHIN_S = 60.0

log: Any = structlog.get_logger(__name__)


class ClusterExecutor:
    """Executes a fit whose embeddings are in the memory of workers, or on their disks; see `FitExecutor`.

    Args:
        ray: the connected module.
        workers: actors of `FitWorker`.
        task: their input.
        on_progress: called with the step ``"headers"``, its finished images and all images.
        say: tells people that the memory bank will be selected in two rounds, and why.
    """

    def __init__(
        self, ray: Any, workers: Workers, task: FitTask, on_progress: OnProgress, say: Callable[[str], None]
    ) -> None:
        self._ray, self._workers, self._task, self._on_progress = ray, workers, task, on_progress
        self._say, self._plan = say, Plan()
        self._wide: list[Wide] = []
        self._sent_once: deque[tuple[Embeddings, Any]] = deque(maxlen=2)

    def read(
        self,
        service: InspectionService,
        images: Sequence[NamedImage],
        masks: Sequence[Shape | None],
        profile: ProfileName,
        detail: DetailName,
    ) -> FitImages:
        """See `FitExecutor`.

        Raises:
            TooLarge: the memory or a disk of the cluster is too small; the message has the calculation.
        """
        if self._task.shape is None:  # a mask may hide tiles, which are not embedded
            at_least = 1 if detail == "auto" else detail
            extraction = Extraction(service.features_of(profile, at_least), None, None)
            rate = coreset_rate_of(profile, service.settings.coreset_rate, at_least)
            n_embeddings = len(images) * extraction.per_image
            self._choose(service, extraction, capped_rate(rate, n_embeddings, service.settings.coreset_max))
        waiting, done = deque(range(0, len(images), HEADERS_AT_ONCE)), 0
        found: dict[int, tuple[ImageHeaders, list[Wide]]] = {}
        for first, part in self._workers.each("headers", lambda _: (waiting.popleft(),) if waiting else None):
            found[first] = part
            done += len(part[0].sizes)
            self._on_progress("headers", done, len(images))
        in_order = [found[first] for first in sorted(found)]
        self._wide = [image for _, wide in in_order for image in wide]
        return FitImages(images, masks, ImageHeaders.joined([headers for headers, _ in in_order]))

    def depth(
        self, _service: InspectionService, _new: FitImages, _recorded: BitDepth | None, _run: Run
    ) -> BitDepth | None:
        """See `FitExecutor`."""
        return agreed_depth(self._wide)

    def embed(
        self,
        service: InspectionService,
        extraction: Extraction,
        new: FitImages,
        rate: float,
        _base: Base | None,
        _checkpoint: Checkpoint | None,
        run: Run,
    ) -> Embedded:
        """See `FitExecutor`.

        Raises:
            InvalidRequest: the memory bank would keep every embedding.
            TooLarge: see `read`.
        """
        if rate >= 1:
            raise InvalidRequest(
                "a fit on a cluster selects a coreset, and CORESET_RATE=1 keeps every embedding: set CORESET_RATE "
                "below 1, or use `fit`"
            )
        self._workers.meanwhile = run.raise_if_cancelled
        self._choose(service, extraction, rate)
        spec, n_images, done = self._spec(service, extraction), len(new.images), 0
        calls = [
            deque(
                (number, start, min(start + _EMBEDDED_AT_ONCE, end)) for start in range(first, end, _EMBEDDED_AT_ONCE)
            )
            for number, (first, end) in enumerate(pairwise(self._task.cuts))
        ]
        looks: dict[int, list[Look]] = {}
        for (_, start, _), found in self._workers.each(
            "embed", lambda number: (calls[number].popleft(), spec) if calls[number] else None
        ):
            looks[start] = found
            done += len(found)
            run.report("extract", done, n_images)
        in_order = [look for start in sorted(looks) for look in looks[start]]
        return Embedded(np.empty((0, extraction.features.dim), np.float32), list(range(n_images)), in_order)

    def build(
        self,
        service: InspectionService,
        extraction: Extraction,
        _embedded: Embedded,
        identities: Sequence[str],
        rate: float,
        _base: Base | None,
        turn: Turn,
        run: Run,
        _joined: Mapping[str, str],
    ) -> Bank:
        """See `FitExecutor`."""
        numbers = {identity: number for number, identity in enumerate(dict.fromkeys(identities))}
        images = np.array([numbers[identity] for identity in identities])
        pieces = None
        if self._plan.most_images is not None:
            n_select = n_selected(images, extraction.per_image, rate)
            pieces = Pieces(self._plan.most_images, n_select, len(images), extraction.per_image)
        ask = partial(self._ask, self._ray.put(self._spec(service, extraction)), self._ray.put(images), pieces)
        blocks = [
            ShardedBlock(ask, block, images, extraction.per_image, self._task.cuts, turn)
            for block in range(extraction.features.dim // service.features.dim)
        ]
        return bank_of_shards(blocks, extraction.features.token_hw, rate, run.report, extraction.places, pieces)

    def forget(self) -> None:
        """Delete what the workers keep on their disks. The fit is stored: a worker that is lost now does no harm."""
        if n_failed := self._workers.tell("forget", _FORGET_WITHIN_S):
            log.warning(
                "fit.embeddings_left",
                n_workers=n_failed,
                hint=f"the fit is stored; machines of lost workers may keep {self._task.checkpoint}: delete it there",
            )

    def _ask(
        self,
        spec: Any,
        images: Any,
        pieces: Pieces | None,
        method: str,
        block: int,
        arguments: Mapping[int, tuple[Any, ...]],
    ) -> dict[int, Any]:
        calls = {
            number: (number, spec, images, pieces, method, block, *map(self._once, given))
            for number, given in arguments.items()
        }
        return self._workers.together("ask", calls)

    def _once(self, argument: Any) -> Any:
        """A large array that was sent before, by its reference."""
        if not isinstance(argument, np.ndarray) or argument.nbytes < _SENT_ONCE:
            return argument
        for array, reference in self._sent_once:
            if array is argument:
                return reference
        self._sent_once.append((argument, self._ray.put(argument)))
        return self._sent_once[-1][1]

    def _spec(self, service: InspectionService, extraction: Extraction) -> ExtractionSpec:
        profile: ProfileName = CONTRACT if extraction.features.dim == service.features.dim else RECOMMENDED
        return ExtractionSpec(
            profile,
            extraction.features.tiling.detail,
            extraction.features.identity,
            extraction.depth,
            extraction.tiles,
            self._plan.most_images is not None,
        )

    def _choose(self, service: InspectionService, extraction: Extraction, rate: float) -> None:
        """One round or two, by the memory of the cluster; says so if there are two, once for each plan.

        Args:
            service, extraction: of the fit.
            rate: share of the embeddings that the memory bank keeps.
        """
        n_images, dim = len(self._task.images), extraction.features.dim
        size = FitSize(
            n_images,
            extraction.per_image,
            dim,
            dim // service.features.dim,
            coreset_size(n_images * extraction.per_image, rate),
            len(self._workers.actors),
        )
        before, self._plan = self._plan, plan_of(size, self._workers.memory() / size.n_workers)
        if self._plan.most_images is not None:
            disks = self._workers.together("disk", dict.fromkeys(range(size.n_workers), ()))
            check_disks(size, list(disks.values()))
        if self._plan.notice and self._plan != before:
            self._say(self._plan.notice)
