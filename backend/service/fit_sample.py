"""The scored random sample of a large fit, and the images that it represents in a calibration."""

from collections.abc import Sequence

from backend.bank.images import BankImage
from backend.disk.datasets import Label
from backend.roi_mask import Shape
from backend.service.region_scores import FitRegions


class FitSample:
    """Which images of a fit do not count in a calibration, because its random sample represents them.

    Args:
        images: of the fit.
        percentiles: each gives a score of every image.
        regions: as of `ImageScores`.
    """

    def __init__(self, images: Sequence[BankImage], percentiles: Sequence[float], regions: FitRegions | None) -> None:
        self._images = images
        self._of_any_mask = regions is not None
        self._has_scores = any(
            image.sampled and (_has_scores(image, percentiles) if regions is None else regions.has_map(image))
            for image in images
        )
        self._left_out: set[tuple[Label, str]] = set()

    def stands_for(self, image: BankImage, shape: Shape | None) -> bool:
        """Whether the sample represents an image of the fit: the image is not in it, and its scores can be used.

        Args:
            image: of the fit.
            shape: mask within which it is scored.
        """
        return image.sampled is False and self._has_scores and (self._of_any_mask or image.has_mask(shape))

    def leave_out(self, label: Label, image: BankImage) -> None:
        """Remember an image that does not count."""
        self._left_out.add((label, image.identity))

    def about(self) -> str | None:
        """A warning that images of the fit do not count, because the sample represents them; None if all count."""
        if not self._left_out:
            return None
        sampled = [image.sampled for image in self._images if image.sampled is not None]
        images = (
            "1 image of the fit does" if len(self._left_out) == 1 else f"{len(self._left_out)} images of the fit do"
        )
        return (
            f"{images} not count: a random sample of {sum(sampled)} of the {len(sampled)} images of the fit was "
            "scored by the memory bank of the others, and represents all"
        )


def _has_scores(image: BankImage, percentiles: Sequence[float]) -> bool:
    return all(image.score(percentile) is not None for percentile in percentiles)
