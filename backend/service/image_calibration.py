"""Images → scores → calibration, for stored images and for folders alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from backend.bank.building import look_id
from backend.bank.copies import Look, Miniature, copies_of_known, near_copies
from backend.bank.images import BankImage, OwnImages
from backend.calib import SEEN_IN_THE_FIT, Calibration, ThresholdOptions
from backend.common.errors import InvalidRequest
from backend.common.roi_key import RoiKey
from backend.disk.calibration_inputs import ScoredImage
from backend.disk.datasets import Label
from backend.disk.fitted import FittedRoi
from backend.region_calibration import RegionScores
from backend.roi_mask import Shape
from backend.scores.percentile_choice import PercentileChoice, choose_percentile
from backend.service.calibrate import calibrate
from backend.service.calibration_options import CalibrationOptions
from backend.service.doubts import about_calibration, about_defective_in_the_fit, joined
from backend.service.fit_sample import FitSample
from backend.service.inspection import InspectionService
from backend.service.region_scores import FitRegions, no_map_of
from backend.utils import named_with

_MOST_NAMED = 5


@dataclass(frozen=True)
class Deciding:
    """An image that influenced a threshold.

    Attributes:
        position: among the images of its class that were scored.
        score: of the image, 0..2.
        filename: its name.
        uploaded_as: original name of a stored image, if known.
    """

    position: int
    score: float
    filename: str
    uploaded_as: str | None = None


@dataclass(frozen=True)
class ImageCalibration:
    """A calibration from images.

    Attributes:
        calibration: as it was stored.
        warning: what the numbers cannot promise.
        choice: the chosen percentile, if a choice was requested.
        unusual: OK images that did not count, because they stand out.
        lowered_by: NG images that lowered the threshold.
        pixel_unusual: OK images that did not count for the pixel threshold, because their region scores stand out.
    """

    calibration: Calibration
    warning: str | None
    choice: PercentileChoice | None
    unusual: list[Deciding]
    lowered_by: list[Deciding]
    pixel_unusual: list[Deciding]


class ImageScores:
    """The scores of the images of a calibration.

    An image that was in the fit counts with its score by the memory bank of the others. If the fit was too large to
    score all of its images, only its scored random sample counts. Copies of an image count once: images with the same
    pixels, and near copies if the fit grouped them. An image that looks nearly the same as one of the fit counts with
    its score by the whole bank, and is named.

    Args:
        fitted: the model that the images are scored by.
        blur_sigma: that of current inferences.
        percentiles: each gives a score of every image.
        miniatures: of the images of the fit, by their number; see `Look`. Earlier versions kept none.
        regions: also scores images of the fit by their regions: each image then has this score after those of the
            percentiles. None: no region scores.

    Attributes:
        own: the images of the fit.
        sample: those of them that were scored, if the fit was too large to score all.
    """

    def __init__(
        self,
        fitted: FittedRoi,
        blur_sigma: float,
        percentiles: Sequence[float],
        miniatures: Mapping[int, Miniature],
        regions: FitRegions | None = None,
    ) -> None:
        self.regions = regions
        self.own = OwnImages(fitted.metadata, blur_sigma)
        self._looks = {
            look_id(image): Look(look_id(image), miniatures[number])
            for number, image in enumerate(self.own.images)
            if number in miniatures
        }
        self._near_copies: list[tuple[Label, str, str]] = []
        self._fitted = fitted
        self._percentiles = tuple(percentiles)
        self._own_by_the_bank = False
        self.sample = FitSample(self.own.images, percentiles, regions)
        self._scores: dict[Label, dict[str, tuple[float, ...]]] = {"ok": {}, "ng": {}}
        self._names: dict[Label, dict[str, str]] = {"ok": {}, "ng": {}}
        self._identities: dict[Label, dict[str, str]] = {"ok": {}, "ng": {}}  # copies have names of their own

    def by_the_others(
        self, image: BankImage, shape: Shape | None, mm_per_px: float | None = None
    ) -> tuple[float, ...] | None:
        """The score of an image of the fit by the memory bank of the others; None: score it by the bank itself.

        Raises:
            InvalidRequest: regions decide, but its region score is unknown; see `FitRegions.scores`.
        """
        found = self.known(image, shape, mm_per_px)
        if found is None and not self.sample.stands_for(image, shape):
            if self.regions is not None:
                raise no_map_of(image)
            self._own_by_the_bank = True
        return found

    def known(self, image: BankImage, shape: Shape | None, mm_per_px: float | None = None) -> tuple[float, ...] | None:
        """The score of an image of the fit by the memory bank of the others; None if unknown.

        Args:
            image: the image.
            shape: mask within which it is scored.
            mm_per_px: as for `FitRegions.scores`.
        """
        if self.regions is not None:
            return self.regions.scores(image, shape, self._percentiles, mm_per_px)
        return image.scores_within(shape, self._percentiles)

    def add_the_fit(self, shape: Shape | None) -> int:
        """Count every image of the fit as good; returns how many have a score by the memory bank of the others."""
        for image in self.own.images:
            if self.sample.stands_for(image, shape):
                self.sample.leave_out("ok", image)
        scored = [(image, scores) for image in self.own.images if (scores := self.known(image, shape)) is not None]
        for image, scores in scored:
            self.add("ok", image.identity, image.name, scores)
        return len(scored)

    def add(self, label: Label, identity: str, name: str, scores: Sequence[float]) -> None:
        """Count an image with one score for each percentile, and with its region score if regions decide."""
        self._scores[label].setdefault(identity, tuple(scores))
        self._names[label].setdefault(identity, name)
        self._identities[label][name] = identity

    @property
    def knows_looks(self) -> bool:
        """Whether near copies of images of the fit can be found."""
        return bool(self._looks)

    def originals_of(self, looks: Sequence[Look]) -> list[str | None]:
        """Find the images of the fit that look nearly the same as other images.

        Args:
            looks: of the other images.

        Returns:
            For each of them, the identity of the pixels of its first original (see `look_id`); None if it has no
            original.
        """
        known = list(self._looks.values())
        found = copies_of_known(known, looks)
        first = {look.pixels_sha256: found[number] for number, look in enumerate(looks) if number in found}
        originals = (first.get(look.pixels_sha256) for look in looks)
        return [None if number is None else known[number].pixels_sha256 for number in originals]

    def add_near_copy(self, label: Label, name: str, original: str) -> None:
        """Record a counted image that looks nearly the same as one of the fit.

        Args:
            label: its class.
            name: for people.
            original: what `originals_of` gave.
        """
        self._near_copies.append((label, name, original))

    def __contains__(self, image: tuple[Label, str]) -> bool:
        """Whether an image, by its class and identity, was counted."""
        label, identity = image
        return identity in self._scores[label]

    def count(self, label: Label) -> int:
        """How many images of a class were counted."""
        return len(self._scores[label])

    def calibrate(
        self,
        service: InspectionService,
        key: RoiKey,
        mm_per_px: float,
        options: CalibrationOptions,
        came_as: Mapping[tuple[Label, str], str | None] = MappingProxyType({}),
    ) -> ImageCalibration:
        """Choose the ROI's threshold from the scores and store it.

        Args:
            service: who stores it.
            key: the ROI.
            mm_per_px: millimetres per pixel of the images.
            options: what was asked for.
            came_as: original names of stored images, by their class and name.

        Raises:
            InvalidRequest: no OK image counts, because all are images of the fit that are not in its sample.
            BackendError: as the function `calibrate`.
        """
        if not self.count("ok") and (left_out := self.sample.about()):
            raise InvalidRequest(
                f"no OK image counts: {left_out}; give images that were not in the fit, or all that were"
            )
        by_percentile = {label: self._by_percentile(label) for label in self._scores}
        choice = choose_percentile(by_percentile["ok"], by_percentile["ng"]) if options.choose else None
        percentile = choice.chosen if choice else self._percentiles[0]
        are_fresh = self.own.are_fresh(recognised=self._own_by_the_bank)
        within_the_fit = self._about_copies_within_the_fit()
        if are_fresh and (within_the_fit or any(label == "ok" for label, _, _ in self._near_copies)):
            are_fresh = None  # frames of one part, or other parts that look alike
        calibration = calibrate(
            service,
            key,
            by_percentile["ok"][percentile],
            by_percentile["ng"][percentile],
            mm_per_px=mm_per_px,
            area_mm2_thr=options.area_mm2_thr,
            score_percentile=percentile,
            memory_id=self._fitted.memory_id,
            options=self._threshold_options(options),
            n_candidates=len(self._percentiles),
            ok_are_fresh=are_fresh,
            ok_names=self.names("ok"),
            ng_names=self.names("ng"),
            images=(self._images("ok", percentile, came_as), self._images("ng", percentile, came_as)),
            regions=self._region_scores(options),
        )
        doubts = about_calibration(
            key,
            calibration,
            self._fitted,
            service.settings,
            sent_area=options.area_mm2_thr is not None,
            sent_percentile=options.score_percentile,
        )
        seen = SEEN_IN_THE_FIT if are_fresh is False else None
        fitted = {image.identity for image in self.own.images}
        both = about_defective_in_the_fit([name for image, name in self._names["ng"].items() if image in fitted])
        copies = (both, within_the_fit, self._about_near_copies())
        warning = joined([calibration.warning, seen, self.sample.about(), *copies, doubts])
        return ImageCalibration(
            calibration,
            warning,
            choice,
            self._deciding("ok", by_percentile["ok"][percentile], calibration.unusual),
            self._deciding("ng", by_percentile["ng"][percentile], calibration.lowered_by),
            self._deciding("ok", self._of_regions("ok"), calibration.pixel_unusual),
        )

    def _region_scores(self, options: CalibrationOptions) -> RegionScores | None:
        if options.decide_by == "score":
            return None
        scores = self._of_regions("ok"), self._of_regions("ng")
        return RegionScores(options.decide_by, *scores, options.pixel_threshold)

    def _of_regions(self, label: Label) -> list[float]:
        return [] if self.regions is None else [scores[-1] for scores in self._scores[label].values()]

    def _deciding(self, label: Label, scores: Sequence[float], positions: Sequence[int] | None) -> list[Deciding]:
        names = self.names(label)
        return [Deciding(position, scores[position], names[position]) for position in positions or ()]

    def names(self, label: Label) -> list[str]:
        """Of the images of a class, in the order in which they were counted."""
        return list(self._names[label].values())

    def identities(self, label: Label) -> list[str]:
        """Of the images of a class, in the order in which they were counted."""
        return list(self._names[label])

    def _images(
        self, label: Label, percentile: float, came_as: Mapping[tuple[Label, str], str | None]
    ) -> list[ScoredImage]:
        number = self._percentiles.index(percentile)
        return [
            ScoredImage(scores[number], name, came_as.get((label, name)), identity)
            for (identity, scores), name in zip(self._scores[label].items(), self.names(label), strict=True)
        ]

    def _threshold_options(self, options: CalibrationOptions) -> ThresholdOptions:
        return replace(
            options.threshold,
            keep=(*options.threshold.keep, *self._positions("keep", options.keep)),
            not_good=(*options.threshold.not_good, *self._positions("not_good", options.not_good)),
        )

    def _positions(self, member: str, wanted: Sequence[str]) -> tuple[int, ...]:
        known = self._identities["ok"]
        if unknown := [name for name in wanted if name not in known]:
            raise InvalidRequest(f"{member} names {unknown[0]!r}, but no OK image that was scored has this name")
        asked = {known[name] for name in wanted}
        return tuple(position for position, identity in enumerate(self.identities("ok")) if identity in asked)

    def _about_copies_within_the_fit(self) -> str | None:
        """That images of the fit make each other's scores too low, of which one counts; grouped ones do not."""
        images = {look_id(image): image for image in self.own.images if look_id(image) in self._looks}
        if not any(("ok", image.identity) in self for image in images.values()):
            return None
        both = list(images.values())
        apart = [
            (both[first], both[second])
            for first, second in near_copies([self._looks[look] for look in images])
            if both[first].identity != both[second].identity
            and (("ok", both[first].identity) in self or ("ok", both[second].identity) in self)
        ]
        if not apart:
            return None
        named = [" and ".join(map(_title, pair)) for pair in apart[:_MOST_NAMED]]
        if len(apart) > len(named):
            named.append(f"{len(apart) - len(named)} more")
        found = (
            "1 pair of images of the fit looks" if len(apart) == 1 else f"{len(apart)} pairs of images of the fit look"
        )
        return (
            f"{found} nearly the same ({', '.join(named)}): if they show the same part, their scores are too low, and "
            "a threshold from these rejects too many good parts; fit on one image of each part, or with "
            "group_copies=true (--group-copies)"
        )

    def _about_near_copies(self) -> str | None:
        if not self._near_copies:
            return None
        names = {look_id(image): _title(image) for image in self.own.images}
        pairs = [f"{name} and {names[original]}" for _, name, original in self._near_copies[:_MOST_NAMED]]
        if len(self._near_copies) > len(pairs):
            pairs.append(f"{len(self._near_copies) - len(pairs)} more")
        images = "1 image looks" if len(self._near_copies) == 1 else f"{len(self._near_copies)} images look"
        return (
            f"{images} nearly the same as one of the fit ({', '.join(pairs)}): if they show the same part, their "
            "scores are too low, and a threshold from these rejects too many good parts; calibrate on other parts"
        )

    def _by_percentile(self, label: Label) -> dict[float, list[float]]:
        found: dict[float, list[float]] = {percentile: [] for percentile in self._percentiles}
        for scores in self._scores[label].values():
            for percentile, score in zip(self._percentiles, scores, strict=self.regions is None):
                found[percentile].append(score)
        return found


def _title(image: BankImage) -> str:
    return named_with(image.name, image.uploaded_as)
