"""In how many tiles a fit looks at a ROI: what was asked for, or what its size and the smallest defect ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.common.profiles import DetailName
from backend.disk.fitted import FittedRoi
from backend.features import DinoV2Features
from backend.roi_mask import Shape, build_mask
from backend.tiles import MOST_DETAIL

# Tokens along its longer side that a round spot has to cover to stand out; a fine scratch needs about twice as many.
TOKENS_OF_A_DEFECT = 0.6
# Without a smallest defect: pixels of the ROI, along a side, that may become one of the network's.
_MOST_SHRUNK = 2


@dataclass(frozen=True)
class Detail:
    """In how many tiles a fit looks at its images.

    Attributes:
        number: tiles along each side.
        reason: why as many, where that was asked; else None.
        warning: what is doubtful about it.
    """

    number: int
    reason: str | None = None
    warning: str | None = None


def settle_detail(
    asked: DetailName,
    features: DinoV2Features,
    sizes: Sequence[tuple[int, int]],
    mm_per_px: float,
    smallest_defect_mm: float | None,
) -> Detail:
    """In how many tiles to look at the images of a fit.

    Args:
        asked: a number, or ``"auto"``.
        features: the extractor.
        sizes: of the images (rows, columns), in pixels; the largest one decides.
        mm_per_px: millimetres per pixel.
        smallest_defect_mm: length of the smallest defect that matters, in mm; None where nobody says.
    """
    height, width = max(sizes, key=max)
    side = max(height, width)
    pitches = {number: side / features.at(number).token_hw[0] for number in range(1, MOST_DETAIL + 1)}
    if asked != "auto":
        return Detail(
            asked,
            _covered(asked, pitches[asked], mm_per_px, smallest_defect_mm) if smallest_defect_mm else None,
            _about_size(asked, features, height, width),
        )
    # Beyond the first that shows every pixel, the ROI is only enlarged.
    most = next((number for number in pitches if features.at(number).canvas_side >= side), MOST_DETAIL)
    if smallest_defect_mm is None:
        number = next(
            number for number in pitches if features.at(number).canvas_side * _MOST_SHRUNK >= side or number == most
        )
        shrunk = side / features.at(number).canvas_side
        return Detail(number, f"detail={number}: the {side} pixels of the ROI's longer side are {_times(shrunk)}")
    needed = smallest_defect_mm / mm_per_px / TOKENS_OF_A_DEFECT
    number = next((number for number in pitches if pitches[number] <= needed), most)
    number = min(number, most)
    return Detail(number, _covered(number, pitches[number], mm_per_px, smallest_defect_mm))


def _times(shrunk: float) -> str:
    return f"shrunk {shrunk:.1f} times" if shrunk > 1 else "not shrunk"


def _covered(number: int, pitch: float, mm_per_px: float, smallest_defect_mm: float) -> str:
    pixels = smallest_defect_mm / mm_per_px
    said = (
        f"detail={number}: a defect of {smallest_defect_mm:g} mm is {pixels:.3g} pixels long, and a token {pitch:.3g}: "
        f"it covers {pixels / pitch:.2g} tokens"
    )
    if pixels >= TOKENS_OF_A_DEFECT * pitch:
        return said
    return f"{said}, and may be overlooked, because a spot stands out from {TOKENS_OF_A_DEFECT:g} tokens on"


def _about_size(number: int, features: DinoV2Features, height: int, width: int) -> str | None:
    """The ROI has fewer pixels than the tiles show."""
    canvas = features.at(number).canvas_side
    if number == 1 or max(height, width) >= canvas:
        return None
    enough = next(less for less in range(1, number + 1) if features.at(less).canvas_side >= max(height, width))
    if enough == number:
        return None
    return (
        f"detail={number} enlarges the ROI from {width} × {height} to {canvas} × {canvas} pixels and takes "
        f"{number**2} passes an image: detail={enough} shows every pixel, too, and takes {enough**2}"
    )


def seen_tiles(
    features: DinoV2Features,
    sizes: Sequence[tuple[int, int]],
    masks: Sequence[Shape | None],
    blur_sigma: float,
) -> list[int] | None:
    """The tiles that at least one of some masks shows.

    Args:
        features: the extractor.
        sizes: of the images (rows, columns).
        masks: of each, in its pixels.
        blur_sigma: of the distance map, in pixels.

    Returns:
        Their numbers, rising; None where they are all.
    """
    n_tiles, seen = len(features.tiling.tiles), set[int]()
    for size, mask in dict.fromkeys(zip(sizes, masks, strict=True)):
        if len(seen) < n_tiles:
            seen |= set(features.tiling.within(build_mask(mask, size), blur_sigma))
    return sorted(seen) if len(seen) < n_tiles else None


def fitted_tiles(features: DinoV2Features, tiles: Sequence[int] | None, before: FittedRoi | None) -> dict[str, Any]:
    """What a fit records of the tiles that it has seen; nothing where those are all.

    Args:
        features: the extractor.
        tiles: what `seen_tiles` gave.
        before: the model that it appends to.
    """
    if tiles is None or (before is not None and "tiles" not in before.metadata):
        return {}
    seen = set(tiles) | set((_recorded_tiles(before) if before else None) or ())
    return {"tiles": sorted(seen)} if len(seen) < len(features.tiling.tiles) else {}


def unseen_tiles(
    features: DinoV2Features, fitted: FittedRoi, image_hw: tuple[int, int], shape: Shape | None, blur_sigma: float
) -> list[int]:
    """The tiles that a mask shows and that those of the fit hid: the memory bank knows no good part there.

    Args:
        features: the extractor.
        fitted: the model.
        image_hw: rows and columns of the image.
        shape: mask in its pixels; None is the whole image.
        blur_sigma: of the distance map, in pixels.

    Returns:
        Their numbers, rising.
    """
    return hidden_tiles(features, _recorded_tiles(fitted), image_hw, shape, blur_sigma)


def hidden_tiles(
    features: DinoV2Features,
    seen: Sequence[int] | None,
    image_hw: tuple[int, int],
    shape: Shape | None,
    blur_sigma: float,
) -> list[int]:
    """The tiles that a mask shows, and that are not among those seen.

    Args:
        features: the extractor.
        seen: numbers of tiles; None is all.
        image_hw, shape, blur_sigma: as for `unseen_tiles`.

    Returns:
        Their numbers, rising.
    """
    if seen is None:
        return []
    shown = features.tiling.within(build_mask(shape, image_hw), blur_sigma)
    return sorted(set(shown) - set(seen))


def about_unseen_tiles(unseen: Sequence[int], features: DinoV2Features) -> str | None:
    """That an image is compared where the masks of the fit hid all; None where it is not."""
    if not unseen:
        return None
    return (
        f"the mask shows {len(unseen)} of {len(features.tiling.tiles)} tiles that the masks of the fit hid: the memory "
        "bank knows no good part there, so every part looks defective; fit anew with this mask"
    )


def _recorded_tiles(fitted: FittedRoi) -> list[int] | None:
    if "tiles" not in fitted.metadata:
        return None
    recorded = fitted.metadata["tiles"]
    return [number for number in recorded if type(number) is int] if isinstance(recorded, list) else []
