"""Which stored images have the same pixels as new images."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from backend.common.errors import BackendError, StoreUnavailable
from backend.disk.sample_facts import FactsCache, path_of

HashPixels = Callable[[Path], str]
"""Gives the hash of the pixels of an image file; raises `BackendError` where it has none."""


class Stored(NamedTuple):
    """The result for a new image.

    Attributes:
        name: its name; None if it was not stored.
        duplicate_of: name of an image with the same pixels that was stored before; None if there is none.
    """

    name: str | None
    duplicate_of: str | None


@dataclass(frozen=True)
class Compared:
    """Stored images of a class, compared with new images.

    Attributes:
        listed: names of the stored images.
        by_pixels: name of a stored image with the pixels of a new image, by the hash of the pixels.
        n_unknown: how many could not be compared in time.
    """

    listed: frozenset[str]
    by_pixels: Mapping[str, str]
    n_unknown: int

    def with_newer(self, folder: Path, names: Collection[str], facts: FactsCache) -> dict[str, str]:
        """The current `by_pixels`: without images that were deleted since, and with those that were added.

        Args:
            folder: of the images.
            names: of the images that are stored now.
            facts: known facts about them.
        """
        by_pixels = {pixels: name for pixels, name in self.by_pixels.items() if name in names}
        for name in sorted(set(names) - self.listed):
            if (pixels := facts.of(path_of(folder, name)).pixels_sha256) is not None:
                by_pixels.setdefault(pixels, name)
        return by_pixels


def compare(
    folder: Path,
    names: Sequence[str],
    facts: FactsCache,
    wanted: Collection[str],
    hash_pixels: HashPixels,
    until: float,
) -> Compared:
    """Find the stored images with the given pixels; because time is limited, the newest are compared first.

    Args:
        folder: of the images.
        names: of the images, the oldest first.
        facts: known facts about them; new facts are added.
        wanted: hashes of pixels, see `bit_depth.whole_pixels_sha256`.
        hash_pixels: that of a stored image.
        until: when to stop reading images whose pixels are unknown, on the clock of `time.monotonic`.
    """
    found: dict[str, list[str]] = {}
    n_unknown = 0
    for name in reversed(names):
        pixels = facts.known_pixels(path_of(folder, name))
        if pixels is None and monotonic() < until:
            pixels = _find_out(folder / name, facts, hash_pixels)
        n_unknown += pixels is None
        if pixels is not None and pixels in wanted:
            found.setdefault(pixels, []).append(name)
    by_pixels = {}
    for pixels, same in found.items():  # looked at again: somebody may have put another image in its place
        first = next((name for name in reversed(same) if _hashed(folder / name, hash_pixels) == pixels), None)
        if first is not None:
            by_pixels[pixels] = first
    return Compared(frozenset(names), by_pixels, n_unknown)


def _find_out(image: Path, facts: FactsCache, hash_pixels: HashPixels) -> str:
    pixels = facts.of(str(image)).pixels_sha256
    if pixels is None:
        pixels = _hashed(image, hash_pixels)
        facts.learn_pixels(str(image), pixels)
    return pixels


def _hashed(image: Path, hash_pixels: HashPixels) -> str:
    """The hash of the pixels of a stored image; empty, as for no new image, if it was deleted or is damaged."""
    try:
        return hash_pixels(image)
    except StoreUnavailable:
        raise
    except BackendError:
        return ""
