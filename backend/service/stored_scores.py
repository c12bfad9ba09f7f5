"""The scores of stored images for a calibration: by the memory bank of the others, from an earlier run, or new."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from backend.bank.images import BankImage
from backend.bit_depth import NOT_SETTLED, BitDepth, unsettled
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.disk.score_cache import ScoreCache
from backend.roi_mask import Shape
from backend.service.image_calibration import ImageScores
from backend.service.inspection import InspectionService
from backend.service.judge import judge_pixels
from backend.service.scoring import Scoring
from backend.utils import NamedImage, pixels_sha256


class Scored(NamedTuple):
    """What a stored image gave.

    Attributes:
        identity: what it counts as.
        scores: one for each percentile.
        is_honest: whether they are by the memory bank of the others.
        warning: what is doubtful about its bit depth.
    """

    identity: str
    scores: tuple[float, ...]
    is_honest: bool = False
    warning: str | None = None


@dataclass(frozen=True)
class StoredScorer:
    """Scores stored images for a calibration; an image that was scored before is not scored again.

    Attributes:
        service: who scores them.
        fitted: the model.
        scores: knows the images of its fit.
        cache: what was scored before.
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
            "extractor": service.features_of(fitted.profile).identity.as_dict(),
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
        if (own or pixels) and (known := self._known(own, sha256, pixels, shape)):
            return known._replace(warning=self._unsettled(known, content, depth))
        once = NamedImage(image.name, lambda: content, image.uploaded_as)
        with self.service.pixels_of(once):
            decoded, warning = self.service.decode(once, depth)
            if pixels is None:
                pixels = pixels_sha256(decoded)
                self.cache.put_pixels(sha256, pixels)
                if known := self._known(own, sha256, pixels, shape):
                    return known._replace(warning=self._unsettled(known, content, depth))
            scoring = Scoring(mm_per_px, shape, self.percentiles[0], self.percentiles[1:])
            finding = judge_pixels(self.service, self.fitted, decoded, scoring, with_heatmap=False).inference
            del decoded
        found = (finding.score, *finding.scores)
        if warning in (None, NOT_SETTLED):  # else it is looked at, and doubted, again
            self.cache.put(pixels, shape, found)
        own = own or self.scores.own.of_pixels(pixels)
        return Scored(own.identity if own else pixels, found, warning=warning)

    @staticmethod
    def _unsettled(known: Scored, content: bytes, depth: BitDepth | None) -> str | None:
        return NOT_SETTLED if not known.is_honest and unsettled(content, depth) else None

    def _known(self, own: BankImage | None, sha256: str, pixels: str | None, shape: Shape | None) -> Scored | None:
        """What is known of an image without the network.

        Args:
            own: the image of the fit that has this file.
            sha256, pixels: hashes of its file, and of its pixels if they are known.
            shape: mask within which it is scored.
        """
        if own is None and pixels is not None:
            own = self.scores.own.of_pixels(pixels)
        if own is not None and (honest := self.scores.by_the_others(own, shape)):
            return Scored(own.identity, honest, is_honest=True)
        for digest in (pixels, sha256):
            found = None if digest is None else self.cache.get(digest, shape)
            if found is not None and len(found) == len(self.percentiles):
                return Scored(own.identity if own else pixels or sha256, found)
        return None
