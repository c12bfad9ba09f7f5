"""Why a part is OK or NG, in plain words: the sentences beside a decision."""

from collections.abc import Sequence

import numpy as np

from backend.calib import Calibration
from backend.disk.fitted import CalibrationState
from backend.infer import Inference, find_regions
from backend.roi_mask import build_mask
from backend.service.scoring import Scoring

NO_THRESHOLD = "The ROI has no threshold: calibrate it."
STALE = "The stored calibration belongs to another memory bank or BLUR_SIGMA, so it has no threshold: calibrate again."
_MOST_DIGITS = 1100  # of any float, after the point


def why_of(
    inference: Inference,
    calibration: Calibration | None,
    state: CalibrationState,
    scoring: Scoring,
    *,
    percentile: float,
    area_mm2: float,
) -> str:
    """Say why an image was judged as it was.

    Args:
        inference: of the image.
        calibration, state: see `InferResult`.
        scoring: how it was scored.
        percentile: percentile of the score, if the calibration names none.
        area_mm2: smallest region in mm², if the calibration names none.
    """
    if calibration is None:
        return STALE if state == "stale" else NO_THRESHOLD
    area_mm2 = area_mm2 if calibration.area_mm2_thr is None else calibration.area_mm2_thr
    distance_map = inference.distance_map
    mask = build_mask(scoring.shape, (distance_map.shape[0], distance_map.shape[1]))
    every = find_regions(distance_map, mask, calibration.region_threshold, 0, scoring.mm_per_px)
    areas, n_kept = [region.area_mm2 for region in every], len(inference.regions)
    percentile = percentile if calibration.score_percentile is None else calibration.score_percentile
    highest = float(distance_map.max() if mask is None else distance_map[mask].max())
    kept, smaller = areas[:n_kept], areas[n_kept:]
    score, threshold = inference.score, calibration.threshold
    if calibration.decide_by is None:
        beside = _regions_beside(score >= threshold, kept, smaller, percentile, area_mm2)
        return f"{about_score(score, threshold)} {beside}".rstrip()
    told = about_regions(kept, smaller, highest, calibration.region_threshold, area_mm2)
    if calibration.decide_by == "either":
        return f"{about_score(score, threshold)} {told}"
    if (score >= threshold) == bool(kept):
        return told
    return f"{told} {about_score(score, threshold, 'which does not decide here')}"


def about_score(score: float, threshold: float, more: str = "") -> str:
    """The score compared with the threshold.

    >>> about_score(0.704, 0.7041), about_score(0.71, 0.71)
    ('The score 0.7040 is below the threshold 0.7041.', 'The score 0.71 reaches the threshold 0.71.')
    """
    shown, limit = _distinct(score, threshold)
    verb = "reaches" if score >= threshold else "is below"
    return f"The score {shown} {verb} the threshold {limit}{f', {more}' if more else ''}."


def about_regions(
    kept: Sequence[float], smaller: Sequence[float], highest: float, threshold: float, area_mm2: float
) -> str:
    """The regions compared with the pixel threshold.

    >>> about_regions([12.5], [0.2], 0.9, 0.8, 4)
    '1 region of 4 mm² or more reaches the pixel threshold 0.80: it has 12.5 mm².'
    >>> about_regions([], [2.04, 0.1], 0.9, 0.8, 4)
    'No region of 4 mm² or more reaches the pixel threshold 0.80. 2 smaller ones do: the largest has 2.04 mm².'
    >>> about_regions([], [], 0.7999, 0.8, 0)
    'No pixel reaches the pixel threshold 0.8000: the highest value is 0.7999.'

    Args:
        kept: areas of the regions that are large enough, in mm², falling.
        smaller: of the others.
        highest: value of the map.
        threshold: pixel threshold.
        area_mm2: smallest region, in mm².
    """
    of_area = f" of {_area(area_mm2)} mm² or more" if area_mm2 > 0 else ""
    if kept:
        verb = "region{} reaches" if len(kept) == 1 else "regions{} reach"
        return f"{len(kept)} {verb.format(of_area)} the pixel threshold {threshold:.2f}: {_largest(kept)}."
    if not smaller:
        shown, limit = _distinct(highest, threshold)
        return f"No pixel reaches the pixel threshold {limit}: the highest value is {shown}."
    do = "1 smaller one does" if len(smaller) == 1 else f"{len(smaller)} smaller ones do"
    return f"No region{of_area} reaches the pixel threshold {threshold:.2f}. {do}: {_largest(smaller, area_mm2)}."


def _regions_beside(
    is_reached: bool, kept: Sequence[float], smaller: Sequence[float], percentile: float, area_mm2: float
) -> str:
    """The sentence about regions at the threshold, if the score decides."""
    reach = "1 region reaches it" if len(kept) == 1 else f"{len(kept)} regions reach it"
    if kept and is_reached:
        return f"{reach}: {_largest(kept)}."
    if kept:
        return (
            f"{reach}, but the score is p{percentile:g} of the map, which leaves out the highest "
            f"{100 - percentile:.3g} % "
            "of the pixels."
        )
    if not smaller:
        return ""
    if is_reached:
        return f"No region of {_area(area_mm2)} mm² or more does: {_largest(smaller, area_mm2)}."
    stand = "1 region reaches it and is" if len(smaller) == 1 else f"{len(smaller)} regions reach it and are"
    return f"{stand} smaller than {_area(area_mm2)} mm²: {_largest(smaller, area_mm2)}."


def _largest(areas: Sequence[float], below: float | None = None) -> str:
    shown = _area(areas[0], below)
    return f"it has {shown} mm²" if len(areas) == 1 else f"the largest has {shown} mm²"


def _distinct(one: float, other: float) -> tuple[str, str]:
    """Two numbers with two digits after the point, or with as many more as distinguish them."""
    for digits in range(2, _MOST_DIGITS):
        shown = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if shown[0] != shown[1] or one == other:
            break
    return shown


def _area(area: float, below: float | None = None) -> str:
    """An area with three digits, or with as many more as distinguish it from a larger limit."""
    for digits in range(3, 20):
        shown, limit = (
            np.format_float_positional(value, precision=digits, fractional=False, trim="-")
            for value in (area, area if below is None else below)
        )
        if below is None or shown != limit:
            break
    return shown
