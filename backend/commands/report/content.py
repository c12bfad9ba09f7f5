"""What a page shows of scored images, whichever command found it: scores, thresholds, pictures and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["train", "good", "defective", "part"]
Verdict = Literal["false reject", "escape"]


@dataclass(frozen=True)
class Decided:
    """What a page calls a decision: by itself, said of one image, and of several."""

    name: str
    of_one: str
    of_several: str


@dataclass(frozen=True)
class Words:
    """What a page calls images and decisions, as its command does.

    Attributes:
        kinds: one image of each kind that there may be; with an s they are several.
        ng, ok: that the score reaches the threshold, and that it does not.
    """

    kinds: Mapping[Kind, str]
    ng: Decided
    ok: Decided


@dataclass(frozen=True)
class ScoredImage:
    """An image and its score.

    Attributes:
        name: as the page shows it.
        kind: ``"train"`` for an image of the fit, by a memory bank of the others; ``"good"`` and ``"defective"`` for
            what is known to be, and ``"part"`` for what nobody has judged.
        label: what it is filtered by, such as the type of its defect.
        score: image score.
        notes: further facts, a few words each.
    """

    name: str
    kind: Kind
    label: str
    score: float
    notes: tuple[str, ...] = ()

    def verdict(self, threshold: float | None) -> Verdict | None:
        """What is wrong with the decision at a threshold; None if nothing is, or nobody can tell."""
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
    """A threshold that has a name.

    Attributes:
        name: such as ``"recommended rule"``.
        threshold: scores at or above it are rejected.
        why: what it rests on, in words.
    """

    name: str
    threshold: float
    why: str = ""


@dataclass(frozen=True)
class Scale:
    """What the colours of all heatmaps of a section mean.

    Attributes:
        low, high: distances at its ends.
        gradient: the colours from left to right, in CSS.
        start: distance from which on there is colour; None colours all.
    """

    low: float
    high: float
    gradient: str
    start: float | None = None

    def position(self, distance: float) -> float:
        """Where a distance lies on the scale, 0..1."""
        return min(max((distance - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True)
class Section:
    """One kind of part.

    Attributes:
        name: its heading.
        words: what its images and decisions are called.
        images: every scored image.
        threshold: where the line stands at first, and at which regions are drawn; None if there is none.
        marks: thresholds to choose from; the first is that at which the line stands.
        remarks: what a reader has to know first, a sentence each.
        facts: what the scores rest on, a sentence each.
        suspicious: images of the fit that stand out, the highest score first.
        cards: other images with pictures, in the order of `telling`.
        scale: of the heatmaps.
        has_truth: whether pictures show what is known to be defective.
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
        """Images that could have a card: all but those of the fit."""
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
    """Which images to show: those judged wrongly, then those nearest to the threshold; without one at even steps.

    Args:
        images: to choose from.
        threshold: of the decisions.
        most: how many at most.

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
    """How many of `total` each gets: all it has, or as many as the others that get less than they have.

    >>> fair_shares([80, 23, 220], 600), fair_shares([80, 23, 220], 163)
    ([80, 23, 220], [70, 23, 70])
    """
    shares = [0] * len(sizes)
    for n_served, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[index] = min(sizes[index], (total - sum(shares)) // (len(sizes) - n_served))
    return shares
