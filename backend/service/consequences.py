"""What becomes of known images when a threshold and the scores behind it change, in numbers and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from backend.calib import Calibration
from backend.disk.calibration_inputs import CalibrationInputs, ScoredImage
from backend.scores.outliers import outliers
from backend.scores.recommended_threshold import position_name
from backend.utils import named_with

_MOST_NAMED = 5


@dataclass(frozen=True)
class Known:
    """Images whose scores are known, by a threshold.

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
        """By a calibration, and what it was made from."""
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
        """How many good images a threshold rejects that rejects this score, too."""
        return sum(other >= score for other in self.good)


def about_threshold(before: Known, after: Known) -> str:
    """What becomes of the threshold and of known images."""
    moved = (
        f"The threshold stays at {after.threshold:.4g}"
        if before.threshold == after.threshold
        else f"The threshold goes from {before.threshold:.4g} to {after.threshold:.4g}"
    )
    escaped = "no defective image is known"
    if after.n_ng:
        named = f": {named_images(after.escaped)}" if after.escaped else ""
        was = f"{len(before.escaped)} of {before.n_ng}" if before.n_ng else "none was known"
        escaped = f"of defective images {len(after.escaped)} of {after.n_ng} escape (before: {was}){named}"
    return (
        f"{moved}: of good images {len(after.rejected)} of {len(after.good)} are rejected "
        f"(before: {len(before.rejected)} of {len(before.good)}), {escaped}."
    )


def about_catching(score: float, known: Known) -> str:
    """Whether any threshold rejects a defective image without good ones."""
    n, n_good = known.n_rejected_at(score), len(known.good)
    if n:
        return f"No threshold can catch it without rejecting {n} of {n_good} good images."
    return f"A threshold of {score:.4g} catches it and rejects none of {n_good} good images."


def about_new_escapes(before: Known, after: Known) -> str | None:
    """That a higher threshold lets defective images pass that were rejected."""
    new = [(position, image) for position, image in after.escaped if image.score >= before.threshold]
    if not new:
        return None
    images = "1 defective image that was" if len(new) == 1 else f"{len(new)} defective images that were"
    return (
        f"the threshold rises from {before.threshold:.4g} to {after.threshold:.4g}, and {images} rejected would "
        f"escape: {named_images(new)}"
    )


def about_unlike_others(score: float, others: Sequence[float]) -> str | None:
    """That a good image scores far above all other good ones: it may be defective."""
    if len(others) not in outliers([*others, score]):
        return None
    return (
        f"the image scores {score:.4g}, far above most of the other {len(others)} good images (median "
        f"{median(others):.4g}): look at it once more, it may be defective"
    )


def named_images(images: Sequence[tuple[int, ScoredImage]]) -> str:
    """The first of some images by name, else by their position, with their scores."""
    named = [
        f"{named_with(image.name, image.uploaded_as) if image.name else position_name(position)} ({image.score:.4g})"
        for position, image in images[:_MOST_NAMED]
    ]
    more = len(images) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
