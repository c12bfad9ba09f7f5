"""What a memory bank records about its images: names, sizes, honest scores, thumbnails."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from backend.bank.leave_one_out import HeldOut
from backend.common.errors import DamagedMemory
from backend.infer import image_scores
from backend.roi_mask import Shape
from backend.scores.outliers import outliers

# What is kept of every image: the contract's percentile, and those that see smaller or larger defects than it does.
SCORE_PERCENTILES = (95.0, 98.0, 99.0, 99.5, 99.9, 100.0)
THUMBNAIL_SIDE = 384
_THUMBNAIL_QUALITY = 85
_LONGEST_NAME = 200
_OF_NEWER_BANKS = ("pixels_sha256", "copy_of", "uploaded_as", "sampled", "tiles")


_Side = Annotated[int, Field(ge=1, le=1_000_000_000)]


@dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class BankImage:
    """An image that a memory bank was built from.

    Attributes:
        name: the file's, without folders.
        sha256: of the file.
        height, width: in pixels.
        n_unique: how many of its patches the bank of the other images does not cover as closely as their own; None if
            unknown.
        shape: mask within which it was scored, as JSON; None is the whole image.
        scores: scores of the image by the bank of the other images, 0..2, by percentile of the map; empty if there were
            no others, or if it was not in the sample.
        pixels_sha256: of the pixels, see `utils.pixels_sha256`; None in banks of versions that did not record it.
        copy_of: `pixels_sha256` of the nearly identical image of the fit that it counts as; None if it counts itself.
        uploaded_as: original name of a stored image, if known.
        sampled: whether the image was in the scored sample of a fit that was too large to score all; None for other
            fits.
        tiles: numbers of its tiles that the fit has seen; None is all.
    """

    name: str
    sha256: str
    height: _Side
    width: _Side
    n_unique: NonNegativeInt | None
    shape: str | None
    scores: dict[str, float]
    pixels_sha256: str | None = None
    copy_of: str | None = None
    uploaded_as: str | None = None
    sampled: bool | None = None
    tiles: tuple[int, ...] | None = None

    @property
    def identity(self) -> str:
        """The identity that it counts as: images with the same identity are copies of one image."""
        return self.copy_of or self.pixels_sha256 or self.sha256

    def score(self, percentile: float) -> float | None:
        """Its score by the bank of the other images; None if unknown for this percentile."""
        return self.scores.get(_key(percentile))

    def scores_within(self, shape: Shape | None, percentiles: Sequence[float]) -> tuple[float, ...] | None:
        """Its scores within a mask by the bank of the others, at every percentile; None if not all are known."""
        found = [score for percentile in percentiles if (score := self.score(percentile)) is not None]
        return tuple(found) if self.has_mask(shape) and len(found) == len(percentiles) else None

    def has_mask(self, shape: Shape | None) -> bool:
        """Whether it was scored within this mask."""
        return self.shape == _mask(shape)


@dataclass(frozen=True)
class ScoredImage:
    """An image of a fit, and its score.

    Attributes:
        index: its position in the fit.
        filename: its name.
        score: its score by the bank of the other images.
        uploaded_as: see `BankImage`.
    """

    index: int
    filename: str
    score: float
    uploaded_as: str | None = None


class SuspiciousImage(ScoredImage):
    """An image that may be defective, because it scores far above the others."""


_images = TypeAdapter(list[BankImage])


def remembered(
    name: str,
    sha256: str,
    pixels_sha256: str,
    image_hw: tuple[int, int],
    shape: Shape | None,
    number: int,
    held_out: HeldOut,
    token_hw: tuple[int, int],
    *,
    blur_sigma: float,
    percentiles: Sequence[float],
    copy_of: str | None,
    uploaded_as: str | None = None,
    tiles: Sequence[int] | None = None,
) -> BankImage:
    """The record of an image of a fit.

    Args:
        name, sha256: of its file.
        pixels_sha256: of its pixels.
        image_hw: its size (rows, columns).
        shape: mask within which it is scored, in its pixels; None is the whole image.
        number: its position in the fit.
        held_out: what the fit tells about its images, or about a sample of them.
        token_hw: token grid (rows, columns).
        blur_sigma: that of inferences.
        percentiles: each gives a score; without any, no image is scored.
        copy_of, uploaded_as, tiles: see `BankImage`.
    """
    scores, row = {}, held_out.row_of(number)
    if percentiles and held_out.distances is not None and row is not None:
        found = image_scores(held_out.distances[row].reshape(token_hw), image_hw, shape, blur_sigma, percentiles)
        scores = {_key(percent): round(score, 6) for percent, score in zip(percentiles, found, strict=True)}
    return BankImage(
        shown_name(PurePath(name).name),
        sha256,
        *image_hw,
        None if row is None else int(held_out.n_unique[row]),
        _mask(shape),
        scores,
        pixels_sha256,
        copy_of,
        shown_name(uploaded_as) if uploaded_as else None,
        row is not None if percentiles and held_out.positions is not None else None,
        None if tiles is None else tuple(tiles),
    )


def shown_name(name: str) -> str:
    """The name of a file as a text of limited length: names of files may be any bytes."""
    return name[-_LONGEST_NAME:].encode("utf-8", "replace").decode()


def as_metadata(images: Sequence[BankImage]) -> list[dict[str, Any]]:
    """JSON values for the metadata of a memory bank."""
    return [
        {name: value for name, value in asdict(image).items() if value is not None or name not in _OF_NEWER_BANKS}
        for image in images
    ]


def recorded_images(metadata: Mapping[str, Any]) -> list[BankImage]:
    """The images that a memory bank was built from; empty for banks of versions that did not record them.

    Raises:
        DamagedMemory: the stored record is not such a list.
    """
    try:
        return _images.validate_python(metadata.get("images", []))
    except ValidationError as exc:
        raise DamagedMemory("the list of images in the stored memory is damaged: refit this ROI") from exc


def recorded_sizes(metadata: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Rows and columns of the images that a memory bank was built from, each size once.

    Empty if they are unknown or damaged, because an inference does not need them.
    """
    images = metadata.get("images")
    known = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    sizes = ((image.get("height"), image.get("width")) for image in known)
    return list(dict.fromkeys((h, w) for h, w in sizes if type(h) is int and type(w) is int and min(h, w) >= 1))


def recorded_scores(metadata: Mapping[str, Any], percentile: float | None, blur_sigma: float | None) -> list[float]:
    """The scores of the images of a memory bank by the bank of the others, with copies counted once.

    Empty if they are unknown, damaged, or made with another blur.

    Args:
        metadata: of the memory bank.
        percentile: percentile of the score, in percent.
        blur_sigma: that of the scores that these are compared with.
    """
    if percentile is None or metadata.get("blur_sigma") != blur_sigma:
        return []
    images = metadata.get("images")
    found: dict[str, float] = {}
    for image in images if isinstance(images, list) else []:
        scores = image.get("scores") if isinstance(image, dict) else None
        score = scores.get(_key(percentile)) if isinstance(scores, dict) else None
        if isinstance(score, int | float):
            found[str(image.get("copy_of") or image.get("pixels_sha256") or image.get("sha256"))] = score
    return list(found.values())


def comparable_images(metadata: Mapping[str, Any], blur_sigma: float) -> list[BankImage]:
    """The images that a memory bank was built from, without their scores if those were made with another blur.

    Args:
        metadata: of the memory bank.
        blur_sigma: that of current inferences.

    Raises:
        DamagedMemory: see `recorded_images`.
    """
    images = recorded_images(metadata)
    return images if metadata.get("blur_sigma") == blur_sigma else [replace(image, scores={}) for image in images]


class OwnImages:
    """The images of a memory bank, to recognise them when they are scored.

    By the bank itself they score far too low, so their scores by the bank of the others are used instead.

    Args:
        metadata: of the memory bank.
        blur_sigma: that of current inferences; scores that were made with another one are not used.

    Attributes:
        images: all of them, in the order of the fit.

    Raises:
        DamagedMemory: see `recorded_images`.
    """

    def __init__(self, metadata: Mapping[str, Any], blur_sigma: float) -> None:
        self.images = comparable_images(metadata, blur_sigma)
        self._by_file = {image.sha256: image for image in self.images}
        self._by_pixels = {image.pixels_sha256: image for image in self.images if image.pixels_sha256 is not None}
        self._fitted_from_stored_images = metadata.get("source") == "dataset"

    def of_file(self, sha256: str) -> BankImage | None:
        """The image of the bank with this hash of its file; None: look it up by its pixels."""
        return self._by_file.get(sha256)

    def of_pixels(self, pixels_sha256: str) -> BankImage | None:
        """The image of the bank with this hash of its pixels; None if there is none, or if this is unknown."""
        return self._by_pixels.get(pixels_sha256)

    def are_fresh(self, *, recognised: bool) -> bool | None:
        """Whether the bank was built without all of some images.

        Args:
            recognised: whether one of them is an image of the bank.

        Returns:
            None if unknown: an earlier version fitted it and did not record its images. A bank that was fitted from
            stored images most likely contains them.
        """
        if self._by_file:
            return not recognised
        return False if self._fitted_from_stored_images else None


def scored_images(images: Sequence[BankImage], masks: Sequence[Shape | None], percentile: float) -> list[ScoredImage]:
    """The images whose score by the bank of the others is known.

    Args:
        images: of a bank.
        masks: mask of each image for the score.
        percentile: of the scores.
    """
    return [
        ScoredImage(number, image.name, score, image.uploaded_as)
        for number, (image, mask) in enumerate(zip(images, masks, strict=True))
        if image.has_mask(mask) and (score := image.score(percentile)) is not None
    ]


def suspicious_images(
    images: Sequence[BankImage], percentile: float, others: Sequence[BankImage] = ()
) -> list[SuspiciousImage]:
    """Images that score far above the others by the bank of the others: perhaps they are defective.

    Args:
        images: images to check.
        percentile: of the scores.
        others: further images of the same bank, for the comparison. Copies count once.
    """
    scored: dict[str, float] = {}  # of a group the image that is least like the others
    for image in (*others, *images):
        if (score := image.score(percentile)) is not None:
            scored[image.identity] = max(score, scored.get(image.identity, score))
    identities = list(scored)
    unlike = {identities[index] for index in outliers(list(scored.values()))}
    return [
        SuspiciousImage(number, image.name, score, image.uploaded_as)
        for number, image in enumerate(images)
        if image.identity in unlike and (score := image.score(percentile)) is not None
    ]


def _key(percentile: float) -> str:
    """The number in JSON, but 99 for 99.0."""
    return repr(float(percentile)).removesuffix(".0")


def _mask(shape: Shape | None) -> str | None:
    return None if shape is None else shape.model_dump_json()


def thumbnail(image: npt.NDArray[np.uint8], side: int = THUMBNAIL_SIDE) -> bytes:
    """A small JPEG of an image.

    Args:
        image: uint8 [H, W, 3], BGR.
        side: pixels of its longer side, at most.
    """
    scale = min(1.0, side / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])
    return encoded.tobytes()
