"""The contents of pages about scored images, for all commands: scores, thresholds, pictures and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["train", "good", "defective", "part"]
Verdict = Literal["false reject", "escape"]


@dataclass(frozen=True)
class Decided:
    """The words of a page for a decision: alone, for one image, and for several."""

    name: str
    of_one: str
    of_several: str


@dataclass(frozen=True)
class Words:
    """The words of a page for images and decisions, the same as in its command.

    Attributes:
        kinds: the word for one image of each possible kind; with an s for several.
        ng, ok: the decisions at or above and below the threshold.
    """

    kinds: Mapping[Kind, str]
    ng: Decided
    ok: Decided


@dataclass(frozen=True)
class ScoredImage:
    """An image and its score.

    Attributes:
        name: as the page shows it.
        kind: ``"train"`` for an image of the fit, by a memory bank of the others; ``"good"`` and ``"defective"`` if
            this is known, and ``"part"`` if it is unknown.
        label: filter value, such as the type of its defect.
        score: image score.
        notes: further facts, a few words each.
    """

    name: str
    kind: Kind
    label: str
    score: float
    notes: tuple[str, ...] = ()

    def verdict(self, threshold: float | None) -> Verdict | None:
        """The error of the decision at a threshold; None if it is right, or if this is unknown."""
        if threshold is None:
            return None
        if self.kind == "good":
            return "false reject" if self.score >= threshold else None
        return "escape" if self.kind == "defective" and self.score < threshold else None


@dataclass(frozen=True)
class Pictures:
    """Pictures of one image as data URIs: itself, its distances in colours, and its regions.

    Attributes:
        width, height: of each, in pixels.
    """

    image: str
    heatmap: str
    regions: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """An image with its pictures."""

    image: ScoredImage
    pictures: Pictures


@dataclass(frozen=True)
class Mark:
    """A threshold with a name.

    Attributes:
        name: such as ``"recommended rule"``.
        threshold: scores at or above it are rejected.
        why: its basis, in words.
    """

    name: str
    threshold: float
    why: str = ""


@dataclass(frozen=True)
class Scale:
    """The colour scale of all heatmaps of a section.

    Attributes:
        low, high: distances at its ends.
        gradient: the colours from left to right, in CSS.
        start: distance from which colour begins; None colours all.
    """

    low: float
    high: float
    gradient: str
    start: float | None = None

    def position(self, distance: float) -> float:
        """The position of a distance on the scale, 0..1."""
        return min(max((distance - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True)
class Section:
    """One kind of part.

    Attributes:
        name: its heading.
        words: for its images and decisions.
        images: every scored image.
        threshold: the first place of the line, and the threshold of the drawn regions; None if there is none.
        marks: thresholds to choose from; the first is that of the line.
        remarks: remarks for the reader, a sentence each.
        facts: the basis of the scores, a sentence each.
        suspicious: images of the fit that stand out, the highest score first.
        cards: other images with pictures, in the order of `telling`.
        scale: of the heatmaps.
        has_truth: whether pictures show the ground truth.
    """

    name: str
    words: Words
    images: Sequence[ScoredImage]
    threshold: float | None
    marks: Sequence[Mark]
    remarks: Sequence[str]
    facts: Sequence[str]
    suspicious: Sequence[Card]
    cards: Sequence[Card]
    scale: Scale
    has_truth: bool = False

    @property
    def n_shown_of(self) -> int:
        """Images that could have a card: all except those of the fit."""
        return sum(image.kind != "train" for image in self.images)

    @property
    def kinds(self) -> set[Kind]:
        """Of its images."""
        return {image.kind for image in self.images}

    @property
    def labels(self) -> list[str]:
        """Labels of the images with cards, each once, in the order of the images."""
        return list(dict.fromkeys(image.label for image in self.images if image.kind != "train"))


def telling(images: Sequence[ScoredImage], threshold: float | None, most: int) -> list[int]:
    """The images to show: wrong decisions, then those nearest to the threshold; without a threshold, at even steps.

    Args:
        images: to choose from.
        threshold: of the decisions.
        most: maximum number.

    Returns:
        Their positions, the most telling first.
    """
    if threshold is None:
        if len(images) <= most:
            return list(range(len(images)))
        return [number * len(images) // most for number in range(most)]

    def rank(position: int) -> tuple[bool, float]:
        return images[position].verdict(threshold) is None, abs(images[position].score - threshold)

    return sorted(range(len(images)), key=rank)[:most]


def fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """The share of each in `total`: all that it has, or the same number as the others that get less than they have.

    >>> fair_shares([80, 23, 220], 600), fair_shares([80, 23, 220], 163)
    ([80, 23, 220], [70, 23, 70])
    """
    shares = [0] * len(sizes)
    for n_served, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[index] = min(sizes[index], (total - sum(shares)) // (len(sizes) - n_served))
    return shares
