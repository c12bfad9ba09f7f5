"""Scores → the stored threshold of a ROI."""

import contextlib
from collections.abc import Sequence
from functools import partial

from backend import calib
from backend.calib import CONTRACT_RULE, Calibration, ThresholdOptions
from backend.common.errors import MemoryNotFound
from backend.common.profiles import RECOMMENDED
from backend.common.roi_key import RoiKey
from backend.common.telemetry import annotate
from backend.disk.calibration_inputs import MOST_SCORES, CalibrationInputs, ScoredImage
from backend.region_calibration import RegionScores, calibrate_by_regions
from backend.scores.recommended_threshold import position_name
from backend.service.inspection import InspectionService


def calibrate(
    service: InspectionService,
    key: RoiKey,
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    *,
    mm_per_px: float,
    area_mm2_thr: float | None = None,
    score_percentile: float | None = None,
    memory_id: str | None = None,
    options: ThresholdOptions = CONTRACT_RULE,
    n_candidates: int = 1,
    ok_are_fresh: bool | None = None,
    ok_names: Sequence[str] | None = None,
    ng_names: Sequence[str] | None = None,
    images: tuple[Sequence[ScoredImage], Sequence[ScoredImage]] | None = None,
    regions: RegionScores | None = None,
) -> Calibration:
    """Choose the ROI's threshold from image scores and store it, with the scores, so that feedback can add to them.

    Args:
        service: who stores it.
        key: the ROI.
        ok_scores: scores that `infer` gave for good parts, at least one.
        ng_scores: scores of defective parts, possibly none.
        mm_per_px: millimetres per pixel.
        area_mm2_thr: smallest region in mm²; None takes the configured one.
        score_percentile: percentile of the scores; None takes the configured one.
        memory_id: the memory bank that gave the scores; None assumes the stored one.
        options, n_candidates, ok_are_fresh, ok_names, ng_names: as for `calib.calibrate`.
        images: the OK and the NG scores with what is known of their images; None if nothing is known.
        regions: region scores of the same parts, if regions decide; see `calibrate_by_regions`.

    Raises:
        InvalidRequest: the ids are too long for a file name, or see `ThresholdOptions.check` and
            `check_ways`.
        Conflict: the recipe is locked to another `mm_per_px`, or the memory bank of the ROI is no longer `memory_id`.
        IncompatibleMemory: the stored memory was built by another extractor, so it cannot have given the scores.
        StorageError: the stored memory is damaged, or the calibration cannot be written.
    """
    settings = service.settings
    service.recipes.check(key.recipe_id, mm_per_px)
    with contextlib.suppress(MemoryNotFound):  # who has scores may calibrate before the fit
        fitted = service.fitted(key, with_calibration=False)
        memory_id = memory_id or fitted.memory_id
        if fitted.profile == RECOMMENDED:  # whose scores are of its own percentile, whatever a client calls them
            score_percentile = service.score_percentile_of(fitted.profile, fitted.detail)
    choose = calib.calibrate if regions is None else partial(calibrate_by_regions, regions=regions)
    calibration = choose(
        ok_scores,
        ng_scores,
        mm_per_px=mm_per_px,
        area_mm2_thr=settings.area_mm2_thr if area_mm2_thr is None else area_mm2_thr,
        score_percentile=settings.score_percentile if score_percentile is None else score_percentile,
        memory_id=memory_id,
        blur_sigma=settings.blur_sigma,
        options=options,
        n_candidates=n_candidates,
        ok_are_fresh=ok_are_fresh,
        ok_names=ok_names,
        ng_names=ng_names,
    )
    inputs = None
    # Feedback would calibrate by scores alone what regions decide.
    if regions is None and len(ok_scores) + len(ng_scores) <= MOST_SCORES:
        ok, ng = images or (map(ScoredImage, ok_scores), map(ScoredImage, ng_scores))
        inputs = CalibrationInputs(tuple(ok), tuple(ng), options, 1 if n_candidates == 1 else 6, ok_are_fresh)
    service.store.save_calibration(key, calibration, inputs)
    left = set(options.not_good)
    good = [score for position, score in enumerate(ok_scores) if position not in left]
    service.drift.begin(key, calibration, () if ok_are_fresh is False else good)
    annotate(n_ok=len(good), n_ng=len(ng_scores), threshold=calibration.threshold)
    return calibration


def calibrated_again(before: Calibration, inputs: CalibrationInputs, memory_id: str) -> Calibration:
    """A calibration from new scores, with the rule and options of an earlier one; stores nothing.

    Args:
        before: the earlier calibration: it gives the percentile, the smallest region and the scale.
        inputs: the scores, and how the threshold is chosen.
        memory_id: of the memory bank that it is for.

    Raises:
        InvalidRequest: see `ThresholdOptions.check`.
    """
    percentile, area, scale = before.score_percentile, before.area_mm2_thr, before.mm_per_px
    assert percentile is not None, "a calibration whose scores are stored says all about itself"
    assert area is not None, "as above"
    assert scale is not None, "as above"
    return calib.calibrate(
        [image.score for image in inputs.ok],
        [image.score for image in inputs.ng],
        mm_per_px=scale,
        area_mm2_thr=area,
        score_percentile=percentile,
        memory_id=memory_id,
        blur_sigma=before.blur_sigma,
        options=inputs.options,
        n_candidates=inputs.n_candidates,
        ok_are_fresh=inputs.ok_are_fresh,
        ok_names=_names(inputs.ok),
        ng_names=_names(inputs.ng),
    )


def _names(images: Sequence[ScoredImage]) -> list[str]:
    return [image.name or position_name(position) for position, image in enumerate(images)]
