"""Common parts of all use cases: the settings, the network, the stores, and the steps of an inspection."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from backend.bit_depth import BitDepth, decode
from backend.calib import Calibration
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import DamagedMemory, IncompatibleMemory, InvalidRequest, MemoryNotFound
from backend.common.profiles import CONTRACT, ProfileName, score_percentile_of
from backend.common.program import PROGRAM
from backend.common.roi_key import RoiKey
from backend.common.telemetry import stage
from backend.disk.file_hashes import FileHashes
from backend.disk.fitted import FittedRoi
from backend.disk.older_layouts import has_older_images
from backend.features import DinoV2Features
from backend.infer import Inference, InferenceEngine
from backend.network.loading import open_features
from backend.network.queueing import NetworkQueue
from backend.service.drift import DriftLog
from backend.service.judgement_log import JudgementLog
from backend.service.pixel_budget import PixelBudget
from backend.service.results import RoiState
from backend.service.scoring import Scoring
from backend.service.stores import Models, Stores, folder_stores, open_stores
from backend.utils import ImageLimits, NamedImage, check_image

# On CUDA, how long a forward pass waits for other inferences to share it: little beside the pass itself.
_BATCH_WINDOW_S = 0.003

log: Any = structlog.get_logger(__name__)


class InspectionService:
    """The settings, the network and the stores of the use cases; safe to call from many threads.

    Args:
        settings: the configuration.
        features: the extractor.
        store: the models.
        reason: why the extractor does not run on ``DEVICE``, or why ``PRECISION`` is not faster here, if so.
        recommended: the extractor of the recommended profile; None opens it on demand.
        stores: the other stores; None keeps them in ``MODELS_DIR``.
    """

    def __init__(
        self,
        settings: Settings,
        features: DinoV2Features,
        store: Models,
        reason: str | None = None,
        recommended: DinoV2Features | None = None,
        stores: Stores | None = None,
    ) -> None:
        self.settings = settings
        self.features = features
        self._recommended = recommended
        self._opening = threading.Lock()
        self.store = store
        stores = stores or folder_stores(settings, store)
        self.recipes = stores.recipes
        self.datasets = stores.datasets
        self.headers = stores.headers
        self.layouts = stores.layouts
        self.known_rois = stores.known_rois
        self.contact = stores.contact
        self.file_hashes = FileHashes()
        self.runs = stores.runs
        self.drift = DriftLog(stores.drift, store, settings.drift_reject_rate)
        self.history = JudgementLog(stores.judgements, settings.history)
        self.reason = reason
        batch = features.runtime.batch
        self.queue = NetworkQueue(
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
        if settings.models_url is None and has_older_images(settings.models_dir):
            log.info("older_images.found", hint=f"{PROGRAM} migrate MODELS_DIR copies those that are not copied yet")
        stores = open_stores(settings)
        service = cls(settings, features, stores.models, reason, stores=stores)
        service.features_of(settings.profile)  # before somebody waits for it
        service.runs.running()  # clears what a killed process left, where nobody asks for runs
        return service

    def features_of(self, profile: ProfileName, detail: int = 1) -> DinoV2Features:
        """The extractor of a profile, over so many tiles along each side of a ROI.

        Raises:
            InvalidRequest: the profile is not for this network.
            ConfigError: see `open_features`.
        """
        if profile == CONTRACT:
            return self.features.at(detail)
        if self.settings.model_name != DEFAULT_MODEL:
            raise InvalidRequest(
                f"profile={profile} is for MODEL_NAME={DEFAULT_MODEL}, and this service runs {self.settings.model_name}"
            )
        with self._opening:
            if self._recommended is None:
                self._recommended, _ = open_features(self.settings, profile)
            return self._recommended.at(detail)

    def features_beside(self, fitted: FittedRoi) -> DinoV2Features:
        """The extractor for a stored model: that of its profile and detail, if this network has it."""
        has_profiles = self.settings.model_name == DEFAULT_MODEL
        return self.features_of(fitted.profile if has_profiles else CONTRACT, fitted.detail)

    def score_percentile_of(self, profile: ProfileName, detail: int) -> float:
        """The percentile of the score, if no calibration names one."""
        return score_percentile_of(profile, self.settings.score_percentile, detail)

    def hold_pixels(self, pixels: int) -> contextlib.AbstractContextManager[None]:
        """Reserve memory for this number of decoded pixels, or wait for it."""
        return self._pixels.hold(pixels)

    @contextlib.contextmanager
    def pixels_of(self, image: NamedImage, detail: int = 1) -> Iterator[None]:
        """Reserve memory for the pixels of an image; decode it inside the block, and drop the pixels before its end.

        Args:
            image: the image.
            detail: tiles along each side that it is to be looked at in: of many, what they are cut from may be larger
                than the image.

        Raises:
            InvalidImage, UnsupportedImage, TooLarge: see `check_image`.
        """
        width, height = check_image(image.read(), image.title, self.limits)
        canvas = 0 if detail == 1 else self.features.at(detail).canvas_side ** 2
        with self.hold_pixels(max(width * height, canvas)):
            yield

    def decode(self, image: NamedImage, depth: BitDepth | None) -> tuple[npt.NDArray[np.uint8], str | None]:
        """The pixels of an image, uint8 [H, W, 3], BGR, and a warning; the caller holds its `pixels_of`.

        Args:
            image: the image.
            depth: recorded with the memory bank that it is compared with.

        Raises:
            InvalidImage: see `bit_depth.decode`.
        """
        with stage("decode"):
            return decode(image.read(), image.title, self.limits, depth)

    def run_engine(
        self,
        fitted: FittedRoi,
        pixels: npt.NDArray[np.uint8],
        scoring: Scoring,
        *,
        to_explain: bool = False,
        every_tile: bool = False,
    ) -> tuple[Inference, Calibration | None]:
        """The inference of one image, and the applied calibration; the caller holds an `inference_slot`.

        Args:
            fitted: the result of `fitted`.
            pixels: uint8 [H, W, 3], BGR.
            scoring: how they are scored.
            to_explain: keep the embeddings.
            every_tile: look at tiles that the mask hides, too.

        Raises:
            InvalidShape: see `build_mask`.
        """
        features, area_mm2_thr = self.features_of(fitted.profile, fitted.detail), self.settings.area_mm2_thr
        percentile = scoring.percentile or self.score_percentile_of(fitted.profile, fitted.detail)
        calibration = fitted.calibration if scoring.percentile is None else None
        if calibration is not None:
            percentile = percentile if calibration.score_percentile is None else calibration.score_percentile
            area_mm2_thr = area_mm2_thr if calibration.area_mm2_thr is None else calibration.area_mm2_thr
        inference = InferenceEngine(features, self.settings.blur_sigma).run(
            pixels,
            fitted.memory,
            mm_per_px=scoring.mm_per_px,
            shape=scoring.shape,
            threshold=calibration.region_threshold if calibration else None,
            score_percentile=percentile,
            percentiles=scoring.percentiles,
            area_mm2_thr=area_mm2_thr,
            run_network=partial(self.queue.infer, forward=features.runtime.forward),
            keeps_embeddings=to_explain,
            every_tile=every_tile,
        )
        return inference, calibration

    def inference_slot(self) -> contextlib.AbstractContextManager[None]:
        """One of the places for inferences, for one image or for many that are judged one after the other.

        Raises:
            Busy: every place is taken.
        """
        return self.queue.inference()

    def state(self, key: RoiKey) -> RoiState:
        """What is stored for a ROI.

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
        if differences := differences_from(self.features_beside(fitted), fitted):
            raise IncompatibleMemory(
                f"refit needed: the memory stored for {key} was built by another "
                f"extractor ({'; '.join(differences)}); run /fit_ok again, then calibrate"
            )
        return fitted


def differences_from(features: DinoV2Features, fitted: FittedRoi) -> list[str]:
    """The reasons why an extractor cannot be compared with a model, in words; empty if it can."""
    stored = fitted.memory.dim, fitted.memory.token_hw
    return differences_between(features.identity.as_dict(), (features.dim, features.token_hw), fitted.metadata, stored)


Form = tuple[int, tuple[int, int]]
"""Numbers in an embedding, and the token grid (rows, columns)."""


def differences_between(
    identity: Mapping[str, Any], form: Form, metadata: Mapping[str, Any], stored_form: Form
) -> list[str]:
    """As `differences_from`.

    Args:
        identity, form: of the extractor.
        metadata, stored_form: of the model.
    """
    running = {"block": "last", "detail": 1, **identity}  # a memory bank that names none is of these
    recorded = metadata.get("extractor")
    built_by = {"block": "last", "detail": 1, **(recorded if isinstance(recorded, dict) else {})}
    found = [
        f"{name} {built_by[name]!r} instead of {value!r}"
        for name, value in running.items()
        if name in built_by and built_by[name] != value
    ]
    if stored_form[0] != form[0]:
        found.append(f"{stored_form[0]} numbers per embedding instead of {form[0]}")
    if stored_form[1] != form[1]:
        found.append(f"a token grid of {stored_form[1]} instead of {form[1]}")
    return found
