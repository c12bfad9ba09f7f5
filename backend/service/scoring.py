"""How an image is scored: what a request says beside the image."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.roi_mask import Shape


@dataclass(frozen=True)
class Scoring:
    """What decides the score of an image beside its pixels and the model.

    Attributes:
        mm_per_px: millimetres per pixel of the image.
        shape: mask in pixels of the image; None is the whole image.
        percentile: percentile that is the score, whatever the calibration, which then is not applied: its threshold was
            chosen from other scores. None takes the calibration's, or the configured one.
        percentiles: of the same map, for more scores; see `Finding`.
        region_mm2: least area of a region, in mm², for a region score; None makes none.
        with_why: say why it is OK or NG; where regions decide, that is said anyway.
    """

    mm_per_px: float
    shape: Shape | None = None
    percentile: float | None = None
    percentiles: Sequence[float] = ()
    region_mm2: float | None = None
    with_why: bool = False
