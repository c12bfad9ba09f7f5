"""One image → its judgement by the model and the calibration of a ROI."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from backend.bit_depth import BitDepth
from backend.calib import Calibration
from backend.common.roi_key import RoiKey
from backend.common.telemetry import SCORES, annotate
from backend.disk.fitted import FittedRoi
from backend.infer import Finding, Inference
from backend.service.detail import about_unseen_tiles, unseen_tiles
from backend.service.doubts import about_inference, joined
from backend.service.inspection import InspectionService
from backend.service.judgement_log import thumbnail_of
from backend.service.pictures import CONTRACT_PICTURES, Wanted, draw_pictures
from backend.service.region_scores import region_score_of
from backend.service.results import InferResult
from backend.service.scoring import Scoring
from backend.service.why import why_of
from backend.utils import NamedImage, pixels_sha256


def infer(
    service: InspectionService,
    key: RoiKey,
    image: NamedImage,
    scoring: Scoring,
    *,
    with_identity: bool = False,
    with_thumbnail: bool = False,
    wanted: Wanted = CONTRACT_PICTURES,
) -> InferResult:
    """Score one image with the memory bank of the ROI, and judge it with the ROI's own calibration.

    Args:
        service: who judges.
        key: the ROI.
        image: the canonical ROI image.
        scoring: how it is scored.
        with_identity: also return the identity of its pixels.
        with_thumbnail: also return a thumbnail.
        wanted: its pictures.

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
        options = {"with_identity": with_identity, "with_thumbnail": with_thumbnail}
        result = judge(service, fitted, image, scoring, wanted=wanted, **options)
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
    features = service.features_of(fitted.profile, fitted.detail)
    unseen = unseen_tiles(features, fitted, result.image_hw, scoring.shape, service.settings.blur_sigma)
    doubts = about_inference(result.image_hw, scoring.mm_per_px, fitted, result.calibration, service.settings)
    return replace(result, warning=joined([result.warning, doubts, about_unseen_tiles(unseen, features)]))


def judge(
    service: InspectionService,
    fitted: FittedRoi,
    image: NamedImage,
    scoring: Scoring,
    *,
    wanted: Wanted = CONTRACT_PICTURES,
    with_identity: bool = False,
    with_thumbnail: bool = False,
) -> InferResult:
    """Score one image with a model; the caller holds an `inference_slot`.

    Args:
        service: who judges.
        fitted: the result of `InspectionService.fitted`.
        image, scoring, with_identity, with_thumbnail, wanted: as for `infer`.

    Raises:
        InvalidImage, InvalidShape: see `bit_depth.decode`, `build_mask`.
    """
    with service.pixels_of(image, fitted.detail):
        pixels, warning = service.decode(image, BitDepth.of(fitted.metadata))
        result = judge_pixels(service, fitted, pixels, scoring, wanted)
        identity = pixels_sha256(pixels) if with_identity else None
        small = thumbnail_of(pixels) if with_thumbnail else None
        del pixels
    return replace(result, warning=joined([warning, result.warning]), pixels_sha256=identity, thumbnail=small)


def judge_pixels(
    service: InspectionService,
    fitted: FittedRoi,
    pixels: npt.NDArray[np.uint8],
    scoring: Scoring,
    wanted: Wanted,
) -> InferResult:
    """As `judge`, for a decoded image; the caller holds its `InspectionService.pixels_of`.

    Args:
        service, fitted, scoring, wanted: as for `judge`.
        pixels: uint8 [H, W, 3], BGR.

    Raises:
        InvalidShape: see `build_mask`.
        InvalidRequest: see `region_score_of`.
    """
    inference, calibration = service.run_engine(fitted, pixels, scoring)
    state = fitted.calibration_state if scoring.percentile is None else "none"
    pictures = draw_pictures(wanted, inference, pixels, scoring.shape, calibration, state)
    SCORES.observe(inference.score)
    # The maps are as large as the image: they end here.
    finding = Finding(inference.score, inference.regions, inference.scores)
    region = None
    if scoring.region_mm2 is not None:
        region = region_score_of(inference.distance_map, scoring.shape, scoring.region_mm2, scoring.mm_per_px)
    return InferResult(
        finding,
        (pixels.shape[0], pixels.shape[1]),
        pictures.heatmap or "",
        fitted,
        calibration,
        state,
        warning=pictures.warning,
        overlay_png_base64=pictures.overlay,
        region_score=region,
        why=said(service, fitted, inference, calibration, scoring),
    )


def said(
    service: InspectionService,
    fitted: FittedRoi,
    inference: Inference,
    calibration: Calibration | None,
    scoring: Scoring,
) -> str | None:
    """Why an image is OK or NG; None if this was not requested.

    Args:
        service, fitted, scoring: as for `judge`.
        inference, calibration: the result of `run_engine`.
    """
    if not scoring.with_why and (calibration is None or calibration.decide_by is None):
        return None
    percentile, area = service.score_percentile_of(fitted.profile, fitted.detail), service.settings.area_mm2_thr
    state = fitted.calibration_state if scoring.percentile is None else "none"
    return why_of(inference, calibration, state, scoring, percentile=percentile, area_mm2=area)
