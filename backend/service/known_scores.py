"""The known scores of stored images, from the fit and from calibrations: nothing is inferred."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from backend.common.errors import ErrorCode, InvalidRequest, StorageError
from backend.common.roi_key import RoiKey
from backend.disk.datasets import Label, Sample
from backend.disk.fitted import FittedRoi
from backend.roi_mask import Shape, parse_shape
from backend.scores.percentile_choice import CANDIDATES
from backend.service.image_calibration import ImageScores
from backend.service.inspection import InspectionService
from backend.service.stored_scores import StoredScorer

# How long a request reads files of images whose pixels nobody has written down: the next request goes on.
_READS_FOR_S = 2.0


@dataclass(frozen=True)
class KnownScore:
    """A stored image, and what is known about its score.

    Attributes:
        sample: the image.
        score: 0..2; None if unknown.
        honest: whether the memory bank that gave the score does not contain the image; None if unknown, or without a
            score.
        in_fit: whether it is an image of the fit; None if unknown.
        error: why it cannot be scored.
        code: error code for programs.
    """

    sample: Sample
    score: float | None = None
    honest: bool | None = None
    in_fit: bool | None = None
    error: str | None = None
    code: ErrorCode | None = None


@dataclass(frozen=True)
class KnownScores:
    """Some stored images of a ROI.

    Attributes:
        fitted: the model that scored them.
        percentile: percentile of the distance map that is the score.
        images: in the order of their classes and names.
        n_total: their total number, including those that are not among these.
    """

    fitted: FittedRoi
    percentile: float
    images: list[KnownScore]
    n_total: int


def known_scores(
    service: InspectionService, key: RoiKey, labels: Sequence[Label], offset: int, limit: int
) -> KnownScores:
    """The scores of stored images by the model of the ROI, at the percentile of `/infer`.

    An image of the fit has its score by the memory bank of the others. Other images have the score of the last
    calibration from stored images.

    Args:
        service: has the images.
        key: the ROI.
        labels: their classes.
        offset: number of images to skip.
        limit: maximum number of images.

    Raises:
        MemoryNotFound, IncompatibleMemory: see `InspectionService.fitted`.
        InvalidRequest, Conflict, StorageError: the images cannot be listed.
    """
    fitted = service.fitted(key)
    calibrated = fitted.calibration.score_percentile if fitted.calibration else None
    percentile = service.score_percentile_of(fitted.profile, fitted.detail) if calibrated is None else calibrated
    samples = [sample for label in labels for sample in service.datasets.samples(key, label)]
    book = _Book(service, key, fitted, percentile)
    images = [book.look_up(sample) for sample in samples[offset : offset + limit]]
    return KnownScores(fitted, percentile, images, len(samples))


class _Book:
    """Looks up images in the records of the fit and of calibrations.

    Args:
        service, key, fitted: as of `known_scores`.
        percentile: percentile of the score.
    """

    def __init__(self, service: InspectionService, key: RoiKey, fitted: FittedRoi, percentile: float) -> None:
        self._service = service
        self._percentile = percentile
        self._until = time.monotonic() + _READS_FOR_S
        # Calibrations name their scores by the number as it was sent, 99 or 99.0, or by all that they chose from.
        several: list[tuple[float, ...]] = [(float(percentile),)]
        if percentile == int(percentile):
            several.append((int(percentile),))
        if percentile in CANDIDATES:
            several.append(CANDIDATES)
        self._scorers = [
            (StoredScorer.of(service, key, fitted, scores, percentiles), percentiles.index(percentile))
            for percentiles in several
            for scores in [ImageScores(fitted, service.settings.blur_sigma, percentiles, {})]
        ]
        self._own = self._scorers[0][0].scores.own

    def look_up(self, sample: Sample) -> KnownScore:
        """What is known about an image."""
        try:
            facts = sample.all_facts()
            shape = parse_shape(facts.shape_json)
            pixels = facts.pixels_sha256
            found = self._by_hashes(sample, shape, [pixels] if pixels else [], None)
            if found is None and (file := self._hash_of_file(sample)):
                known = [digest for scorer, _ in self._scorers if (digest := scorer.cache.pixels_of(file))]
                found = self._by_hashes(sample, shape, known, file)
        except (InvalidRequest, StorageError) as exc:
            return KnownScore(sample, error=str(exc), code=exc.code)
        return found or KnownScore(sample)

    def _by_hashes(
        self, sample: Sample, shape: Shape | None, pixels: Sequence[str], file: str | None
    ) -> KnownScore | None:
        """The score of an image by hashes of its pixels and of its file; None if unknown."""
        own = next((own for digest in pixels if (own := self._own.of_pixels(digest))), None)
        own = own or (self._own.of_file(file) if file else None)
        if own is not None and (honest := own.scores_within(shape, (self._percentile,))):
            return KnownScore(sample, honest[0], honest=True, in_fit=True)
        for scorer, place in self._scorers:
            for digest in (*pixels, *([file] if file else [])):
                scores = scorer.kept(digest, shape)
                if scores is None:
                    continue
                if own is not None:
                    return KnownScore(sample, scores[place], honest=False, in_fit=True)
                if digest == file or not self._own.images:  # its pixels are not known, or those of the fit
                    return KnownScore(sample, scores[place])
                return KnownScore(sample, scores[place], honest=not scorer.cache.original_of(digest), in_fit=False)
        return None if own is None else KnownScore(sample, in_fit=True)

    def _hash_of_file(self, sample: Sample) -> str | None:
        """The hash of the file of an image; None after the time limit, unless it is known."""
        hashes = self._service.file_hashes
        try:
            if (known := hashes.known(sample.path)) is not None or time.monotonic() >= self._until:
                return known
            return hashes.of(sample.path)
        except OSError as exc:
            raise StorageError(f"{sample.title}: the stored image cannot be read ({exc.strerror})") from exc
