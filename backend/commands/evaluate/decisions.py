"""The decisions of an evaluation: rejected good parts and escaped defective parts, at the thresholds of rules."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from backend.calib import Calibration, RuleName, ThresholdOptions, calibrate
from backend.commands.evaluate.metrics import Rate

ChosenBy = Literal["contract", "recommended", "hindsight"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
# A threshold is chosen with so many NG images, too.
NG_COUNTS = (0, 3, 10)
_SEED = 0
_Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """The decisions of a threshold on the test images.

    Attributes:
        chosen_by: the rule, or ``"hindsight"``: the best threshold for exactly these images, which is unknown
            beforehand.
        n_ng: NG images that the rule uses in addition to the good ones. They are drawn from the defective test images,
            and do not count.
        threshold: images with this score or a higher one are rejected.
        false_rejects: good test images that are rejected.
        escapes: defective test images that are not.
        escapes_by_type: the same for each type of defect that is left.
    """

    chosen_by: ChosenBy
    n_ng: int
    threshold: float
    false_rejects: Rate
    escapes: Rate
    escapes_by_type: dict[str, Rate]

    def of_type(self, kind: str) -> "Decision | None":
        """The same of one type of defect; None if no image of it is left."""
        escapes = self.escapes_by_type.get(kind)
        return None if escapes is None else replace(self, escapes=escapes, escapes_by_type={kind: escapes})

    @property
    def error(self) -> float:
        """The mean of both rates, 0..1."""
        return (self.false_rejects.value + self.escapes.value) / 2


def choose(
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    options: ThresholdOptions,
    ok_names: Sequence[str] | None = None,
) -> Calibration:
    """The threshold that the service would choose, and its promise.

    Args:
        ok_scores: of the training images, each by a memory bank of the others; at least one.
        ng_scores: of defective images.
        options: how.
        ok_names: names of the training images.
    """
    return calibrate(
        ok_scores,
        ng_scores,
        mm_per_px=1,
        area_mm2_thr=0,
        score_percentile=0,
        memory_id=None,
        options=options,
        ok_are_fresh=True,
        ok_names=ok_names,
    )


def drawn_ng(n_defective: int, n_ng: int) -> list[int]:
    """The defective test images that a rule uses: the first in a fixed random order, so that the 10 include the 3."""
    return sorted(np.random.default_rng(_SEED).permutation(n_defective)[:n_ng].tolist())


def decide(
    ok_scores: Sequence[float], good: Sequence[float], defective: Sequence[float], types: Sequence[str]
) -> list[Decision]:
    """The decisions of each rule with good images only, and with some NG images; also of the best in hindsight.

    Args:
        ok_scores: as for `choose`; without scores there are no decisions.
        good, defective: scores of the test images, at least one of each.
        types: of defect, of each defective image.

    Returns:
        By number of NG images. There are none if the data set has no more defective images than that.
    """
    if not ok_scores:
        return []
    found = []
    for n_ng in NG_COUNTS:
        if n_ng >= len(defective):
            continue
        drawn = drawn_ng(len(defective), n_ng)
        left = [place for place in range(len(defective)) if place not in set(drawn)]
        rest, rest_types = [defective[place] for place in left], [types[place] for place in left]
        ng_scores = [defective[place] for place in drawn]
        for rule in RULES:
            threshold = choose(ok_scores, ng_scores, ThresholdOptions(rule=rule)).threshold
            found.append(_decision(rule, n_ng, threshold, good, rest, rest_types))
        found.append(_decision("hindsight", n_ng, best_threshold(good, rest), good, rest, rest_types))
    return found


def _decision(
    chosen_by: ChosenBy,
    n_ng: int,
    threshold: float,
    good: Sequence[float],
    defective: Sequence[float],
    types: Sequence[str],
) -> Decision:
    passed = Counter(kind for score, kind in zip(defective, types, strict=True) if score < threshold)
    return Decision(
        chosen_by,
        n_ng,
        threshold,
        Rate(sum(score >= threshold for score in good), len(good)),
        Rate(passed.total(), len(defective)),
        {kind: Rate(passed[kind], number) for kind, number in Counter(types).items()},
    )


def best_threshold(good: Sequence[float], defective: Sequence[float]) -> float:
    """The threshold with the lowest mean of false reject and escape rate; of several, the middle of the widest gap.

    Args:
        good, defective: scores, at least one of each.
    """
    ok, ng = (np.sort(np.asarray(scores, np.float64)) for scores in (good, defective))
    scores = np.unique(np.concatenate([ok, ng]))
    above = np.append(scores, np.nextafter(scores[-1], np.inf))
    errors = 1 - np.searchsorted(ok, above) / len(ok) + np.searchsorted(ng, above) / len(ng)
    below = np.append(scores[0], scores)
    gaps = np.where(np.isclose(errors, errors.min(), rtol=0, atol=1e-12), above - below, -1)
    best = int(gaps.argmax())
    middle = float(below[best] + above[best]) / 2
    return middle if middle > below[best] else float(above[best])


def mean_rates(decisions: Sequence[Decision]) -> tuple[float, float]:
    """The mean false reject rate and the mean escape rate; at least one decision."""
    return (
        statistics.fmean(decision.false_rejects.value for decision in decisions),
        statistics.fmean(decision.escapes.value for decision in decisions),
    )


def found_by(decisions: Sequence[Decision], chosen_by: ChosenBy, n_ng: int = 0) -> Decision | None:
    """The decision of a rule with so many NG images; None if there is none."""
    return next((one for one in decisions if (one.chosen_by, one.n_ng) == (chosen_by, n_ng)), None)
