"""From image scores and region scores to the two thresholds of decisions by regions.

A part is defective if a region of at least some area is at or above the pixel threshold: exactly if its region score
(`infer.region_score`) reaches it. So rules and promises for image scores also hold for region scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from backend.calib import CONTRACT_RULE, Calibration, Chosen, ThresholdOptions, calibrate, choose, good_positions
from backend.common.errors import InvalidRequest
from backend.scores.promise import Promise, make_joint_promise, make_promise
from backend.scores.two_scores import conformal_thresholds


@dataclass(frozen=True)
class RegionScores:
    """The basis of decisions by regions.

    Attributes:
        decide_by: see `Calibration`.
        ok, ng: region scores of the good and of the defective parts, in the order of their image scores.
        pixel_threshold: use this threshold; None chooses one by `ThresholdOptions`.
    """

    decide_by: Literal["region", "either"]
    ok: Sequence[float]
    ng: Sequence[float] = ()
    pixel_threshold: float | None = None


def check_ways(decide_by: str, pixel_threshold: float | None, options: ThresholdOptions) -> None:
    """Check that a request names one way for both thresholds, before anything is scored.

    Raises:
        InvalidRequest: see `ThresholdOptions.check_way`; one threshold by hand without the other, or one that is not
            used; a cost with two thresholds.
    """
    by_hand = pixel_threshold is not None
    if decide_by == "score":
        if by_hand:
            raise InvalidRequest(
                "pixel_threshold needs decide_by=region or decide_by=either: decide_by=score does not use it"
            )
        return
    if by_hand and replace(options, threshold=None) != replace(CONTRACT_RULE, not_good=options.not_good):
        raise InvalidRequest(
            "pixel_threshold cannot be combined with rule=recommended, target_false_reject_rate or escape_cost: "
            "choose the threshold in one way"
        )
    if options.threshold is not None and not by_hand:
        raise InvalidRequest(
            f"decide_by={decide_by} also uses a pixel threshold: send pixel_threshold together with threshold"
        )
    if decide_by == "either" and by_hand and options.threshold is None:
        raise InvalidRequest("decide_by=either uses two thresholds: send threshold together with pixel_threshold")
    if decide_by == "either" and options.escape_cost is not None:
        raise InvalidRequest("escape_cost chooses one threshold: use decide_by=score or decide_by=region")


def calibrate_by_regions(
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    regions: RegionScores,
    *,
    options: ThresholdOptions = CONTRACT_RULE,
    ok_are_fresh: bool | None = None,
    ok_names: Sequence[str] | None = None,
    ng_names: Sequence[str] | None = None,
    **conditions: Any,
) -> Calibration:
    """Choose both thresholds, and record their promise.

    With ``decide_by="either"`` the two tests share the false reject rate of ``rule=recommended`` and of
    `target_false_reject_rate`; the contract's rule is applied to each.

    Args:
        ok_scores, ng_scores, options, ok_are_fresh, ok_names, ng_names: as for `calib.calibrate`.
        regions: the region scores of the same parts.
        conditions: as for `calib.calibrate`.

    Raises:
        InvalidRequest: see `ThresholdOptions.check` and `check_ways`.
    """
    check_ways(regions.decide_by, regions.pixel_threshold, options)
    both = regions.decide_by == "either"
    options = replace(options, n_tests=2 if both else 1)
    found = calibrate(
        ok_scores,
        ng_scores,
        options=options,
        ok_are_fresh=ok_are_fresh,
        ok_names=ok_names,
        ng_names=ng_names,
        **conditions,
    )
    positions = good_positions(len(ok_scores), options)
    good = [regions.ok[position] for position in positions]
    for_pixels = replace(options, threshold=regions.pixel_threshold)
    chosen = choose(good, regions.ng, for_pixels, positions, ok_names, ng_names)
    threshold, n_cut = found.threshold, None
    if both:
        good_pairs = [(ok_scores[position], regions.ok[position]) for position in positions]
        if options.target_false_reject_rate is not None:
            cut = conformal_thresholds(good_pairs, options.target_false_reject_rate)
            threshold, n_cut = cut.first, cut.n_cut
            chosen = replace(chosen, threshold=cut.second)
    pixel_threshold = chosen.threshold if chosen.rule == "manual" else _up_to_float32(chosen.threshold)
    level = float(np.float32(pixel_threshold))  # as regions are found
    if both:
        of_score = {place for place, position in enumerate(positions) if position in (found.unusual or ())}
        promise = make_joint_promise(
            good_pairs,
            list(zip(ng_scores, regions.ng, strict=True)),
            (threshold, level),
            n_cut=n_cut,
            target=options.target_false_reject_rate,
            ok_are_fresh=ok_are_fresh,
            unusual=chosen.unusual | of_score,
        )
    else:
        promise = _promise(good, regions.ng, replace(chosen, threshold=level), options, ok_are_fresh)
    return replace(
        found,
        threshold=threshold,
        rule=found.rule or chosen.rule,
        promise=promise,
        decide_by=regions.decide_by,
        pixel_threshold=pixel_threshold,
        pixel_why=chosen.recorded.get("why"),
        pixel_unusual=chosen.recorded.get("unusual"),
        pixel_overlap=max(good) >= min(regions.ng) if regions.ng else None,
    )


def _promise(
    good: Sequence[float],
    ng: Sequence[float],
    chosen: Chosen,
    options: ThresholdOptions,
    ok_are_fresh: bool | None,
) -> Promise:
    return make_promise(
        good,
        ng,
        chosen.threshold,
        rank=chosen.rank,
        target=options.target_false_reject_rate,
        ok_are_fresh=ok_are_fresh,
        freely_chosen=chosen.rule is not None,
        unusual=chosen.unusual,
    )


def _up_to_float32(threshold: float) -> float:
    """The smallest float32 that is not below a threshold: maps are float32, so it decides the same."""
    nearest = np.float32(threshold)
    return float(nearest if float(nearest) >= threshold else np.nextafter(nearest, np.float32(np.inf)))
