"""The options of a calibration from images, checked before any image is scored."""

from collections.abc import Collection
from dataclasses import dataclass

from backend.calib import CONTRACT_RULE, DecideBy, ThresholdOptions
from backend.common.errors import InvalidRequest
from backend.common.profiles import CONTRACT, RECOMMENDED, ProfileName, score_percentile_of
from backend.region_calibration import check_ways
from backend.scores.percentile_choice import CANDIDATES


@dataclass(frozen=True)
class CalibrationOptions:
    """The options of a calibration from images.

    Attributes:
        score_percentile: percentile of the score; None takes the configured one.
        area_mm2_thr: as for `calibrate`.
        threshold: how the threshold is chosen.
        choose: choose the percentile by `choose_percentile`, from one inference of each image.
        keep, not_good: names of OK images, in addition to the positions in `threshold`.
        decide_by: what decides about a part, see `Calibration`.
        pixel_threshold: see `RegionScores`.
    """

    score_percentile: float | None = None
    area_mm2_thr: float | None = None
    threshold: ThresholdOptions = CONTRACT_RULE
    choose: bool = False
    keep: tuple[str, ...] = ()
    not_good: tuple[str, ...] = ()
    decide_by: DecideBy = "score"
    pixel_threshold: float | None = None

    def check(self, ok_names: Collection[str] | None, n_ng: int) -> None:
        """Refuse at once what would be refused after the scoring of all images.

        Args:
            ok_names: names of the images that will be scored as OK; None if unknown yet.
            n_ng: NG images.

        Raises:
            InvalidRequest: see `ThresholdOptions.check_way` and `check_ways`; `keep` by another rule, or a name that no
                OK image has; the percentile should be chosen although regions decide.
        """
        self.threshold.check_way(n_ng)
        check_ways(self.decide_by, self.pixel_threshold, self.threshold)
        if self.choose and self.decide_by != "score":
            raise InvalidRequest(
                f"choose_percentile and decide_by={self.decide_by} cannot be combined: send one of them"
            )
        if self.keep and self.threshold.rule != "recommended":
            raise InvalidRequest("keep needs rule=recommended: with other rules, every OK image counts")
        for member, names in (("keep", self.keep), ("not_good", self.not_good)):
            unknown = [] if ok_names is None else [name for name in names if name not in ok_names]
            if unknown:
                raise InvalidRequest(f"{member} names {unknown[0]!r}, but no OK image has this name")

    def percentiles(self, profile: ProfileName, configured: float, detail: int = 1) -> tuple[float, ...]:
        """The percentiles that images are scored at, in percent; several if the best of them will be chosen.

        Args:
            profile: of the memory bank; the recommended one has a percentile of its own.
            configured: ``SCORE_PERCENTILE``.
            detail: of the memory bank.

        Raises:
            InvalidRequest: the percentile should be chosen, but the profile has a fixed one.
        """
        if profile == RECOMMENDED:
            own = score_percentile_of(profile, configured, detail)
            if self.choose:
                raise InvalidRequest(
                    f"choose_percentile is for profile={CONTRACT}: the score of profile={RECOMMENDED} is p{own:g}"
                )
            return (own,)
        if self.choose:
            return CANDIDATES
        return (configured if self.score_percentile is None else self.score_percentile,)
