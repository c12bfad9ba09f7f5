"""Warnings about requests that are probably mistakes: they are served, but the reply says so."""

from collections.abc import Iterable, Sequence

from backend.bank.images import recorded_scores, recorded_sizes
from backend.calib import Calibration
from backend.common.config import Settings
from backend.common.profiles import RECOMMENDED, score_percentile_of
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi

MOST_DISTANCE = 2.0
"""Of two embeddings, which lie on the unit sphere."""
_MOST_NAMED = 5
_FAR = 2.0
"""How far outside the range of the fit a size or an aspect ratio is told, as a factor."""


def joined(doubts: Iterable[str | None]) -> str | None:
    """Several sentences as one text; None if there are none.

    >>> joined(["a", None, "b"]), joined([None])
    ('a; b', None)
    """
    return "; ".join(doubt for doubt in doubts if doubt) or None


def about_percentile(percentile: float, source: str) -> str | None:
    """A warning if a share seems to be given instead of percent.

    Args:
        percentile: that is the score, in percent.
        source: what gave it, as the user spells it.

    >>> about_percentile(0.99, "score_percentile").split(": ")[1]
    'send 99 if you mean that'
    """
    if percentile > 1:
        return None
    return (
        f"{source} {percentile:g} is read as percent (0 to 100), so the score is almost the lowest value: send "
        f"{100 * percentile:g} if you mean that"
    )


def about_scores(ok_scores: Sequence[float], ng_scores: Sequence[float]) -> str | None:
    """A warning about scores that no inference gives: scores are distances on the unit sphere.

    >>> about_scores([90, 97, 0.4], [])
    '2 of 3 ok_scores (90 to 97) are not from 0 to 2, the range of /infer: send scores of /infer'
    """
    told = []
    for name, scores in (("ok_scores", ok_scores), ("ng_scores", ng_scores)):
        if outside := [score for score in scores if not 0 <= score <= MOST_DISTANCE]:
            least, most = min(outside), max(outside)
            values = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            told.append(f"{len(outside)} of {len(scores)} {name} ({values})")
    if not told:
        return None
    return f"{' and '.join(told)} are not from 0 to {MOST_DISTANCE:g}, the range of /infer: send scores of /infer"


def about_threshold(threshold: float, fit_scores: Sequence[float]) -> str | None:
    """A warning if a threshold rejects most images of the fit: the OK scores come from another model or other images.

    Args:
        threshold: image scores at or above it are defects.
        fit_scores: what the images of the fit score by the memory bank of the others; without any, there is no warning.

    >>> about_threshold(0.57, [0.5, 0.6]), about_threshold(0.57, [])
    (None, None)
    """
    reached = [score for score in fit_scores if score >= threshold]
    if 2 * len(reached) <= len(fit_scores):
        return None
    return (
        f"{len(reached)} of {len(fit_scores)} images of the fit reach the threshold {threshold:.4g}, because they "
        f"score {min(fit_scores):.4g} to {max(fit_scores):.4g} by the memory bank of the others: good parts like "
        "them are rejected; send ok_scores of this model, made with the same shape as the inferences"
    )


def about_area(area_mm2_thr: float, source: str, mm_per_px: float, sizes: Sequence[tuple[int, int]]) -> str | None:
    """A warning if the smallest region is larger than every image, so that no region is ever reported.

    Args:
        area_mm2_thr: smallest region in mm².
        source: what gave it, as the user spells it.
        mm_per_px: millimetres per pixel.
        sizes: of the images (rows, columns), in pixels; without any, there is no warning.
    """
    if not sizes:
        return None
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    area = height * width * mm_per_px**2
    if area_mm2_thr <= area:
        return None
    return (
        f"{source} {area_mm2_thr:g} mm² is larger than the whole ROI, {area:g} mm² ({width} × {height} pixels of "
        f"{mm_per_px:g} mm), so no region is ever reported; check the limit and mm_per_px"
    )


def about_size(image_hw: tuple[int, int], fitted: Sequence[tuple[int, int]]) -> str | None:
    """A warning if the size or the aspect ratio of an image differs much from those of the fit.

    Args:
        image_hw: its rows and columns.
        fitted: rows and columns of the images of the fit; without any, there is no warning.
    """
    if not fitted:
        return None
    (height, width), heights, widths = image_hw, [size[0] for size in fitted], [size[1] for size in fitted]
    aspects = [w / h for h, w in fitted]
    is_far = [_is_far(height, heights), _is_far(width, widths), _is_far(width / height, aspects)]
    if not any(is_far):
        return None
    return (
        f"the image has {width} × {height} pixels, but those of the fit have {_range(widths)} × {_range(heights)}: "
        "its width, height or aspect ratio differs by more than a factor of 2, so its score is unreliable; check the "
        "crop, or fit such images"
    )


def about_calibration(
    key: RoiKey,
    calibration: Calibration,
    fitted: FittedRoi | None,
    settings: Settings,
    *,
    sent_area: bool,
    sent_percentile: float | None = None,
) -> str | None:
    """The warnings about a calibration.

    Args:
        key: the ROI.
        calibration: as it was stored.
        fitted: its model; None if it was never fitted.
        settings: the configuration.
        sent_area: whether the request gave the smallest region; else the configuration did.
        sent_percentile: that the request gave.
    """
    percentile, area = calibration.score_percentile, calibration.area_mm2_thr
    sizes = recorded_sizes(fitted.metadata) if fitted else []
    scale = calibration.mm_per_px
    fit_scores = recorded_scores(fitted.metadata, percentile, calibration.blur_sigma) if fitted else []
    return joined(
        [
            _about_pixel_threshold(calibration)
            if calibration.decide_by is not None
            else None
            if calibration.overlap
            else about_threshold(calibration.threshold, fit_scores),
            None
            if fitted
            else f"no model is fitted for {key}, and a calibration is valid only for its model: check role_id and "
            "roi_id, or fit and then calibrate",
            None if percentile is None else about_percentile(percentile, _source(percentile, settings)),
            None
            if sent_percentile in (None, percentile)
            else f"score_percentile {sent_percentile:g} has no effect: the model is of profile={RECOMMENDED}, whose "
            f"score is p{percentile:g}",
            "area_mm2_thr is 0, so a single pixel at or above the pixel threshold rejects a part: send the "
            "smallest area that matters"
            if calibration.decide_by is not None and area == 0
            else None,
            None
            if area is None or scale is None
            else about_area(area, "area_mm2_thr" if sent_area else "AREA_MM2_THR", scale, sizes),
        ]
    )


def about_defective_in_the_fit(names: Sequence[str]) -> str | None:
    """A warning if NG images are in the memory bank as good ones, so that parts like them are accepted.

    Args:
        names: of these images.

    >>> about_defective_in_the_fit([])
    """
    if not names:
        return None
    images = "1 NG image is" if len(names) == 1 else f"{len(names)} NG images are"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return (
        f"{images} in the memory bank as good ({', '.join(names[:_MOST_NAMED])}{more}), so /infer accepts such "
        "parts, whatever the promise says about NG parts: fit anew without the defective images, or count the good "
        "ones as OK"
    )


def _about_pixel_threshold(calibration: Calibration) -> str | None:
    """A warning if thresholds that were set by hand reject most good images, when regions decide."""
    n_rejected = calibration.promise.n_rejected if calibration.promise else None
    if calibration.rule != "manual" or n_rejected is None or 2 * n_rejected <= (calibration.n_ok or 0):
        return None
    both = f" and the threshold {calibration.threshold:.4g}" if calibration.decide_by == "either" else ""
    return (
        f"{n_rejected} of {calibration.n_ok} OK images are rejected at the pixel threshold "
        f"{calibration.pixel_threshold:.4g}{both}: good parts like them are rejected; send a higher threshold"
    )


def about_inference(
    image_hw: tuple[int, int], mm_per_px: float, fitted: FittedRoi, calibration: Calibration | None, settings: Settings
) -> str | None:
    """The warnings about the judgement of one image.

    Args:
        image_hw: its rows and columns.
        mm_per_px: millimetres per pixel.
        fitted: the model that it was compared with.
        calibration: that was applied, if any.
        settings: the configuration.
    """
    percentile = score_percentile_of(fitted.profile, settings.score_percentile, fitted.detail)
    if calibration is not None and calibration.score_percentile is not None:
        percentile = calibration.score_percentile
    area, source = settings.area_mm2_thr, "AREA_MM2_THR"
    if calibration is not None and calibration.area_mm2_thr is not None:
        area, source = calibration.area_mm2_thr, "the calibration's area_mm2_thr"
    return joined(
        [
            about_percentile(percentile, _source(percentile, settings)),
            about_area(area, source, mm_per_px, [image_hw]) if calibration is not None else None,
            about_size(image_hw, recorded_sizes(fitted.metadata)),
        ]
    )


def _source(percentile: float, settings: Settings) -> str:
    return "SCORE_PERCENTILE" if percentile == settings.score_percentile else "score_percentile"


def _is_far(value: float, known: Sequence[float]) -> bool:
    return not min(known) / _FAR <= value <= max(known) * _FAR


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least}" if least == most else f"{least}–{most}"
