"""Copies among the images of a fit: the identity of images, and which of them are nearly the same.

Several frames of one part, or a part that was sent as PNG and as JPEG, are not independent good parts: the score of one
by the memory bank of the others is too low, because a copy is in that bank. Near copies are found on miniatures, by the
distance of one to the tangent space of the other (Simard, LeCun and Denker, 1993): a change of brightness or contrast,
or a shift by a pixel or two, moves an image within that space, and images of other parts are far from it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from backend.utils import pixels_sha256

Miniature = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Pair = tuple[int, int]

SIDE = 64
# Pixels of the miniature. It makes thin lines as wide as a shift must be for tangents to follow it.
_BLUR = 1.5
# Pixels at the edge that are left out: what a shift brings in there is in no tangent.
_MARGIN = 4
# Share of the contrast that no tangent explains. On five sets JPEGs of quality 80 have up to 0.0012, and the most alike
# images of two parts 0.0094: docs/accuracy.md.
_MOST_UNLIKE = 0.003
# Grey levels, as a standard deviation: what shows less has nothing by which it could be recognised.
_LEAST_CONTRAST = 0.5
_ROWS_AT_ONCE = 256
_MADE_AT_ONCE = 64
_N_TANGENTS = 3  # contrast, and shifts to the right and down
_MOST_NAMED = 5
BYTES_PER_LOOK = SIDE**2 + 4 * (1 + _N_TANGENTS) * (SIDE - 2 * _MARGIN) ** 2 + 5 * 4 * _ROWS_AT_ONCE
"""Bytes that a comparison of images takes for each image. It also takes one bit for each pair."""


class Look(NamedTuple):
    """What a fit remembers about the pixels of an image.

    Attributes:
        pixels_sha256: identity; see `utils.pixels_sha256`.
        miniature: uint8 [64, 64], grey.
    """

    pixels_sha256: str
    miniature: Miniature

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8]) -> "Look":
        """The look of an image.

        Args:
            image: uint8 [H, W, 3], BGR.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        miniature = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return cls(pixels_sha256(image), np.asarray(miniature, np.uint8))


class Copies(NamedTuple):
    """The near copies among the images of a fit. There may be n²/2 pairs of n images, so most pairs are only counted.

    Attributes:
        n_pairs: how many pairs there are.
        named: the first of them.
        identities: of each image, as `first_copies` gives it.
    """

    n_pairs: int
    named: list[Pair]
    identities: list[str]

    @classmethod
    def of(cls, identities: Sequence[str], pairs: Iterable[Pair]) -> "Copies":
        """Count pairs, which do not have to be in memory at once.

        Args:
            identities: of the images, in order.
            pairs: see `near_copies`.
        """
        named: list[Pair] = []
        n_pairs = 0

        def counted() -> Iterator[Pair]:
            nonlocal n_pairs
            for pair in pairs:
                n_pairs += 1
                if n_pairs <= _MOST_NAMED:
                    named.append(pair)
                yield pair

        first = first_copies(identities, counted())
        return cls(n_pairs, named, first)


def near_copies(
    looks: Sequence[Look], turn: Callable[[], AbstractContextManager[object]] = nullcontext, n_known: int = 0
) -> Iterator[Pair]:
    """Pairs of images that look nearly the same, but are not the same.

    One bit is kept for each pair of images, but no list of pairs.

    Args:
        looks: of the images, in order.
        turn: entered for every piece of the work and left in between, so that a lock lets others compute meanwhile.
        n_known: so many looks at the beginning are not compared with one another. No two of them have the same pixels.

    Yields:
        Positions, the lower one first, in order; the first of images with the same pixels represents all.
    """
    firsts: dict[str, int] = {}
    for number, look in enumerate(looks):
        firsts.setdefault(look.pixels_sha256, number)
    numbers = list(firsts.values())
    n = len(numbers)
    is_near = np.zeros((n, -(-n // 8)), np.uint8)
    for start, unlike in unlikeness([looks[number].miniature for number in numbers], turn, n_known):
        is_near[start : start + len(unlike)] = np.packbits(unlike < _MOST_UNLIKE, axis=1)
    for row in range(n):  # near by either of the two distances
        by_other = is_near[:, row // 8] >> (7 - row % 8) & 1
        either = np.unpackbits(is_near[row], count=n) | by_other
        for column in (row + 1 + np.flatnonzero(either[row + 1 :])).tolist():
            yield numbers[row], numbers[column]


def copies_of_known(known: Sequence[Look], others: Sequence[Look]) -> dict[int, int]:
    """Find images that look nearly the same as a known image.

    Args:
        known: no two of them have the same pixels.
        others: none of them has the pixels of a known one.

    Returns:
        Position in `known` of the first near copy, by position in `others`; images without one are left out.
    """
    found: dict[int, int] = {}
    for first, second in near_copies([*known, *others], n_known=len(known)):
        if first < len(known):
            found.setdefault(second - len(known), first)
    return found


def unlikeness(
    miniatures: Sequence[Miniature],
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    n_known: int = 0,
) -> Iterator[tuple[int, Vectors]]:
    """The distance of images from the tangent spaces of each other: the share of contrast that these do not explain.

    Args:
        miniatures: uint8 [64, 64], of n images.
        turn, n_known: as for `near_copies`.

    Yields:
        start: the first of some images.
        unlike: float32 [rows, n], 0..1, of these to each image; infinite if one of the two is uniform, or both are
            known.
    """
    if not miniatures:
        return
    vectors, tangents = _vectors(miniatures)
    contrast = np.einsum("ij,ij->i", vectors, vectors)
    shows_nothing = contrast <= _LEAST_CONTRAST**2 * vectors.shape[1]
    contrast[shows_nothing] = 1
    n = len(vectors)
    for start in (*range(0, n_known, _ROWS_AT_ONCE), *range(n_known, n, _ROWS_AT_ONCE)):
        stop = min(start + _ROWS_AT_ONCE, n_known if start < n_known else n)
        rows, first = slice(start, stop), n_known if start < n_known else 0
        unlike = np.full((stop - start, n), np.inf, np.float32)
        with turn():
            explained = sum(np.square(vectors[rows] @ tangent[first:].T) for tangent in tangents)
            unlike[:, first:] = 1 - explained / contrast[rows, None]
        unlike[shows_nothing[rows]] = np.inf
        unlike[:, shows_nothing] = np.inf
        yield start, unlike


def first_copies(identities: Sequence[str], pairs: Iterable[Pair]) -> list[str]:
    """For each image, the identity of the first image that it copies, directly or indirectly; else its own.

    >>> first_copies(["a", "b", "c", "d", "e", "d"], [(1, 4), (3, 4)])
    ['a', 'b', 'c', 'b', 'b', 'b']

    Args:
        identities: of the images, in order.
        pairs: of their positions, each of copies.
    """
    order = list(dict.fromkeys(identities))
    first = list(range(len(order)))

    def root(number: int) -> int:
        while first[number] != number:
            first[number] = first[first[number]]
            number = first[number]
        return number

    numbers = {identity: number for number, identity in enumerate(order)}
    for one, other in pairs:
        lower, higher = sorted((root(numbers[identities[one]]), root(numbers[identities[other]])))
        first[higher] = lower
    return [order[root(numbers[identity])] for identity in identities]


def copies_warning(names: Sequence[str], copies: Copies, *, grouped: bool) -> str | None:
    """The warning about near copies in a fit; None if there are none.

    Args:
        names: of the images, in order.
        copies: which of them are near copies.
        grouped: whether copies count as one image.
    """
    if not copies.n_pairs:
        return None
    named = [f"{names[first]} and {names[second]}" for first, second in copies.named]
    if copies.n_pairs > len(named):
        named.append(f"{copies.n_pairs - len(named)} more")
    found = "1 pair of images looks" if copies.n_pairs == 1 else f"{copies.n_pairs} pairs of images look"
    found = f"{found} nearly the same ({', '.join(named)})"
    if grouped:
        return f"{found}: copies of one image count once, as group_copies asks"
    return (
        f"{found}: if they show the same part, their ok_scores are too low, and a threshold from these rejects "
        "too many good parts; send one image of each part, or send group_copies=true (--group-copies)"
    )


def _vectors(miniatures: Sequence[Miniature]) -> tuple[Vectors, list[Vectors]]:
    """Miniatures as vectors without their shading, and an orthonormal basis of the tangent space of each.

    Shading is a polynomial of second degree in x and y: light falls on all parts alike, and would make them alike.

    Returns:
        vectors: float32 [n, P], in grey levels.
        tangents: three times float32 [n, P]: contrast, and shifts to the right and down.
    """
    side = SIDE - 2 * _MARGIN
    coordinates = np.linspace(-1, 1, side)
    x, y = np.meshgrid(coordinates, coordinates)
    shading, _ = np.linalg.qr(np.stack([x**0, x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6))
    shading = shading.astype(np.float32)
    vectors, *tangents = (np.empty((len(miniatures), side**2), np.float32) for _ in range(1 + _N_TANGENTS))
    for start in range(0, len(miniatures), _MADE_AT_ONCE):
        rows = slice(start, start + _MADE_AT_ONCE)
        vectors[rows], found = _some_vectors(miniatures[rows], shading)
        for tangent, own in zip(tangents, found, strict=True):
            tangent[rows] = own
    return vectors, tangents


def _some_vectors(miniatures: Sequence[Miniature], shading: Vectors) -> tuple[Vectors, list[Vectors]]:
    """As `_vectors`, of images that are worked on at once; `shading` is its orthonormal basis, float32 [P, 6]."""
    shown = np.stack(
        [cv2.GaussianBlur(miniature, (0, 0), _BLUR) for miniature in np.asarray(miniatures, np.float32)],
    )

    def unshaded(pictures: Vectors) -> Vectors:
        inner = pictures[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].reshape(len(pictures), -1)
        return np.asarray(inner - (inner @ shading) @ shading.T, np.float32)

    def slopes(axis: int) -> Vectors:
        return np.asarray(np.gradient(shown, axis=axis), np.float32)

    vectors = unshaded(shown)
    tangents: list[Vectors] = []
    for direction in (vectors, unshaded(slopes(2)), unshaded(slopes(1))):
        rest = direction
        for tangent in tangents:
            rest = rest - np.einsum("ij,ij->i", rest, tangent)[:, None] * tangent
        length = np.linalg.norm(rest, axis=1, keepdims=True)
        tangents.append(np.asarray(rest / np.maximum(length, np.finfo(np.float32).tiny), np.float32))
    return vectors, tangents
