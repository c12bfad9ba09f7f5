"""From scores to a threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

import numpy as np

from backend.scores.promise import Promise, make_promise

SEEN_IN_THE_FIT = (
    "the model was fitted on some of the OK images, whose scores are lower than those of fresh parts: check the "
    "threshold on parts that were not in the fit"
)


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
        blur_sigma: Gaussian σ of the maps that they came from, in pixels; None where the file does not say.
        target_false_reject_rate: what the threshold was chosen for; None by the percentile rule.
        promise: what the threshold promises; None in older files.
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
    blur_sigma: float | None = None
    target_false_reject_rate: float | None = None
    promise: Promise | None = field(default=None, compare=False)  # follows from the scores

    def as_dict(self) -> dict[str, Any]:
        """JSON values, without what there is not."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.promise is not None:
            values["promise"] = self.promise.as_dict()
        return {name: value for name, value in values.items() if value is not None}

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


def conformal_threshold(ok_scores: Sequence[float], rate: float) -> tuple[float, int]:
    """The lowest threshold that rejects the next good part with probability `rate` at most, whatever the distribution.

    Just above the k-th smallest of n scores, k = ⌈(n + 1)(1 - rate)⌉: the next score is as likely to be of any rank
    among n + 1. Where n is too small for the rate, k is n: just above the largest score, which is reached with
    probability 1 / (n + 1) at most. Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, 2005.

    Args:
        ok_scores: image scores of good parts, at least one.
        rate: false reject rate, 0..1 exclusive.

    Returns:
        The threshold, and k.

    Raises:
        ValueError: no OK score.
    """
    if not ok_scores:
        raise ValueError("at least one OK score is needed")
    n = len(ok_scores)
    may_exceed = math.floor((n + 1) * Fraction(str(rate)))  # of n + 1; in binary 0.29 · 100 is below 29
    rank = min(n, n + 1 - may_exceed)
    return math.nextafter(sorted(ok_scores)[rank - 1], math.inf), rank


def calibrate(
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    *,
    mm_per_px: float,
    area_mm2_thr: float,
    score_percentile: float,
    memory_id: str | None,
    blur_sigma: float | None = None,
    target_false_reject_rate: float | None = None,
    n_candidates: int = 1,
    ok_are_fresh: bool | None = None,
) -> Calibration:
    """Choose the threshold and record what it rests on.

    Args:
        ok_scores, ng_scores: as for `choose_threshold`.
        mm_per_px, area_mm2_thr, score_percentile, memory_id, blur_sigma: see `Calibration`.
        target_false_reject_rate: choose by `conformal_threshold`; None is the rule of `choose_threshold`.
        n_candidates, ok_are_fresh: as for `make_promise`.

    Raises:
        ValueError: no OK score.
    """
    rank: int | None
    if target_false_reject_rate is None:
        threshold, rank = choose_threshold(ok_scores, ng_scores), None if ng_scores else _rank_below_p99(len(ok_scores))
    else:
        threshold, rank = conformal_threshold(ok_scores, target_false_reject_rate)
    return Calibration(
        threshold=threshold,
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
        blur_sigma=blur_sigma,
        target_false_reject_rate=target_false_reject_rate,
        promise=make_promise(
            ok_scores,
            ng_scores,
            threshold,
            rank=rank,
            target=target_false_reject_rate,
            n_candidates=n_candidates,
            ok_are_fresh=ok_are_fresh,
        ),
    )


def _rank_below_p99(n: int) -> int:
    """Which of `n` sorted scores, counted from 1, p99 never lies below: it lies between that and the next."""
    return int((n - 1) * 0.99) + 1
