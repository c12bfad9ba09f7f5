"""From scores to a threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from backend.common.errors import InvalidRequest
from backend.scores.promise import Promise, make_promise
from backend.scores.recommended_threshold import REJECTED_RATE, Recommendation, cheapest, position_name, recommend

RuleName = Literal["contract", "recommended"]
Rule = Literal["recommended", "cost", "manual"]
DecideBy = Literal["score", "region", "either"]
# Fewer NG scores say too little of how many parts escape.
LEAST_NG_FOR_COST = 10

SEEN_IN_THE_FIT = (
    "some of the OK images were in the fit, so their scores are lower than those of new parts: check the threshold "
    "on parts that were not in the fit"
)


@dataclass(frozen=True)
class ThresholdOptions:
    """How a threshold is chosen: at most one way; without any, by the rule of the contract.

    Attributes:
        rule: by name.
        target_false_reject_rate: choose by `conformal_threshold`.
        threshold: use this threshold.
        escape_cost: choose the threshold with the lowest cost; an escaped defective part costs as much as so many
            rejected good parts.
        defect_rate: share of defective parts in production; 0..1 exclusive.
        keep: positions of OK scores that stand out but count; only with the recommended rule.
        not_good: positions of OK scores of parts that are not good, according to a person: they do not count.
        n_tests: how many tests of a part share the false reject rate of the recommended rule.
    """

    rule: RuleName = "contract"
    target_false_reject_rate: float | None = None
    threshold: float | None = None
    escape_cost: float | None = None
    defect_rate: float | None = None
    keep: tuple[int, ...] = ()
    not_good: tuple[int, ...] = ()
    n_tests: int = 1

    def check_way(self, n_ng: int) -> None:
        """Check that it names only one way, before anything is scored.

        Args:
            n_ng: largest possible number of NG scores.

        Raises:
            InvalidRequest: two ways at once, half a cost, or too few NG scores for a cost.
        """
        ways = {
            "rule=recommended": self.rule != "contract",
            "target_false_reject_rate": self.target_false_reject_rate is not None,
            "threshold": self.threshold is not None,
            "escape_cost": self.escape_cost is not None,
        }
        named = [name for name, asked in ways.items() if asked]
        if len(named) > 1:
            raise InvalidRequest(f"{named[0]} and {named[1]} cannot be combined: choose the threshold in one way")
        if (self.escape_cost is None) != (self.defect_rate is None):
            raise InvalidRequest("escape_cost and defect_rate belong together: send both, or neither")
        if self.escape_cost is not None and n_ng < LEAST_NG_FOR_COST:
            raise InvalidRequest(f"escape_cost needs at least {LEAST_NG_FOR_COST} NG scores, but there are {n_ng}")

    def check(self, n_ok: int, n_ng: int) -> None:
        """Check that it is valid for so many scores.

        Raises:
            InvalidRequest: see `check_way`; `keep` with another rule, or a position without a score.
        """
        self.check_way(n_ng)
        if self.keep and self.rule != "recommended":
            raise InvalidRequest("keep needs rule=recommended: with other rules, every OK score counts")
        for name in ("keep", "not_good"):
            if wrong := [position for position in getattr(self, name) if not 0 <= position < n_ok]:
                raise InvalidRequest(
                    f"{name} names position {wrong[0]}, but there are only {n_ok} OK scores, counted from 0"
                )
        if both := set(self.keep) & set(self.not_good):
            raise InvalidRequest(f"position {min(both)} is in keep and in not_good")
        if self.not_good and len(set(self.not_good)) == n_ok:
            raise InvalidRequest("not_good names every OK score, but at least one is needed")


CONTRACT_RULE = ThresholdOptions()


@dataclass(frozen=True)
class Calibration:
    """The calibration that ``/infer`` applies to an image of the ROI.

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
        blur_sigma: Gaussian σ of the maps behind the scores, in pixels; None if the file does not state it.
        target_false_reject_rate: the rate that the threshold was chosen for; None with the percentile rule.
        rule: the rule of the threshold, if it is not that of the contract: ``"recommended"``, ``"cost"`` or
            ``"manual"``.
        why: basis of the threshold, in words, with the recommended rule.
        unusual: positions of OK scores that did not count.
        threshold_with_unusual: the threshold if they counted.
        lowered_by: positions of NG scores that lowered it.
        threshold_of_ok: the threshold of the recommended rule from the OK scores alone.
        promise: what decisions promise; None in older files.
        decide_by: ``"region"``: a part is defective if a region of at least `area_mm2_thr` is at or above
            `pixel_threshold`; ``"either"``: it is defective by its region or by its score; None: by the score alone.
        pixel_threshold: map values at or above it are defects, if `decide_by` is not None.
        pixel_why, pixel_unusual, pixel_overlap: like `why`, `unusual` and `overlap`, for region scores.
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
    rule: Rule | None = None
    why: str | None = None
    unusual: tuple[int, ...] | None = None
    threshold_with_unusual: float | None = None
    lowered_by: tuple[int, ...] | None = None
    threshold_of_ok: float | None = None
    promise: Promise | None = field(default=None, compare=False)  # follows from the scores
    decide_by: Literal["region", "either"] | None = None
    pixel_threshold: float | None = None
    pixel_why: str | None = None
    pixel_unusual: tuple[int, ...] | None = None
    pixel_overlap: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON values, without missing members."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.promise is not None:
            values["promise"] = self.promise.as_dict()
        return {name: value for name, value in values.items() if value is not None}

    @property
    def region_threshold(self) -> float:
        """Map values at or above it belong to regions."""
        return self.threshold if self.pixel_threshold is None else self.pixel_threshold

    def is_defective(self, score: float, n_regions: int) -> bool:
        """Whether a part is defective, by its image score and the number of regions at or above `region_threshold`."""
        by_score = score >= self.threshold
        return {None: by_score, "region": n_regions > 0, "either": by_score or n_regions > 0}[self.decide_by]

    @property
    def warning(self) -> str | None:
        """A warning about the threshold; None if there is nothing to say."""
        if self.rule == "recommended":  # by which unusual scores do not count; `why` says the rest
            return None
        told = []
        if self.overlap and self.decide_by != "region":
            told.append(
                f"OK and NG scores overlap (p99_ok {self.p99_ok:.4g}, p5_ng {self.p5_ng:.4g}): no threshold separates "
                "them; expect false rejects, escapes or both"
            )
        if self.pixel_overlap:
            told.append(
                "OK and NG parts overlap: the regions of an OK part reach as high a level as those of an NG part, so "
                "no pixel threshold separates them; expect false rejects, escapes or both"
            )
        return "; ".join(told) or None


def choose_threshold(ok_scores: Sequence[float], ng_scores: Sequence[float] = ()) -> float:
    """p99 of the OK scores; with NG scores, the midpoint between it and their p5.

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
    """The lowest threshold that rejects the next good part with at most probability `rate`, for any distribution.

    Just above the k-th smallest of n scores, k = ⌈(n + 1)(1 - rate)⌉: the next score has each rank among n + 1 with the
    same probability. If n is too small for the rate, k is n: just above the largest score, which is reached with
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
    options: ThresholdOptions = CONTRACT_RULE,
    n_candidates: int = 1,
    ok_are_fresh: bool | None = None,
    ok_names: Sequence[str] | None = None,
    ng_names: Sequence[str] | None = None,
) -> Calibration:
    """Choose the threshold, and record its basis.

    Args:
        ok_scores, ng_scores: as for `choose_threshold`.
        mm_per_px, area_mm2_thr, score_percentile, memory_id, blur_sigma: see `Calibration`.
        options: how the threshold is chosen.
        n_candidates, ok_are_fresh: as for `make_promise`.
        ok_names, ng_names: name of each score; None names it by its position.

    Raises:
        InvalidRequest: see `ThresholdOptions.check`.
        ValueError: no OK score.
    """
    options.check(len(ok_scores), len(ng_scores))
    positions = good_positions(len(ok_scores), options)
    good = [ok_scores[position] for position in positions]
    chosen = choose(good, ng_scores, options, positions, ok_names, ng_names)
    return Calibration(
        # 99 rather than 99.0, as in the files of older generations: some clients read an integer.
        score_percentile=int(score_percentile) if float(score_percentile).is_integer() else score_percentile,
        area_mm2_thr=area_mm2_thr,
        mm_per_px=mm_per_px,
        p99_ok=float(np.percentile(good, 99)),
        p5_ng=float(np.percentile(ng_scores, 5)) if ng_scores else None,
        ok_mean=math.fsum(good) / len(good),
        ng_mean=math.fsum(ng_scores) / len(ng_scores) if ng_scores else None,
        n_ok=len(good),
        n_ng=len(ng_scores),
        overlap=max(good) >= min(ng_scores) if ng_scores else None,
        memory_id=memory_id,
        blur_sigma=blur_sigma,
        target_false_reject_rate=options.target_false_reject_rate,
        promise=make_promise(
            good,
            ng_scores,
            chosen.threshold,
            rank=chosen.rank,
            target=options.target_false_reject_rate,
            n_candidates=n_candidates,
            ok_are_fresh=ok_are_fresh,
            freely_chosen=chosen.rule is not None,
            unusual=chosen.unusual,
        ),
        threshold=chosen.threshold,
        rule=chosen.rule,
        **chosen.recorded,
    )


@dataclass(frozen=True)
class Chosen:
    """A chosen threshold.

    Attributes:
        threshold: its value.
        rank: see `make_promise`.
        rule: see `Calibration`.
        recorded: further values of the `Calibration`.
        unusual: as for `make_promise`.
    """

    threshold: float
    rank: int | None
    rule: Rule | None = None
    recorded: dict[str, Any] = field(default_factory=dict)
    unusual: frozenset[int] = frozenset()


def choose(
    good: Sequence[float],
    ng_scores: Sequence[float],
    options: ThresholdOptions,
    positions: Sequence[int],
    ok_names: Sequence[str] | None,
    ng_names: Sequence[str] | None,
) -> Chosen:
    """Choose a threshold.

    Args:
        good: OK scores.
        ng_scores: NG scores.
        options: how.
        positions: of the OK scores among all that were sent.
        ok_names: of all OK scores that were sent.
        ng_names: of the NG scores.
    """
    if options.threshold is not None:
        return Chosen(options.threshold, None, "manual")
    if options.escape_cost is not None and options.defect_rate is not None:
        return Chosen(cheapest(good, ng_scores, options.escape_cost, options.defect_rate), None, "cost")
    if options.rule == "recommended":
        found = _recommended(good, ng_scores, options, positions, ok_names, ng_names)
        recorded: dict[str, Any] = {"why": found.why}
        if found.unusual:
            recorded["unusual"] = tuple(positions[place] for place in found.unusual)
            recorded["threshold_with_unusual"] = found.threshold_with_unusual
        if found.lowered_by:
            recorded["lowered_by"] = found.lowered_by
            recorded["threshold_of_ok"] = found.threshold_of_ok
        return Chosen(found.threshold, None, "recommended", recorded, frozenset(found.unusual))
    if options.target_false_reject_rate is not None:
        return Chosen(*conformal_threshold(good, options.target_false_reject_rate))
    return Chosen(choose_threshold(good, ng_scores), None if ng_scores else _rank_below_p99(len(good)))


def recommended_for(
    ok_scores: Sequence[float], ng_scores: Sequence[float], options: ThresholdOptions
) -> Recommendation:
    """The threshold of the recommended rule, whatever rule the options name.

    Args:
        ok_scores, ng_scores: as for `choose_threshold`.
        options: give `keep` and `not_good`; `check` accepts them.

    Returns:
        The recommendation, with positions among all OK scores.
    """
    positions = good_positions(len(ok_scores), options)
    found = _recommended([ok_scores[position] for position in positions], ng_scores, options, positions, None, None)
    return replace(found, unusual=tuple(positions[place] for place in found.unusual))


def good_positions(n_ok: int, options: ThresholdOptions) -> list[int]:
    """Positions of the OK scores that count: those that `not_good` does not name."""
    left = set(options.not_good)
    return [position for position in range(n_ok) if position not in left]


def _recommended(
    good: Sequence[float],
    ng_scores: Sequence[float],
    options: ThresholdOptions,
    positions: Sequence[int],
    ok_names: Sequence[str] | None,
    ng_names: Sequence[str] | None,
) -> Recommendation:
    """As for `choose`; positions of the recommendation are among the good scores."""
    wanted = set(options.keep)
    return recommend(
        good,
        ng_scores,
        {place for place, position in enumerate(positions) if position in wanted},
        ok_name=lambda place: _name(positions[place], ok_names),
        ng_name=lambda place: _name(place, ng_names),
        rate=REJECTED_RATE / options.n_tests,
    )


def _name(position: int, names: Sequence[str] | None) -> str:
    return names[position] if names is not None else position_name(position)


def _rank_below_p99(n: int) -> int:
    """Which of `n` sorted scores, counted from 1, is the last at or below p99."""
    return int((n - 1) * 0.99) + 1
