"""The effect of a changed threshold on known images, in numbers and in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from statistics import median

from backend.calib import Calibration
from backend.disk.calibration_inputs import CalibrationInputs, ScoredImage
from backend.scores.outliers import outliers
from backend.scores.recommended_threshold import position_name
from backend.utils import named_with

_MOST_NAMED = 5
_SAME = 1e-4  # runtimes differ by less about one image
_FEWEST_DIGITS, _MOST_DIGITS = 4, 17  # the latter tell any two floats apart


@dataclass(frozen=True)
class Known:
    """Images whose scores are known, at a threshold.

    Attributes:
        threshold: scores at or above it are rejected.
        good: scores of the good images that count.
        n_ng: how many defective images are known.
        rejected: positions among all OK scores, and the good images that are rejected.
        escaped: positions among the NG scores, and the defective images that are not.
    """

    threshold: float
    good: list[float]
    n_ng: int
    rejected: list[tuple[int, ScoredImage]]
    escaped: list[tuple[int, ScoredImage]]

    @classmethod
    def of(cls, calibration: Calibration, inputs: CalibrationInputs) -> "Known":
        """The images of a calibration, at its threshold."""
        threshold, left = calibration.threshold, set(inputs.options.not_good)
        return cls(
            threshold,
            [image.score for image in inputs.good],
            len(inputs.ng),
            [
                (position, image)
                for position, image in enumerate(inputs.ok)
                if position not in left and image.score >= threshold
            ],
            [(position, image) for position, image in enumerate(inputs.ng) if image.score < threshold],
        )

    def n_rejected_at(self, score: float) -> int:
        """How many good images are rejected by a threshold that rejects this score."""
        return sum(other >= score for other in self.good)


def about_threshold(before: Known, after: Known) -> str:
    """How the threshold and the decisions on known images change."""
    limit = _shown_threshold(after, before)
    moved = (
        f"The threshold stays at {limit}"
        if before.threshold == after.threshold
        else f"The threshold changes from {told_apart(before.threshold, after.threshold)} to {limit}"
    )
    escaped = "no defective image is known"
    if after.n_ng:
        named = f": {named_images(after.escaped, after.threshold)}" if after.escaped else ""
        was = f"{len(before.escaped)} of {before.n_ng}" if before.n_ng else "none was known"
        escaped = f"{len(after.escaped)} of {after.n_ng} defective images escape (before: {was}){named}"
    return (
        f"{moved}: {len(after.rejected)} of {len(after.good)} good images are rejected (before: "
        f"{len(before.rejected)} of {len(before.good)}), and {escaped}."
    )


def about_catching(score: float, known: Known) -> str:
    """Whether a threshold can reject a defective image without rejecting good ones."""
    n, n_good = known.n_rejected_at(score), len(known.good)
    if n:
        return f"No threshold can catch it without rejecting {n} of {n_good} good images."
    return f"A threshold of {_catching(score, known)} catches it and rejects none of {n_good} good images."


def _catching(score: float, known: Known) -> str:
    """A threshold with few digits that rejects a score, and no more good images than necessary."""
    n_rejected = known.n_rejected_at(score)
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
        below = Decimal(repr(float(score))).quantize(Decimal(10) ** -digits, ROUND_FLOOR)
        if known.n_rejected_at(float(below)) == n_rejected:
            return f"{below.normalize():f}"
    return repr(score)


def about_new_escapes(before: Known, after: Known) -> str | None:
    """A warning if a higher threshold accepts defective images that were rejected."""
    new = [(position, image) for position, image in after.escaped if image.score >= before.threshold]
    if not new:
        return None
    images = "1 defective image that was" if len(new) == 1 else f"{len(new)} defective images that were"
    return (
        f"the threshold rises from {told_apart(before.threshold, after.threshold)} to "
        f"{_shown_threshold(after, before)}, and {images} rejected would escape: {named_images(new, after.threshold)}"
    )


def about_unlike_others(score: float, others: Sequence[float]) -> str | None:
    """A warning if a good image scores far above all other good ones: it may be defective."""
    if len(others) not in outliers([*others, score]):
        return None
    return (
        f"the image scores {score:.4g}, far above most of the other {len(others)} good images (median "
        f"{median(others):.4g}): check it, because it may be defective"
    )


def about_kept_score(kept: float, score: float) -> str | None:
    """A warning if an image that already counted keeps its score, although it now scores differently."""
    if math.isclose(kept, score, rel_tol=_SAME):
        return None
    return (
        f"the image still counts with its earlier score {told_apart(kept, score)}, not with "
        f"{told_apart(score, kept)}, because its mask or the memory bank has changed; calibrate again to count the "
        "new score"
    )


def told_apart(value: float, *others: float) -> str:
    """A number with four digits, or with as many more as distinguish it from other numbers.

    >>> told_apart(0.985703, 0.985711), told_apart(0.985711, 0.985703), told_apart(0.5, 0.5)
    ('0.9857', '0.98571', '0.5')
    """
    others = tuple(other for other in others if other != value)
    digits = _FEWEST_DIGITS
    while digits < _MOST_DIGITS and f"{value:.{digits}g}" in [f"{other:.{digits}g}" for other in others]:
        digits += 1
    return f"{value:.{digits}g}"


def _shown_threshold(known: Known, before: Known) -> str:
    """A threshold, with enough digits to differ from the previous one and from the scores that escape it."""
    escaped = (image.score for _, image in known.escaped[:_MOST_NAMED])
    return told_apart(known.threshold, before.threshold, *escaped)


def named_images(images: Sequence[tuple[int, ScoredImage]], threshold: float) -> str:
    """The first of some images, by name or position, with scores whose digits distinguish them from a threshold."""
    named = [
        f"{named_with(image.name, image.uploaded_as) if image.name else position_name(position)} "
        f"({told_apart(image.score, threshold)})"
        for position, image in images[:_MOST_NAMED]
    ]
    more = len(images) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
