"""The reply of a fit: its counts, the scores of its images, and those that may be defective."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from backend.bank.building import of_an_earlier_fit
from backend.bank.embedding import FitImages
from backend.bank.images import BankImage, scored_images, suspicious_images
from backend.common.profiles import ProfileName
from backend.common.roi_key import RoiKey
from backend.common.telemetry import annotate
from backend.service.calibration_state import calibration_state
from backend.service.detail import Detail
from backend.service.inspection import InspectionService
from backend.service.results import FitResult

log: Any = structlog.get_logger(__name__)


def fit_result(
    service: InspectionService,
    key: RoiKey,
    profile: ProfileName,
    detail: Detail,
    sent: FitImages,
    pixels: Mapping[str, str],
    images: Sequence[BankImage],
    n_embeddings: int,
    coreset_size: int,
    memory_id: str,
    unscored: str | None,
) -> FitResult:
    """The reply of a fit.

    Args:
        service: who fitted.
        key: the ROI.
        profile: of the memory bank.
        detail: number of tiles along each side, and why.
        sent: the images that were sent; a score within another mask does not count.
        pixels: hash of the pixels of new files, by the hash of the file.
        images: all images of the memory bank.
        n_embeddings: their patch embeddings.
        coreset_size: how many of those the memory bank keeps.
        memory_id: its identity.
        unscored: the reason if not all new images have a score.
    """
    state, percentile = calibration_state(service, key), service.score_percentile_of(profile, detail.number)
    token_hw = service.features.at(detail.number).token_hw
    annotate(token_shape=list(token_hw), n_embeddings=n_embeddings, calibration=state)
    by_file = {image.sha256: image for image in images}
    by_pixels = {image.pixels_sha256: image for image in images}
    fitted = [by_file.get(digest) or by_pixels[pixels[digest]] for digest in sent.headers.digests]
    suspicious = suspicious_images(fitted, percentile, images)
    if suspicious:
        names = [image.filename for image in suspicious]
        log.warning("fit.suspicious_images", images=names, hint="they score far above the others: defective?")
    known = scored_images(fitted, sent.masks, percentile)
    complete = len(known) == len(fitted)
    is_sample = not complete and any(fitted[image.index].sampled for image in known)
    if not complete and unscored is None:
        unscored = of_an_earlier_fit(len(fitted) - len(known), len(fitted), is_sample=is_sample)
    return FitResult(
        n_embeddings,
        coreset_size,
        memory_id,
        token_hw,
        state,
        [image.score for image in known] if complete else None,
        suspicious,
        None if complete else f"no ok_scores: {unscored}",
        profile=profile,
        ok_scores_sample=known if is_sample else None,
        detail=detail.number,
        detail_reason=detail.reason,
    )
