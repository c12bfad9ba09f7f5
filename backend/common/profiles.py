"""Profiles: which tokens are compared, how their distances become a map, and which score judges an image.

``contract`` follows the playbook: tokens of the last block, the distance to the nearest embedding, and a percentile
from a setting or a calibration. ``recommended`` ranked defective parts best on real data sets (``docs/accuracy.md``): a
memory bank for each of the last four blocks, distances minus excess radii (`backend.block_memory`), and p99.5 of their
mean.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

ProfileName = Literal["contract", "recommended"]
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)
DetailName = int | Literal["auto"]
"""Tiles along each side of a ROI, or that its size and the smallest defect choose them; see `backend.tiles`."""
CONTRACT: ProfileName = "contract"
RECOMMENDED: ProfileName = "recommended"
RECOMMENDED_BLOCKS = (9, 10, 11, 12)
RECOMMENDED_PERCENTILE = 99.5
# With several tiles a small defect is one or two tokens of many thousands: the largest distance judges.
DETAILED_PERCENTILE = 100.0


# What each of the four banks keeps of what one keeps: half does as well, and the search takes twice as long, not four
# times.
_SHARE_OF_EACH_BANK = 0.5


def coreset_rate_of(profile: ProfileName, configured: float, detail: int = 1) -> float:
    """Share of the patch embeddings of a block that a memory bank keeps.

    Args:
        profile: of the memory bank.
        configured: ``CORESET_RATE``.
        detail: of the memory bank. The bank grows with it, not with its square: more finds no more defects, and the
            search of an inference would grow with its fourth power.
    """
    rate = configured * _SHARE_OF_EACH_BANK if profile == RECOMMENDED else configured
    return rate / detail


def capped_rate(rate: float, n_embeddings: int, most: int | None, n_with_copies: int | None = None) -> float:
    """The share of embeddings that a memory bank keeps if it may have at most so many.

    >>> capped_rate(0.02, 1_000_000, 10_000), capped_rate(0.02, 1_000_000, None)
    (0.01, 0.02)

    Args:
        rate: share without the limit; 1 keeps the embeddings of copies, too.
        n_embeddings: of the different images of the fit, at least one.
        most: ``CORESET_MAX``; None is no limit.
        n_with_copies: embeddings of all its images; None is as many.
    """
    if most is None:
        return rate
    if rate == 1 and n_embeddings <= most < (n_with_copies or n_embeddings):
        return math.nextafter(1, 0)  # every different embedding, selected
    return min(rate, most / n_embeddings)


def profile_of(metadata: Mapping[str, Any]) -> ProfileName:
    """The profile of a memory bank, from its metadata."""
    return RECOMMENDED if metadata.get("profile") == RECOMMENDED else CONTRACT


def score_percentile_of(profile: ProfileName, configured: float, detail: int = 1) -> float:
    """The percentile of the score, if no calibration names one.

    Args:
        profile: of the memory bank.
        configured: ``SCORE_PERCENTILE``.
        detail: of the memory bank.
    """
    if profile != RECOMMENDED:
        return configured
    return RECOMMENDED_PERCENTILE if detail == 1 else DETAILED_PERCENTILE
