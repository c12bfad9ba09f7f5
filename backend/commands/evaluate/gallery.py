"""Small pictures of judged images: the image, its distances on one colour scale, ground truth and regions."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.bit_depth import BitDepth, decode
from backend.commands.evaluate.masks import read_masks
from backend.commands.evaluate.results import Case
from backend.commands.image_files import read_image
from backend.common.arrays import Bgr
from backend.infer import find_regions, to_image_grid
from backend.utils import ImageLimits

_LONGEST_SIDE = 256
_JPEG_QUALITY = 80
_COLOURS = cv2.COLORMAP_TURBO
_MOST_OPAQUE = 0.7
_TRUTH = (96, 160, 24)  # BGR, as the page's --truth
_REGION = (24, 96, 240)  # BGR, as the page's --region


@dataclass(frozen=True)
class ColourScale:
    """What the colours of all heatmaps of a category mean: distances from `low` to `high`."""

    low: float
    high: float

    @classmethod
    def of(cls, cases: Sequence[Case], threshold: float | None) -> "ColourScale":
        """The scale that shows nearly all distances of the cases, and the threshold."""
        distances = np.stack([case.distances for case in cases])
        low, high = (float(value) for value in np.percentile(distances, (1, 99.9)))
        if threshold is not None:
            low, high = min(low, threshold), max(high, threshold * 1.02)
        return cls(low, max(high, low + 1e-6))

    def position(self, distance: float) -> float:
        """Where a distance lies on the scale, 0..1."""
        return min(max((distance - self.low) / (self.high - self.low), 0.0), 1.0)

    def gradient(self) -> str:
        """The scale as a CSS gradient, from left to right."""
        colours = _over(np.full((1, 18, 3), 255, np.uint8), np.linspace(0, 1, 18, dtype=np.float32)[None])[0, :, ::-1]
        return f"linear-gradient(to right,{','.join('#' + bytes(colour).hex() for colour in colours)})"


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of one case as data URIs, and their size in pixels."""

    image: str
    heatmap: str
    regions: str
    width: int
    height: int


def thumbnails(
    case: Case,
    scale: ColourScale,
    threshold: float | None,
    blur_sigma: float,
    limits: ImageLimits,
    depth: BitDepth | None = None,
) -> Thumbnails:
    """Draw a case, no side longer than 256 pixels.

    Raises:
        InvalidImage, TooLarge, InvalidRequest: its files have changed and cannot be read any more.
    """
    image, _ = decode(read_image(case.image.path, limits.max_bytes), case.image.path, limits, depth)
    shrunk = min(1.0, _LONGEST_SIDE / max(case.image_hw))
    height, width = (max(1, round(side * shrunk)) for side in case.image_hw)
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    share = (to_image_grid(case.distances, (height, width), 0) - scale.low) / (scale.high - scale.low)
    grey = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    heatmap = _over(np.asarray(grey, np.uint8), np.clip(share, 0, 1))
    regions = _draw_regions(small, case, threshold, blur_sigma, limits)
    return Thumbnails(_jpeg(small), _jpeg(heatmap), _jpeg(regions), width, height)


def _over(picture: Bgr, share: npt.NDArray[np.float32]) -> Bgr:
    """Colour a picture by the place on the scale, float32 [H, W], 0..1; what is near the bank stays nearly as it is."""
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), _COLOURS)
    opacity = (_MOST_OPAQUE * np.minimum(1, 0.1 + 1.5 * share))[..., None]
    return np.asarray(picture * (1 - opacity) + colours * opacity, np.uint8)


def _draw_regions(small: Bgr, case: Case, threshold: float | None, blur_sigma: float, limits: ImageLimits) -> Bgr:
    """Ground truth as a tint, regions as outlines, on a pale picture."""
    pale = cv2.addWeighted(small, 0.75, np.full_like(small, 255), 0.25, 0)
    height, width = small.shape[:2]
    if case.image.masks:
        mask = read_masks(case.image.masks, limits).astype(np.float32)
        inside = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > 0
        pale[inside] = pale[inside] * 0.4 + np.array(_TRUTH) * 0.6
    if threshold is not None:
        distance_map = to_image_grid(case.distances, case.image_hw, blur_sigma)
        stretch = np.array((width, height)) / case.image_hw[::-1]
        outlines = [
            np.rint((np.array(region.contour) + 0.5) * stretch - 0.5).astype(np.int32)
            for region in find_regions(distance_map, None, threshold, 0, 1)
        ]
        cv2.polylines(pale, outlines, isClosed=True, color=_REGION, thickness=2, lineType=cv2.LINE_AA)
    return np.asarray(pale, np.uint8)


def _jpeg(picture: npt.NDArray[np.generic]) -> str:
    _, content = cv2.imencode(".jpg", np.asarray(picture), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode('ascii')}"
