"""The use cases: fit, calibrate, infer. No HTTP, no file formats."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from backend import calib
from backend.bank.building import Bank, Base, bank_metadata, build_bank
from backend.bank.checkpoint import Checkpoint
from backend.bank.embedding import embed_all, read_headers
from backend.bank.images import SCORE_PERCENTILES, BankImage, describe, suspicious_images, thumbnail
from backend.bank.memory_limits import check_memory
from backend.calib import Calibration
from backend.common.config import Settings
from backend.common.errors import (
    Conflict,
    DamagedMemory,
    IncompatibleMemory,
    InvalidRequest,
    MemoryNotFound,
    StorageError,
)
from backend.common.roi_key import RoiKey
from backend.common.telemetry import SCORES, annotate, stage
from backend.disk.datasets import DatasetStore
from backend.disk.fitted import CalibrationState, FittedRoi
from backend.disk.older_layouts import has_older_images
from backend.disk.progress import Progress, RunBoard
from backend.disk.recipes import RecipeStore, same_scale
from backend.disk.versions import Version
from backend.features import DinoV2Features
from backend.infer import Finding, Inference, InferenceEngine
from backend.network.loading import open_features
from backend.network.queueing import NetworkQueue
from backend.roi_mask import Shape
from backend.service.drift import DriftLog
from backend.service.pixel_budget import PixelBudget
from backend.service.results import FitResult, InferResult, RoiState
from backend.storage import ModelStore
from backend.utils import ImageLimits, NamedImage, check_image, decode_image, encode_png_base64

# On CUDA, how long a forward pass waits for other inferences to share it: little beside the pass itself.
_BATCH_WINDOW_S = 0.003

log: Any = structlog.get_logger(__name__)


class InspectionService:
    """Fits, calibrates and infers ROIs; safe to call from many threads.

    Args:
        settings: the configuration.
        features: the extractor.
        store: the models.
        reason: why the extractor does not run where ``DEVICE`` asked for, if so.
    """

    def __init__(
        self, settings: Settings, features: DinoV2Features, store: ModelStore, reason: str | None = None
    ) -> None:
        self.settings = settings
        self.features = features
        self.store = store
        self.recipes = RecipeStore(settings.models_dir)
        self.datasets = DatasetStore(settings.models_dir)
        self.runs = RunBoard(settings.models_dir)
        self.drift = DriftLog(settings.models_dir, store, settings.drift_reject_rate)
        self.reason = reason
        self._engine = InferenceEngine(features, settings.blur_sigma)
        batch = features.runtime.batch
        self._queue = NetworkQueue(
            features.runtime.forward,
            max_inferences=settings.max_queue,
            max_fits=settings.max_fits,
            batch=batch,
            window_s=_BATCH_WINDOW_S,
        )
        self.limits = ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
        self._pixels = PixelBudget(settings.max_pixels)

    @classmethod
    def open(cls, settings: Settings) -> "InspectionService":
        """Find the weights and load the network.

        Raises:
            ConfigError: no verified weights, or a runtime that is not installed.
        """
        features, reason = open_features(settings)
        if has_older_images(settings.models_dir):
            log.info("older_images.found", hint="python -m backend migrate MODELS_DIR copies those that are not yet")
        store = ModelStore(settings.models_dir, settings.keep_versions, settings.blur_sigma)
        service = cls(settings, features, store, reason)
        service.runs.running()  # clears what a killed process left, where nobody asks for runs
        return service

    def fit_ok(
        self,
        key: RoiKey,
        images: Sequence[NamedImage],
        *,
        mm_per_px: float,
        keep_all: bool = False,
        append: bool = False,
        shapes: Sequence[Shape | None] | None = None,
        with_scores: bool = True,
        thumbnails: bool = False,
        source: str | None = None,
        on_progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> FitResult:
        """Learn what OK looks like and replace the ROI's memory bank.

        Args:
            key: the ROI.
            images: good parts, at least one.
            mm_per_px: millimetres per pixel, recorded with the memory.
            keep_all: keep every embedding instead of a coreset.
            append: keep the memory bank that there is, and add what it lacks of these images.
            shapes: mask of each image, in its pixels, within which it is scored; None is the whole image.
            with_scores: score the images by the memory bank of the others.
            thumbnails: keep a small picture of every image with the memory.
            source: where the images came from, recorded with the memory.
            on_progress: called with the step (``"extract"``, ``"coreset"``, ``"score"``), how much of it is done, and
                of how much.
            checkpoint: folder that keeps the embeddings of finished images, so that a fit that was stopped goes on
                where it was; removed when the fit is done.

        Raises:
            InvalidRequest: no image, or ids that the file system cannot hold.
            InvalidImage: one of the images is broken; the message names it, and nothing is replaced.
            InvalidShape: a mask selects no pixel of its image.
            MemoryNotFound, IncompatibleMemory: there is nothing to append to, or it was built by another extractor.
            TooLarge: the embeddings would not fit into the memory that is free; the message has the arithmetic.
            Conflict: the recipe is locked to another `mm_per_px`; what there is cannot be appended to, or was replaced
                meanwhile.
            Busy: the queue is full.
            StorageError: the model cannot be written.
        """
        if not images:
            raise InvalidRequest("no images: send at least one good image in the file field 'images'")
        self.recipes.check(key.recipe_id, mm_per_px)
        self.store.check_savable(key)
        if append and keep_all:
            raise InvalidRequest("memory_fit goes without append: what is appended to decides what is kept")
        base = self._base(key) if append else None
        annotate(n_images=len(images), device=self.features.runtime.device)
        rate = 1.0 if keep_all else self.settings.coreset_rate
        masks = sent_masks = shapes or [None] * len(images)
        kept = None if checkpoint is None else Checkpoint(checkpoint, self.features.identity)
        with self._queue.fit() as wait_for_those_before:
            with stage("decode"):  # what a header can tell, it tells before any image costs time
                seen = read_headers(images, masks, self.limits)
            with self.runs.run("fit", key, len(images), on_progress) as run:
                wait_for_those_before()
                sent = seen.digests
                if base is not None:
                    base = self._base(key)  # those before may have appended to it
                    known = {image.sha256 for image in base.images}
                    new = [number for number, digest in enumerate(sent) if digest not in known]
                    if not new:
                        size, known_as = len(base.memory.embeddings), base.fitted.memory_id
                        return self._fitted(base.n_embeddings, size, known_as, key, base.images, sent, sent_masks)
                    images, masks, seen = [images[number] for number in new], [masks[n] for n in new], seen.only(new)
                n_before = len(base.memory.embeddings) if base else 0
                check_memory(
                    self.features,
                    len(images),
                    base.coreset_rate if base else rate,
                    seen.most_pixels,
                    seen.most_bytes,
                    n_before,
                )
                embeddings = embed_all(
                    images,
                    self.features,
                    self.limits,
                    turn=self._queue.fit_turn,
                    checkpoint=kept,
                    on_progress=partial(run.report, "extract"),
                )
                bank = build_bank(
                    embeddings, seen.digests, self.features.token_hw, rate, base, self._coreset_turn, run.report
                )
                described = [
                    self._describe(image, digest, number, size, mask, bank, with_score=with_scores)
                    for number, (image, digest, size, mask) in enumerate(
                        zip(images, seen.digests, seen.sizes, masks, strict=True)
                    )
                ]
                pictures = [self._thumbnail(image) if thumbnails else b"" for image in images]
            every = [*(base.images if base else []), *described]
            source = source or (base.source if base else None)
            metadata = {
                "extractor": self.features.identity.as_dict(),
                **bank_metadata(bank, base, every, len(described), rate, mm_per_px),
                "blur_sigma": self.settings.blur_sigma,
                **({"source": source} if source else {}),
            }
            stored = partial(self.store.written, key)
            with stage("store"), self.recipes.settling(key.recipe_id, mm_per_px, stored):
                memory_id = self.store.save_memory(
                    key,
                    bank.memory,
                    metadata,
                    thumbnails=[*(base.thumbnails if base else []), *pictures],
                    instead_of=base.fitted if base else None,
                )
        self.drift.forget(key)
        if kept is not None:
            kept.remove()
        size = len(bank.memory.embeddings)
        return self._fitted(metadata["n_embeddings"], size, memory_id, key, every, sent, sent_masks)

    def _fitted(
        self,
        n_embeddings: int,
        coreset_size: int,
        memory_id: str,
        key: RoiKey,
        images: Sequence[BankImage],
        sent: Sequence[str],
        masks: Sequence[Shape | None],
    ) -> FitResult:
        """What a fit replies.

        Args:
            n_embeddings: patch embeddings of all images.
            coreset_size: how many of them the memory bank holds.
            memory_id: its identity.
            key: the ROI.
            images: all that it was built from.
            sent: hashes of those that were sent.
            masks: of those; what one scored within another mask is no score of it.
        """
        state, percentile = self._calibration_state(key), self.settings.score_percentile
        annotate(token_shape=list(self.features.token_hw), n_embeddings=n_embeddings, calibration=state)
        by_digest = {image.sha256: image for image in images}
        fitted = [by_digest[digest] for digest in sent]
        suspicious = suspicious_images(fitted, percentile, images)
        if suspicious:
            names = [image.filename for image in suspicious]
            log.warning("fit.suspicious_images", images=names, hint="they score far above the others: defective?")
        scores = [
            score
            for image, mask in zip(fitted, masks, strict=True)
            if image.has_mask(mask) and (score := image.score(percentile)) is not None
        ]
        return FitResult(
            n_embeddings,
            coreset_size,
            memory_id,
            self.features.token_hw,
            state,
            scores if len(scores) == len(fitted) else None,
            suspicious,
        )

    def _base(self, key: RoiKey) -> Base:
        fitted = self.fitted(key, with_calibration=False)
        base = Base.of(fitted, self.store.thumbnails(fitted), self.settings.blur_sigma)
        if fitted.key.owner != key.owner:
            raise Conflict(f"{key} has no memory bank of its own to append to, that of {fitted.key} is used: fit first")
        return base

    def _describe(
        self,
        image: NamedImage,
        digest: str,
        number: int,
        image_hw: tuple[int, int],
        mask: Shape | None,
        bank: Bank,
        *,
        with_score: bool,
    ) -> BankImage:
        with stage("score"), self._pixels.hold(image_hw[0] * image_hw[1]):
            return describe(
                image.name,
                digest,
                image_hw,
                mask,
                number,
                bank.held_out,
                self.features.token_hw,
                blur_sigma=self.settings.blur_sigma,
                percentiles=(*SCORE_PERCENTILES, self.settings.score_percentile) if with_score else (),
            )

    def _thumbnail(self, image: NamedImage) -> bytes:
        with self.pixels_of(image):
            return thumbnail(self.decode(image))

    def calibrate_ng(
        self,
        key: RoiKey,
        ok_scores: Sequence[float],
        ng_scores: Sequence[float],
        *,
        mm_per_px: float,
        area_mm2_thr: float | None = None,
        score_percentile: float | None = None,
        memory_id: str | None = None,
        target_false_reject_rate: float | None = None,
        n_candidates: int = 1,
        ok_are_fresh: bool | None = None,
    ) -> Calibration:
        """Choose the ROI's threshold from image scores and store it.

        Args:
            key: the ROI.
            ok_scores: scores that `infer` gave for good parts, at least one.
            ng_scores: scores of defective parts, possibly none.
            mm_per_px: millimetres per pixel.
            area_mm2_thr: smallest region in mm²; None takes the configured one.
            score_percentile: percentile that the scores are; None takes the configured one.
            memory_id: the memory bank that the scores came from; None takes the stored one on trust.
            target_false_reject_rate, n_candidates, ok_are_fresh: as for `calib.calibrate`.

        Raises:
            InvalidRequest: the ids are too long for a file name.
            Conflict: the recipe is locked to another `mm_per_px`, or the ROI has another memory bank than `memory_id`
                by now.
            IncompatibleMemory: the stored memory was built by another extractor, and no score can come from it.
            StorageError: the stored memory is damaged, or the calibration cannot be written.
        """
        self.recipes.check(key.recipe_id, mm_per_px)
        with contextlib.suppress(MemoryNotFound):  # who has scores may calibrate before the fit
            stored = self.fitted(key, with_calibration=False).memory_id
            memory_id = memory_id or stored
        calibration = calib.calibrate(
            ok_scores,
            ng_scores,
            mm_per_px=mm_per_px,
            area_mm2_thr=self.settings.area_mm2_thr if area_mm2_thr is None else area_mm2_thr,
            score_percentile=self.settings.score_percentile if score_percentile is None else score_percentile,
            memory_id=memory_id,
            blur_sigma=self.settings.blur_sigma,
            target_false_reject_rate=target_false_reject_rate,
            n_candidates=n_candidates,
            ok_are_fresh=ok_are_fresh,
        )
        self.store.save_calibration(key, calibration)
        self.drift.begin(key, calibration, () if ok_are_fresh is False else ok_scores)
        annotate(n_ok=len(ok_scores), n_ng=len(ng_scores), threshold=calibration.threshold)
        return calibration

    def roll_back(self, key: RoiKey, version: int | None = None) -> tuple[Version, FittedRoi]:
        """Serve again what the ROI's own model was before a change, with the calibration that it had then.

        Args:
            key: the ROI.
            version: its number; None is the newest.

        Returns:
            The version, and the model that is served now.

        Raises:
            VersionNotFound, Conflict, InvalidRequest, StorageError: as `ModelStore.roll_back`.
            IncompatibleMemory: the version was built by another extractor; nothing was changed.
            Conflict: it is of another scale than the recipe is locked to now; nothing was changed.
        """
        chosen, fitted = self.store.roll_back(key, version, accept=partial(self._accept, key))
        self.drift.forget(key)
        annotate(version=chosen.number, memory_id=fitted.memory_id, calibration=fitted.calibration_state)
        return chosen, fitted

    def _accept(self, key: RoiKey, version: Version, fitted: FittedRoi) -> None:
        name = f"version {version.number} of {key}"
        if differences := differences_from(self.features, fitted):
            raise IncompatibleMemory(
                f"{name} was built by another extractor ({'; '.join(differences)}) and cannot be served; nothing was "
                "changed: roll back to another version, or refit"
            )
        locked, recorded = self.recipes.mm_per_px(key.recipe_id), fitted.metadata.get("mm_per_px")
        if locked is not None and isinstance(recorded, int | float) and not same_scale(locked, recorded):
            raise Conflict(
                f"{name} was fitted at mm_per_px {recorded:g}, and its recipe is locked to {locked:g}; nothing was "
                "changed: roll back to another version, or refit"
            )

    def infer(
        self,
        key: RoiKey,
        image: NamedImage,
        *,
        mm_per_px: float,
        shape: Shape | None = None,
        score_percentile: float | None = None,
        percentiles: Sequence[float] = (),
    ) -> InferResult:
        """Score one image against the ROI's memory bank, by the ROI's own calibration.

        Args:
            key: the ROI.
            image: the canonical ROI image.
            mm_per_px: millimetres per pixel of this image.
            shape: mask in pixels of this image.
            score_percentile: percentile that is the score, whatever the calibration, which then is not applied: its
                threshold was chosen from other scores. None takes the calibration's, or the configured one.
            percentiles: of the same map, for more scores; see `Finding`.

        Raises:
            MemoryNotFound: the ROI was never fitted.
            IncompatibleMemory: its memory was built by another extractor.
            Conflict: the recipe is locked to another `mm_per_px`.
            InvalidImage, InvalidShape: see `decode_image`, `build_mask`.
            Busy: the queue is full.
            StorageError: stored files are damaged.
        """
        self.recipes.check(key.recipe_id, mm_per_px)
        fitted = self.fitted(key)
        with self.inference_place():
            result = self.judge(
                fitted,
                image,
                mm_per_px=mm_per_px,
                shape=shape,
                score_percentile=score_percentile,
                percentiles=percentiles,
            )
        annotate(
            n_images=1,
            device=self.features.runtime.device,
            image_hw=list(result.image_hw),
            token_shape=list(fitted.memory.token_hw),
            score=round(result.inference.score, 6),
            n_regions=len(result.inference.regions),
        )
        if fitted.layout != "current":
            annotate(layout=fitted.layout)
        if fitted.calibration_state == "stale":
            annotate(calibration="stale: made for an earlier fit or another BLUR_SIGMA, not applied; calibrate again")
        return result

    def judge(
        self,
        fitted: FittedRoi,
        image: NamedImage,
        *,
        mm_per_px: float,
        shape: Shape | None = None,
        score_percentile: float | None = None,
        percentiles: Sequence[float] = (),
        with_heatmap: bool = True,
    ) -> InferResult:
        """Score one image against a model; the caller holds an `inference_place`.

        Args:
            fitted: what `fitted` gave.
            image, mm_per_px, shape, score_percentile, percentiles: as for `infer`.
            with_heatmap: False leaves the encoded heatmap empty, for who needs the score only.

        Raises:
            InvalidImage, InvalidShape: see `decode_image`, `build_mask`.
        """
        with self.pixels_of(image):
            return self._judge(
                fitted,
                image,
                mm_per_px=mm_per_px,
                shape=shape,
                score_percentile=score_percentile,
                percentiles=percentiles,
                with_heatmap=with_heatmap,
            )

    @contextlib.contextmanager
    def pixels_of(self, image: NamedImage) -> Iterator[None]:
        """Hold room for the pixels of an image; decode it inside, and drop what was made of it before the end.

        Raises:
            InvalidImage, UnsupportedImage, TooLarge: see `check_image`.
        """
        width, height = check_image(image.read(), image.name, self.limits)
        with self._pixels.hold(width * height):
            yield

    def _judge(
        self,
        fitted: FittedRoi,
        image: NamedImage,
        *,
        mm_per_px: float,
        shape: Shape | None,
        score_percentile: float | None,
        percentiles: Sequence[float],
        with_heatmap: bool,
    ) -> InferResult:
        pixels = self.decode(image)
        inference, calibration = self.run_engine(
            fitted,
            pixels,
            mm_per_px=mm_per_px,
            shape=shape,
            score_percentile=score_percentile,
            percentiles=percentiles,
        )
        heatmap = ""
        if with_heatmap:
            with stage("encode"):
                heatmap = encode_png_base64(inference.heatmap)
        SCORES.observe(inference.score)
        state = fitted.calibration_state if score_percentile is None else "none"
        # The maps are as large as the image: they end here.
        finding = Finding(inference.score, inference.regions, inference.scores)
        return InferResult(finding, (pixels.shape[0], pixels.shape[1]), heatmap, fitted, calibration, state)

    def decode(self, image: NamedImage) -> npt.NDArray[np.uint8]:
        """The pixels of an image, uint8 [H, W, 3], BGR; the caller holds `pixels_of` it.

        Raises:
            InvalidImage: see `decode_image`.
        """
        with stage("decode"):
            return decode_image(image.read(), image.name, self.limits)

    def run_engine(
        self,
        fitted: FittedRoi,
        pixels: npt.NDArray[np.uint8],
        *,
        mm_per_px: float,
        shape: Shape | None,
        score_percentile: float | None = None,
        percentiles: Sequence[float] = (),
    ) -> tuple[Inference, Calibration | None]:
        """One image through a model, and the calibration that it was judged by; the caller holds an `inference_place`.

        Args:
            fitted: what `fitted` gave.
            pixels: uint8 [H, W, 3], BGR.
            mm_per_px, shape, score_percentile, percentiles: as for `infer`.

        Raises:
            InvalidShape: see `build_mask`.
        """
        percentile, area_mm2_thr = score_percentile or self.settings.score_percentile, self.settings.area_mm2_thr
        calibration = fitted.calibration if score_percentile is None else None
        if calibration is not None:
            percentile = percentile if calibration.score_percentile is None else calibration.score_percentile
            area_mm2_thr = area_mm2_thr if calibration.area_mm2_thr is None else calibration.area_mm2_thr
        inference = self._engine.run(
            pixels,
            fitted.memory,
            mm_per_px=mm_per_px,
            shape=shape,
            threshold=calibration.threshold if calibration else None,
            score_percentile=percentile,
            percentiles=percentiles,
            area_mm2_thr=area_mm2_thr,
            run_network=self._queue.infer,
        )
        return inference, calibration

    def inference_place(self) -> contextlib.AbstractContextManager[None]:
        """One of the places for inferences, for one image or for many that are judged one after the other.

        Raises:
            Busy: every place is taken.
        """
        return self._queue.inference()

    def _calibration_state(self, key: RoiKey) -> CalibrationState:
        """What became of the ROI's calibration with a fit; the log warns where none applies any more."""
        try:
            fitted = self.store.load(key)
            state = fitted.calibration_state if fitted else "none"
        except StorageError:  # a damaged one applies no more either, and inferences say what to do
            state = "stale"
        if state == "stale":
            log.warning(
                "calibration.stale", role_id=key.role_id, roi_id=key.roi_id, hint="fitted anew: calibrate again"
            )
        for other in self._stale_in_recipes(key):
            log.warning(
                "calibration.stale",
                role_id=other.role_id,
                roi_id=other.roi_id,
                recipe_id=other.recipe_id,
                hint="the model of the default recipe was fitted anew: calibrate again",
            )
        return state

    def _stale_in_recipes(self, key: RoiKey) -> list[RoiKey]:
        try:
            return self.store.stale_in_recipes(key)
        except OSError as exc:  # the model is stored, and no fit fails for what comes after
            log.warning("stale_calibrations.not_counted", reason=str(exc))
            return []

    @contextlib.contextmanager
    def _coreset_turn(self) -> Iterator[None]:
        with self._queue.fit_turn(), stage("coreset"):
            yield

    def state(self, key: RoiKey) -> RoiState:
        """What there is for a ROI.

        Raises:
            InvalidRequest, StorageError: as `ModelStore.load`.
        """
        try:
            return RoiState(self.fitted(key))
        except MemoryNotFound:
            return RoiState(None)
        except (IncompatibleMemory, DamagedMemory) as exc:
            return RoiState(None, str(exc))

    def fitted(self, key: RoiKey, *, with_calibration: bool = True) -> FittedRoi:
        """The model of a ROI.

        Args:
            key: the ROI.
            with_calibration: see `ModelStore.load`.

        Raises:
            MemoryNotFound: the ROI was never fitted.
            IncompatibleMemory: its memory was built by another extractor.
            InvalidRequest, StorageError: as `ModelStore.load`.
        """
        fitted = self.store.load(key, with_calibration=with_calibration)
        if fitted is None:
            raise MemoryNotFound(str(key))
        if differences := differences_from(self.features, fitted):
            raise IncompatibleMemory(
                f"refit needed: the memory stored for {key} was built by another "
                f"extractor ({'; '.join(differences)}); run /fit_ok again, then calibrate"
            )
        return fitted


def differences_from(features: DinoV2Features, fitted: FittedRoi) -> list[str]:
    """What keeps an extractor from being compared with a model, in words; empty where nothing does."""
    running = {"block": "last", **features.identity.as_dict()}  # a memory bank that names no block is of the last one
    recorded = fitted.metadata.get("extractor")
    built_by = {"block": "last", **(recorded if isinstance(recorded, dict) else {})}
    differences = [
        f"{name} {built_by[name]!r} instead of {value!r}"
        for name, value in running.items()
        if name in built_by and built_by[name] != value
    ]
    dim = fitted.memory.embeddings.shape[1]
    if dim != features.dim:
        differences.append(f"{dim} numbers per embedding instead of {features.dim}")
    if fitted.memory.token_hw != features.token_hw:
        differences.append(f"a token grid of {fitted.memory.token_hw} instead of {features.token_hw}")
    return differences
