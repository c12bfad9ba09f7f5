"""The scores of stored images for a calibration: by the memory bank of the others, from an earlier run, or new."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from backend.bank.copies import Look
from backend.bank.images import BankImage
from backend.bit_depth import NOT_SETTLED, BitDepth, unsettled
from backend.common.roi_key import RoiKey
from backend.disk.datasets import Label
from backend.disk.fitted import FittedRoi
from backend.disk.score_cache import ScoreCache
from backend.roi_mask import Shape
from backend.service.image_calibration import ImageScores
from backend.service.inspection import InspectionService
from backend.service.judge import judge_pixels
from backend.service.pictures import NO_PICTURES
from backend.service.scoring import Scoring
from backend.utils import NamedImage, mm2_to_px2


class Scored(NamedTuple):
    """The scores of a stored image.

    Attributes:
        identity: the identity that it counts as.
        scores: one for each percentile, and the region score if regions decide.
        is_honest: whether they are by the memory bank of the others.
        warning: a warning about its bit depth.
        look: its look, for the comparison with the images of the fit; None if it is one of them, or was already
            compared.
        near_copy_of: the result of `ImageScores.originals_of` from that comparison.
        left_out: the same image of the fit, if it does not count, see `FitSample`; then it has no scores.
    """

    identity: str
    scores: tuple[float, ...]
    is_honest: bool = False
    warning: str | None = None
    look: Look | None = None
    near_copy_of: str | None = None
    left_out: BankImage | None = None


@dataclass(frozen=True)
class StoredScorer:
    """Scores stored images for a calibration; an already scored image is not scored again.

    Attributes:
        service: who scores them.
        fitted: the model.
        scores: knows the images of its fit.
        cache: earlier scores.
        percentiles: each gives a score.
    """

    service: InspectionService
    fitted: FittedRoi
    scores: ImageScores
    cache: ScoreCache
    percentiles: tuple[float, ...]

    @classmethod
    def of(
        cls,
        service: InspectionService,
        key: RoiKey,
        fitted: FittedRoi,
        scores: ImageScores,
        percentiles: tuple[float, ...],
    ) -> "StoredScorer":
        """For the stored images of a ROI."""
        depth = BitDepth.of(fitted.metadata)
        conditions = {
            **(depth.as_metadata() if depth else {}),
            "memory_id": fitted.memory_id,
            "extractor": service.features_of(fitted.profile, fitted.detail).identity.as_dict(),
            "runtime": service.features.runtime.name,
            "score_percentile": percentiles[0] if len(percentiles) == 1 else list(percentiles),
            "blur_sigma": service.settings.blur_sigma,
        }
        cache = ScoreCache(service.datasets.folder(key), conditions)
        return cls(service, fitted, scores, cache, percentiles)

    def score(self, image: NamedImage, mm_per_px: float, shape: Shape | None) -> Scored:
        """The scores of an image, by the memory bank of the others if it was in the fit.

        Raises:
            InvalidImage, InvalidShape: see `judge`.
        """
        content = image.read()
        sha256 = hashlib.sha256(content).hexdigest()
        own, pixels = self.scores.own.of_file(sha256), self.cache.pixels_of(sha256)
        depth = BitDepth.of(self.fitted.metadata)
        where = (shape, mm_per_px)
        known = self._known(own, sha256, pixels, *where) if own or pixels else None
        if known and self._is_compared(known, pixels):
            near_copy_of = None if known.is_honest or pixels is None else self.cache.original_of(pixels)
            return known._replace(warning=self._unsettled(known, content, depth), near_copy_of=near_copy_of or None)
        once = NamedImage(image.name, lambda: content, image.uploaded_as)
        with self.service.pixels_of(once):
            decoded, warning = self.service.decode(once, depth)
            look = Look.of(decoded)
            if pixels is None:
                pixels = look.pixels_sha256
                self.cache.put_pixels(sha256, pixels)
                known = self._known(own, sha256, pixels, *where)
            own = own or self.scores.own.of_pixels(pixels)
            to_compare = look if own is None and self.scores.knows_looks else None
            if known:
                return known._replace(warning=self._unsettled(known, content, depth), look=to_compare)
            area = self._area_mm2
            scoring = Scoring(mm_per_px, shape, self.percentiles[0], self.percentiles[1:], area)
            result = judge_pixels(self.service, self.fitted, decoded, scoring, NO_PICTURES)
            del decoded
        found = (result.inference.score, *result.scores)
        limit = () if area is None else (mm2_to_px2(area, mm_per_px),)
        if warning in (None, NOT_SETTLED):  # else it is looked at, and doubted, again
            self.cache.put(pixels, shape, (*found, *limit))
        return Scored(own.identity if own else pixels, found, warning=warning, look=to_compare)

    def _is_compared(self, known: Scored, pixels: str | None) -> bool:
        """Whether an image can be compared with those of the fit without decoding it."""
        if known.is_honest or not self.scores.knows_looks or pixels is None or self.scores.own.of_pixels(pixels):
            return True
        return self.cache.original_of(pixels) is not None

    def keep_near_copies(self, scored: Mapping[tuple[Label, str], Scored]) -> None:
        """Record the images that look nearly the same as one of the fit, and which images were compared.

        Args:
            scored: images by their class and name.
        """
        looks = {image: found.look for image, found in scored.items() if found.look is not None}
        originals = dict(zip(looks, self.scores.originals_of(list(looks.values())), strict=True))
        for image, look in looks.items():
            self.cache.put_original(look.pixels_sha256, originals[image] or "")
        for image, found in scored.items():
            if original := originals.get(image) or found.near_copy_of:
                self.scores.add_near_copy(*image, original)

    @staticmethod
    def _unsettled(known: Scored, content: bytes, depth: BitDepth | None) -> str | None:
        return NOT_SETTLED if not known.is_honest and unsettled(content, depth) else None

    @property
    def _area_mm2(self) -> float | None:
        return None if self.scores.regions is None else self.scores.regions.area_mm2

    def kept(self, digest: str, shape: Shape | None) -> tuple[float, ...] | None:
        """The earlier scores of an image at the percentiles, by the hash of its pixels or its file; else None."""
        found, n = self.cache.get(digest, shape), len(self.percentiles)
        # Behind them stand, where regions decided, the score of these and their least area in pixels.
        return found[:n] if found is not None and len(found) in (n, n + 2) else None

    def _cached(self, digest: str, shape: Shape | None, mm_per_px: float) -> tuple[float, ...] | None:
        """As `kept`; if regions decide, also with the region score for the same smallest area."""
        scores = self.kept(digest, shape)
        if scores is None or self._area_mm2 is None:
            return scores
        region = (self.cache.get(digest, shape) or ())[len(scores) :]
        return (*scores, region[0]) if region[1:] == (mm2_to_px2(self._area_mm2, mm_per_px),) else None

    def _known(
        self, own: BankImage | None, sha256: str, pixels: str | None, shape: Shape | None, mm_per_px: float
    ) -> Scored | None:
        """The scores of an image that are known without the network.

        Args:
            own: the image of the fit with the same file.
            sha256, pixels: hashes of its file, and of its pixels if they are known.
            shape: mask within which it is scored.
            mm_per_px: millimetres per pixel of it.
        """
        if own is None and pixels is not None:
            own = self.scores.own.of_pixels(pixels)
        if own is not None and (honest := self.scores.by_the_others(own, shape, mm_per_px)):
            return Scored(own.identity, honest, is_honest=True)
        if own is not None and self.scores.sample.stands_for(own, shape):
            return Scored(own.identity, (), is_honest=True, left_out=own)
        for digest in (pixels, sha256):
            found = None if digest is None else self._cached(digest, shape, mm_per_px)
            if found is not None:
                return Scored(own.identity if own else pixels or sha256, found)
        return None
