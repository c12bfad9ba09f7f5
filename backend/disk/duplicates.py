"""Which stored images have the pixels of some that are to be stored."""

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
    """What became of an image that was to be stored.

    Attributes:
        name: its name; None if it was not stored.
        duplicate_of: name of an image with the same pixels that was stored before; None if there is none.
    """

    name: str | None
    duplicate_of: str | None


@dataclass(frozen=True)
class Compared:
    """Stored images of a class, compared with some that are to be stored.

    Attributes:
        listed: names of those that were there.
        by_pixels: name of one that has the pixels of one that is to be stored, by the hash of these.
        n_unknown: how many could not be compared in time.
    """

    listed: frozenset[str]
    by_pixels: Mapping[str, str]
    n_unknown: int

    def with_newer(self, folder: Path, names: Collection[str], facts: FactsCache) -> dict[str, str]:
        """`by_pixels` as it is now: without images that were deleted since, and with those that came.

        Args:
            folder: of the images.
            names: of those that are there now.
            facts: what is known of them.
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
    """Find the stored images that have the wanted pixels; where time is short, the newest are looked at first.

    Args:
        folder: of the images.
        names: of the images, the oldest first.
        facts: what is known of them; gets what is found out.
        wanted: hashes of pixels, see `bit_depth.whole_pixels_sha256`.
        hash_pixels: that of a stored image.
        until: when to stop finding out what is not known yet, on the clock of `time.monotonic`.
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
    """The pixels of a stored image; empty, like none that is sent, where it was deleted since or is damaged."""
    try:
        return hash_pixels(image)
    except StoreUnavailable:
        raise
    except BackendError:
        return ""
