"""Which percentile of the distance map separates good from defective images best, beyond mere chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backend.common.errors import InvalidRequest

CANDIDATES: tuple[float, ...] = (95, 98, 99, 99.5, 99.9, 100)
PREFERRED = 99.0
# 5 % shared by the five others. Without the test the best of six was worse than 99 on fresh images; see
# `benchmarks.thresholds`.
_ERROR_OF_EACH = 0.01
# From fewer images of a class their variance is mere chance.
_LEAST = 5


@dataclass(frozen=True)
class Candidate:
    """How well a percentile separates the calibration images.

    Attributes:
        score_percentile: of the masked distance map.
        auroc: probability that a defective image scores above a good one, ties counted by half.
        gap: lowest defective minus highest good score; negative when they overlap.
        gain_in_errors: how far its AUROC is above that of 99, in standard errors; None for 99, and if the error is
            unknown: a class has one image, or both percentiles rank all images alike.
    """

    score_percentile: float
    auroc: float
    gap: float
    gain_in_errors: float | None


@dataclass(frozen=True)
class PercentileChoice:
    """The chosen percentile, the reason, and the candidates."""

    chosen: float
    reason: str
    candidates: list[Candidate]


def choose_percentile(ok: Mapping[float, Sequence[float]], ng: Mapping[float, Sequence[float]]) -> PercentileChoice:
    """The percentile with the largest AUROC that is significantly better than 99, else 99; 99 below 5 images a class.

    AUROCs of the same images are compared by their paired standard error: DeLong, DeLong, Clarke-Pearson, *Comparing
    the areas under two or more correlated receiver operating characteristic curves*, Biometrics 44 (1988). Each of the
    five others is tested at 1 %, by Student's distribution with as many degrees of freedom as the smaller class has.

    Args:
        ok, ng: scores of good and defective images by percentile, in the same order of images; for all `CANDIDATES`.

    Raises:
        InvalidRequest: no defective image.
    """
    if not ng[PREFERRED]:
        raise InvalidRequest("choosing the percentile needs NG images: add some, or leave choose_percentile out")
    preferred = _placements(ok[PREFERRED], ng[PREFERRED])
    candidates = [_candidate(percent, ok[percent], ng[percent], preferred) for percent in CANDIDATES]
    before = next(item for item in candidates if item.score_percentile == PREFERRED)
    n_ok, n_ng = len(ok[PREFERRED]), len(ng[PREFERRED])
    if min(n_ok, n_ng) < _LEAST:
        reason = (
            f"99 is kept (AUROC {before.auroc:.4f}): {n_ok} OK and {n_ng} NG images are too few to compare "
            f"percentiles; at least {_LEAST} of each are needed"
        )
        return PercentileChoice(PREFERRED, reason, candidates)
    margin = _student_quantile(1 - _ERROR_OF_EACH, min(n_ok, n_ng) - 1)
    better = [item for item in candidates if item.gain_in_errors is not None and item.gain_in_errors > margin]
    if better:
        best = max(better, key=lambda item: item.auroc)
        reason = (
            f"{best.score_percentile:g} separates significantly better than 99: AUROC {best.auroc:.4f} "
            f"instead of {before.auroc:.4f}"
        )
        return PercentileChoice(best.score_percentile, reason, candidates)
    reason = f"99 is kept (AUROC {before.auroc:.4f}): no other percentile separates significantly better"
    unjudged = [f"{c.score_percentile:g}" for c in candidates if c.gain_in_errors is None and c.auroc > before.auroc]
    if unjudged:
        reason = (
            f"99 is kept (AUROC {before.auroc:.4f}): {', '.join(unjudged)} may separate better, but the scores of "
            "all images are ranked alike, so this cannot be tested: add images"
        )
    return PercentileChoice(PREFERRED, reason, candidates)


def _student_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit  # half a second that a start need not wait for

    return float(stdtrit(degrees, probability))


def _candidate(
    percent: float,
    ok: Sequence[float],
    ng: Sequence[float],
    preferred: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> Candidate:
    of_ng, of_ok = _placements(ok, ng)
    auroc, gain = float(of_ng.mean()), float(of_ng.mean() - preferred[0].mean())
    error = 0.0
    if len(ok) > 1 and len(ng) > 1:
        error = math.sqrt(
            np.var(of_ng - preferred[0], ddof=1) / len(ng) + np.var(of_ok - preferred[1], ddof=1) / len(ok)
        )
    return Candidate(percent, auroc, min(ng) - max(ok), gain / error if error > 1e-12 else None)


def _placements(ok: Sequence[float], ng: Sequence[float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of good scores below each defective score, and the share of defective scores above each good score."""
    good, defective = np.sort(ok), np.sort(ng)
    of_ng = (np.searchsorted(good, ng, "left") + np.searchsorted(good, ng, "right")) / (2 * len(good))
    of_ok = 1 - (np.searchsorted(defective, ok, "left") + np.searchsorted(defective, ok, "right")) / (
        2 * len(defective)
    )
    return of_ng, of_ok
