"""From scores to a threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Calibration:
    """What ``/infer`` applies to an image of the ROI.

    Attributes:
        threshold: image scores and map values at or above it are defects.
        score_percentile: percentile of the masked distance map that is the image score; None is the configured one.
        area_mm2_thr: smaller regions are dropped, in mm²; None is the configured one.
        mm_per_px: millimetres per pixel at calibration; inference takes the request's own.
        p99_ok: 99th percentile of the OK scores; None in files of older generations that lack it.
        p5_ng: 5th percentile of the NG scores; None without NG scores.
        ok_mean, ng_mean: mean scores.
        n_ok, n_ng: how many scores there were.
        overlap: whether an OK score reaches the lowest NG score, so that no threshold separates the two.
        memory_id: identity of the memory bank the scores came from; None in files of older generations.
    """

    threshold: float
    score_percentile: float | None = None
    area_mm2_thr: float | None = None
    mm_per_px: float | None = None
    p99_ok: float | None = None
    p5_ng: float | None = None
    ok_mean: float | None = None
    ng_mean: float | None = None
    n_ok: int | None = None
    n_ng: int | None = None
    overlap: bool | None = None
    memory_id: str | None = None

    @property
    def warning(self) -> str | None:
        """What a user has to know about the threshold; None when there is nothing."""
        if self.overlap:
            return (
                f"OK and NG scores overlap (p99_ok {self.p99_ok:.4g}, p5_ng {self.p5_ng:.4g}): no threshold separates "
                "them; expect false rejects, escapes or both"
            )
        return None


def choose_threshold(ok_scores: Sequence[float], ng_scores: Sequence[float] = ()) -> float:
    """p99 of the OK scores, or with NG scores the midpoint between it and their p5.

    Args:
        ok_scores: image scores of good parts, at least one.
        ng_scores: image scores of defective parts.

    Raises:
        ValueError: no OK score.
    """
    if not ok_scores:
        raise ValueError("at least one OK score is needed")
    p99_ok = float(np.percentile(ok_scores, 99))
    return p99_ok if not ng_scores else (p99_ok + float(np.percentile(ng_scores, 5))) / 2


def calibrate(
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    *,
    mm_per_px: float,
    area_mm2_thr: float,
    score_percentile: float,
    memory_id: str | None,
) -> Calibration:
    """Choose the threshold and record what it rests on.

    Raises:
        ValueError: no OK score.
    """
    return Calibration(
        threshold=choose_threshold(ok_scores, ng_scores),
        # 99 rather than 99.0, as in the files of older generations: some clients read an integer.
        score_percentile=int(score_percentile) if float(score_percentile).is_integer() else score_percentile,
        area_mm2_thr=area_mm2_thr,
        mm_per_px=mm_per_px,
        p99_ok=float(np.percentile(ok_scores, 99)),
        p5_ng=float(np.percentile(ng_scores, 5)) if ng_scores else None,
        ok_mean=math.fsum(ok_scores) / len(ok_scores),
        ng_mean=math.fsum(ng_scores) / len(ng_scores) if ng_scores else None,
        n_ok=len(ok_scores),
        n_ng=len(ng_scores),
        overlap=max(ok_scores) >= min(ng_scores) if ng_scores else None,
        memory_id=memory_id,
    )
