"""One image → its judgement by the model and the calibration of a ROI."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from backend.bit_depth import BitDepth
from backend.common.roi_key import RoiKey
from backend.common.telemetry import SCORES, annotate, stage
from backend.disk.fitted import FittedRoi
from backend.infer import Finding
from backend.service.doubts import about_inference, joined
from backend.service.inspection import InspectionService
from backend.service.results import InferResult
from backend.service.scoring import Scoring
from backend.utils import NamedImage, encode_png_base64, pixels_sha256


def infer(
    service: InspectionService, key: RoiKey, image: NamedImage, scoring: Scoring, *, with_identity: bool = False
) -> InferResult:
    """Score one image against the ROI's memory bank, by the ROI's own calibration.

    Args:
        service: who judges.
        key: the ROI.
        image: the canonical ROI image.
        scoring: how it is scored.
        with_identity: also give the identity of its pixels.

    Raises:
        MemoryNotFound: the ROI was never fitted.
        IncompatibleMemory: its memory was built by another extractor.
        Conflict: the recipe is locked to another `mm_per_px`.
        InvalidImage, InvalidShape: see `bit_depth.decode`, `build_mask`.
        Busy: the queue is full.
        StorageError: stored files are damaged.
    """
    service.recipes.check(key.recipe_id, scoring.mm_per_px)
    fitted = service.fitted(key)
    with service.inference_slot():
        result = judge(service, fitted, image, scoring, with_identity=with_identity)
    annotate(
        n_images=1,
        device=service.features.runtime.device,
        image_hw=list(result.image_hw),
        token_shape=list(fitted.memory.token_hw),
        score=round(result.inference.score, 6),
        n_regions=len(result.inference.regions),
    )
    if fitted.layout != "current":
        annotate(layout=fitted.layout)
    if fitted.calibration_state == "stale":
        annotate(calibration="stale: made for an earlier fit or another BLUR_SIGMA, not applied; calibrate again")
    doubts = about_inference(result.image_hw, scoring.mm_per_px, fitted, result.calibration, service.settings)
    return replace(result, warning=joined([result.warning, doubts]))


def judge(
    service: InspectionService,
    fitted: FittedRoi,
    image: NamedImage,
    scoring: Scoring,
    *,
    with_heatmap: bool = True,
    with_identity: bool = False,
) -> InferResult:
    """Score one image against a model; the caller holds an `inference_slot`.

    Args:
        service: who judges.
        fitted: what `InspectionService.fitted` gave.
        image, scoring, with_identity: as for `infer`.
        with_heatmap: False leaves the encoded heatmap empty, for who needs the score only.

    Raises:
        InvalidImage, InvalidShape: see `bit_depth.decode`, `build_mask`.
    """
    with service.pixels_of(image):
        pixels, warning = service.decode(image, BitDepth.of(fitted.metadata))
        result = judge_pixels(service, fitted, pixels, scoring, with_heatmap=with_heatmap)
        identity = pixels_sha256(pixels) if with_identity else None
        del pixels
    return replace(result, warning=warning, pixels_sha256=identity)


def judge_pixels(
    service: InspectionService,
    fitted: FittedRoi,
    pixels: npt.NDArray[np.uint8],
    scoring: Scoring,
    *,
    with_heatmap: bool,
) -> InferResult:
    """As `judge`, for an image that is decoded; the caller holds `InspectionService.pixels_of` it.

    Args:
        service, fitted, scoring, with_heatmap: as for `judge`.
        pixels: uint8 [H, W, 3], BGR.

    Raises:
        InvalidShape: see `build_mask`.
    """
    inference, calibration = service.run_engine(fitted, pixels, scoring)
    heatmap = ""
    if with_heatmap:
        with stage("encode"):
            heatmap = encode_png_base64(inference.heatmap)
    SCORES.observe(inference.score)
    # The maps are as large as the image: they end here.
    finding = Finding(inference.score, inference.regions, inference.scores)
    state = fitted.calibration_state if scoring.percentile is None else "none"
    return InferResult(finding, (pixels.shape[0], pixels.shape[1]), heatmap, fitted, calibration, state)
