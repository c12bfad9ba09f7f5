"""Images of good parts → the stored memory bank of a ROI."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from backend.bank.building import Bank, Base, bank_metadata, look_id, two_rounds_warning, why_unscored
from backend.bank.checkpoint import Checkpoint
from backend.bank.copies import Copies, Look, Miniature, copies_warning, near_copies
from backend.bank.embedding import Embedded, FitImages
from backend.bank.images import (
    SCORE_PERCENTILES,
    BankImage,
    remembered,
    shown_name,
    thumbnail,
)
from backend.bit_depth import FULL, NOT_SETTLED, BitDepth, unsettled
from backend.common.errors import Conflict
from backend.common.profiles import CONTRACT, DetailName, ProfileName, capped_rate, coreset_rate_of
from backend.common.roi_key import RoiKey
from backend.common.telemetry import OnProgress, annotate, stage
from backend.disk.fitted import FittedRoi
from backend.disk.progress import Run
from backend.features import DinoV2Features
from backend.patchcore import coreset_size
from backend.roi_mask import Shape
from backend.service.detail import fitted_tiles, seen_tiles, settle_detail
from backend.service.doubts import joined
from backend.service.fit_executor import Extraction, FitExecutor, LocalExecutor
from backend.service.fit_request import base_of, check_request, chosen_for
from backend.service.fit_result import fit_result
from backend.service.inspection import InspectionService
from backend.service.results import FitResult
from backend.utils import NamedImage, named_with

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Learned:
    """The result of a fit, before it is stored.

    Attributes:
        bank: the memory bank.
        rate: share of the embeddings that it keeps, if there is no base.
        images: what the bank records about them.
        n_embeddings: number of their patch embeddings.
        thumbnails: a small picture of each; empty bytes if none is kept.
        miniatures: of each; see `Look`.
        unscored: the reason if not all of them have a score by the memory bank of the others.
        warning: that some are near copies, that ``CORESET_MAX`` limits the bank, or that two rounds selected it.
    """

    bank: Bank
    rate: float
    images: list[BankImage]
    n_embeddings: int
    thumbnails: list[bytes]
    miniatures: list[Miniature]
    unscored: str | None
    warning: str | None


def fit(
    service: InspectionService,
    key: RoiKey,
    images: Sequence[NamedImage],
    *,
    mm_per_px: float,
    keep_all: bool = False,
    append: bool = False,
    group_copies: bool = False,
    shapes: Sequence[Shape | None] | None = None,
    with_scores: bool = True,
    thumbnails: bool = False,
    source: str | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    profile: ProfileName | None = None,
    detail: DetailName | None = None,
    smallest_defect_mm: float | None = None,
    save: Callable[..., str] | None = None,
    executor: FitExecutor | None = None,
) -> FitResult:
    """Learn what good parts look like, and replace the memory bank of the ROI.

    Args:
        service: who fits.
        key: the ROI.
        images: good parts, at least one.
        mm_per_px: millimetres per pixel, recorded with the memory.
        keep_all: keep every embedding instead of a coreset.
        append: keep the existing memory bank, and add what it lacks from these images.
        group_copies: count near copies as one image: images of a group are not compared with each other.
        shapes: mask of each image, in its pixels, within which it is scored; None is the whole image.
        with_scores: score the images by the memory bank of the others; false if the mask of one cannot be used.
        thumbnails: keep a small picture of every image with the memory.
        source: where the images came from, recorded with the memory.
        on_progress: called with the step (``"extract"``, ``"coreset"``, ``"score"``), its finished units and all its
            units.
        checkpoint: folder that keeps the embeddings of finished images, so that a stopped fit can resume; removed after
            the fit.
        profile: of the memory bank; None takes that of the bank that is appended to, else the configured one.
        detail: tiles along each side of the ROI, or ``"auto"``; None is as for `profile`. With `append`, ``"auto"``
            keeps that of the bank.
        smallest_defect_mm: length of the smallest defect that matters, in mm: ``"auto"`` chooses by it.
        save: stores the model instead of `ModelStore.save_memory`. It takes the same arguments, and `conclude`, which
            it calls before it stores anything. The scale is not locked then.
        executor: reads and embeds the images and selects the memory bank; None is this process.

    Raises:
        InvalidRequest: no image; images of different bit depths; ids that the file system cannot store; a profile for
            another network, or another profile or detail than that of the bank.
        InvalidImage: one of the images is broken; the message names it, and nothing is replaced.
        InvalidShape: a mask selects no pixel of its image.
        MemoryNotFound, IncompatibleMemory: there is no model to append to, or it was built by another extractor.
        TooLarge: the embeddings do not fit into the free memory; the message has the calculation.
        Conflict: the recipe is locked to another `mm_per_px`; the model cannot be appended to, or was replaced
            meanwhile.
        Busy: the queue is full.
        RunCancelled: somebody cancelled it; nothing is replaced.
        StorageError: the model cannot be written.
    """
    check_request(service, key, images, mm_per_px, keep_all=keep_all, append=append)
    chosen, asked = chosen_for(service, key, profile, detail, append=append)
    features, executor = service.features_of(chosen), executor or LocalExecutor()
    annotate(n_images=len(images), device=service.features.runtime.device)
    with service.queue.fit() as wait_for_those_before:
        with stage("decode"):  # what a header can tell, it tells before any image costs time
            sent = executor.read(service, images, shapes or [None] * len(images), chosen, asked)
        with service.runs.run("fit", key, len(images), on_progress) as run:
            wait_for_those_before(run.raise_if_cancelled)
            # Only now: those before may have appended to it.
            before, base = base_of(service, key) if append else (None, None)
            if before is not None and (before.profile, before.detail) != (chosen, asked):
                now = f"profile={before.profile}, detail={before.detail}"
                raise Conflict(f"{key} was fitted with {now} meanwhile: append once more")
            settled = settle_detail(asked, features, sent.headers.sizes, mm_per_px, smallest_defect_mm)
            features = features.at(settled.number)
            rate = 1.0 if keep_all else coreset_rate_of(chosen, service.settings.coreset_rate, settled.number)
            new = sent if base is None else sent.without_files_of(base.images)
            tiles = seen_tiles(features, new.headers.sizes, new.masks, service.settings.blur_sigma)
            depth, warning = _depth(service, executor, new, before, run)
            warning = joined([warning, settled.warning])
            bits = depth.bits if depth else FULL
            kept = None if checkpoint is None else Checkpoint(checkpoint, features.identity, bits, tiles)
            extraction = Extraction(features, depth, tiles)
            most = capped_rate(rate, max(1, len(new.images) * extraction.per_image), service.settings.coreset_max)
            embedded = executor.embed(service, extraction, new, most, base, kept, run)
            pixels = dict(zip(new.headers.digests, (look.pixels_sha256 for look in embedded.looks), strict=True))
            if before and base and not embedded.numbers:
                size = len(base.memory.embeddings)
                as_before = (base.images, base.n_embeddings, size, before.memory_id)
                result = fit_result(service, key, chosen, settled, sent, pixels, *as_before, None)
                return replace(result, warning=warning)
            learn = partial(_learn, with_scores=with_scores, with_thumbnails=thumbnails, group_copies=group_copies)
            learned = learn(service, executor, extraction, new.only(embedded.numbers), embedded, rate, base, run)
            every = [*(base.images if base else []), *learned.images]
            metadata = _metadata(service, features, learned, base, every, mm_per_px, source)
            metadata |= fitted_tiles(features, tiles, before)
            metadata |= depth.as_metadata() if depth else {}
            metadata |= {"profile": chosen} if chosen != CONTRACT else {}
            memory_id = _store(service, key, learned, base, metadata, before, mm_per_px, save, run)
    service.drift.forget(key)
    if kept is not None:
        kept.remove()
    bank = learned.bank
    counts = (metadata["n_embeddings"], len(bank.memory.embeddings))
    result = fit_result(service, key, chosen, settled, sent, pixels, every, *counts, memory_id, learned.unscored)
    if bank.radius_bounds is not None:
        result = replace(result, covering_radii=bank.covering_radii, radius_bounds=bank.radius_bounds)
    return replace(result, warning=joined([warning, learned.warning]))


def _depth(
    service: InspectionService, executor: FitExecutor, new: FitImages, before: FittedRoi | None, run: Run
) -> tuple[BitDepth | None, str | None]:
    """How 16-bit images are read, from `settle` or from the previous model, and a warning if this is doubtful."""
    recorded = None if before is None else BitDepth.of(before.metadata)
    if before is not None and recorded is None:
        is_unsettled = any(unsettled(image.read(), None) for image in new.images)
        return None, NOT_SETTLED if is_unsettled else None
    with stage("decode"):
        return executor.depth(service, new, recorded, run), None


def _learn(
    service: InspectionService,
    executor: FitExecutor,
    extraction: Extraction,
    new: FitImages,
    embedded: Embedded,
    rate: float,
    base: Base | None,
    run: Run,
    *,
    with_scores: bool,
    with_thumbnails: bool,
    group_copies: bool,
) -> _Learned:
    """Select the memory bank, and score each image by the bank of the others."""
    headers = new.headers
    turn = partial(_coreset_turn, service, run)
    looks = [embedded.looks[number] for number in embedded.numbers]
    own = [look.pixels_sha256 for look in looks]
    known = base.known() if base else []
    known_own = [image.identity for image, _ in known]
    every_look = [*(Look(look_id(image), miniature) for image, miniature in known), *looks]
    copies = Copies.of([*known_own, *own], near_copies(every_look, turn, len(known)))
    identities = copies.identities[len(known) :] if group_copies else own
    joined_own = dict(zip(known_own, copies.identities, strict=False)) if group_copies else {}
    kept, capped = rate, None
    if base is None:
        kept, capped = _capped(service, extraction, rate, identities)
    bank = executor.build(service, extraction, embedded, identities, kept, base, turn, run, joined_own)
    percentiles = (*SCORE_PERCENTILES, service.settings.score_percentile) if with_scores else ()
    images = []
    for number, (image, mask) in enumerate(zip(new.images, new.masks, strict=True)):
        run.raise_if_cancelled()
        image_hw = headers.sizes[number]
        with stage("score"), service.hold_pixels(image_hw[0] * image_hw[1]):
            images.append(
                remembered(
                    image.name,
                    headers.digests[number],
                    own[number],
                    image_hw,
                    mask,
                    number,
                    bank.held_out,
                    extraction.features.token_hw,
                    blur_sigma=service.settings.blur_sigma,
                    percentiles=percentiles,
                    copy_of=identities[number] if identities[number] != own[number] else None,
                    uploaded_as=image.uploaded_as,
                    tiles=extraction.tiles,
                )
            )
    pictures = [_thumbnail(service, image, extraction.depth, run) if with_thumbnails else b"" for image in new.images]
    names = [f"{named_with(image.name, image.uploaded_as)} (in the memory bank)" for image, _ in known]
    names += [shown_name(image.title) for image in new.images]
    warning = copies_warning(names, copies, grouped=group_copies)
    if warning:
        log.warning("fit.near_copies", reason=warning)
    warning = joined([warning, base.copies_not_sought() if base else None, capped, two_rounds_warning(bank)])
    n_embeddings = len(embedded.numbers) * extraction.per_image
    unscored = why_unscored(bank, len(new.images), n_embeddings, with_scores)
    return _Learned(bank, kept, images, n_embeddings, pictures, [look.miniature for look in looks], unscored, warning)


def _capped(
    service: InspectionService, extraction: Extraction, rate: float, identities: Sequence[str]
) -> tuple[float, str | None]:
    """The share that ``CORESET_MAX`` leaves of the embeddings of different images, and a warning if it does."""
    most, per_image = service.settings.coreset_max, extraction.per_image
    n_embeddings, n_with_copies = len(set(identities)) * per_image, len(identities) * per_image
    kept = capped_rate(rate, n_embeddings, most, n_with_copies)
    if kept == rate:
        return rate, None
    n_blocks = extraction.features.dim // service.features.dim
    each = "the memory bank" if n_blocks == 1 else f"each of the {n_blocks} memory banks"
    size, of = coreset_size(n_embeddings, kept), n_with_copies if rate == 1 else n_embeddings
    return kept, (
        f"{each} keeps {size} of {of} patch embeddings, {100 * size / of:.3g} % instead of {100 * rate:.3g} %, "
        f"because CORESET_MAX allows no more than {most}"
    )


def _metadata(
    service: InspectionService,
    features: DinoV2Features,
    learned: _Learned,
    base: Base | None,
    images: Sequence[BankImage],
    mm_per_px: float,
    source: str | None,
) -> dict[str, Any]:
    """The metadata of a memory bank: which images may be compared with it, and how it was made."""
    metadata = {
        "extractor": features.identity.as_dict(),
        **bank_metadata(learned.bank, base, images, len(learned.images), learned.n_embeddings, learned.rate, mm_per_px),
        "blur_sigma": service.settings.blur_sigma,
    }
    if source := source or (base.source if base else None):
        metadata["source"] = source
    return metadata


def _store(
    service: InspectionService,
    key: RoiKey,
    learned: _Learned,
    base: Base | None,
    metadata: dict[str, Any],
    before: FittedRoi | None,
    mm_per_px: float,
    save: Callable[..., str] | None,
    run: Run,
) -> str:
    """Replace the memory bank of the ROI, and lock its recipe to the scale if it is the first; returns its identity."""
    thumbnails = [*(base.thumbnails if base else []), *learned.thumbnails]
    miniatures = dict(base.miniatures) if base else {}
    first = len(base.images) if base else 0
    miniatures |= enumerate(learned.miniatures, start=first)
    maps = dict(service.store.honest_maps(before)) if before else {}
    maps |= {first + position: found for position, found in learned.bank.honest_maps.items()}
    is_written, memory = partial(service.store.file_identity, key), learned.bank.memory
    if save is None:
        run.conclude()
    locked = mm_per_px if save is None else None
    save_memory = service.store.save_memory if save is None else partial(save, conclude=run.conclude)
    with stage("store"), service.recipes.locking_scale(key.recipe_id, locked, is_written):
        return save_memory(
            key, memory, metadata, thumbnails=thumbnails, miniatures=miniatures, honest_maps=maps, instead_of=before
        )


@contextlib.contextmanager
def _coreset_turn(service: InspectionService, run: Run) -> Iterator[None]:
    run.raise_if_cancelled()
    with service.queue.fit_turn(), stage("coreset"):
        yield


def _thumbnail(service: InspectionService, image: NamedImage, depth: BitDepth | None, run: Run) -> bytes:
    run.raise_if_cancelled()
    with service.pixels_of(image):
        pixels, _ = service.decode(image, depth)
        return thumbnail(pixels)
