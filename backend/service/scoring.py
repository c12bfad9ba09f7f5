"""How an image is scored: the fields of a request besides the image."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.roi_mask import Shape


@dataclass(frozen=True)
class Scoring:
    """Everything that determines the score of an image, besides its pixels and the model.

    Attributes:
        mm_per_px: millimetres per pixel of the image.
        shape: mask in pixels of the image; None is the whole image.
        percentile: percentile of the score; then the calibration is not applied, because its threshold was chosen from
            other scores. None takes the percentile of the calibration, or the configured one.
        percentiles: of the same map, for more scores; see `Finding`.
        region_mm2: smallest area of a region, in mm², for a region score; None: no region score.
        with_why: say why it is OK or NG; always done if regions decide.
    """

    mm_per_px: float
    shape: Shape | None = None
    percentile: float | None = None
    percentiles: Sequence[float] = ()
    region_mm2: float | None = None
    with_why: bool = False
