"""Small pictures of judged images: the image, its distances on one colour scale, ground truth and regions.

Where there is a threshold, the scale is that of overlays: what is below it has no colour.
"""

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
from backend.common.arrays import Bgr, DistanceMap
from backend.infer import find_regions, to_image_grid, to_threshold_heatmap
from backend.service.overlay import tint
from backend.utils import ImageLimits

_LONGEST_SIDE = 256
_JPEG_QUALITY = 80
_COLOURS = cv2.COLORMAP_TURBO
_MOST_OPAQUE = 0.7
_STOPS = 65  # of the scale as it is shown; one of them is the threshold
_TRUTH = (96, 160, 24)  # BGR, as the page's --truth
_REGION = (24, 96, 240)  # BGR, as the page's --region


@dataclass(frozen=True)
class ColourScale:
    """What the colours of all heatmaps of a category mean: distances from `low` to `high`.

    Attributes:
        low, high: distances at the ends of the scale.
        threshold: from which on there is colour; None colours all distances.
    """

    low: float
    high: float
    threshold: float | None = None

    @classmethod
    def of(cls, cases: Sequence[Case], threshold: float | None) -> "ColourScale":
        """The scale of a threshold; without one above 0, that which shows nearly all distances of the cases."""
        if threshold is not None and threshold > 0:
            return cls(0, 2 * threshold, threshold)
        low, high = np.percentile(np.stack([case.distances for case in cases]), (1, 99.9))
        return cls(float(low), max(float(high), float(low) + 1e-6))

    def position(self, distance: float) -> float:
        """Where a distance lies on the scale, 0..1."""
        return min(max((distance - self.low) / (self.high - self.low), 0.0), 1.0)

    def gradient(self) -> str:
        """The scale as a CSS gradient, from left to right."""
        places = np.linspace(self.low, self.high, _STOPS, dtype=np.float32)[None]
        colours = self.over(np.full((1, _STOPS, 3), 255, np.uint8), places)[0, :, ::-1]
        return f"linear-gradient(to right,{','.join('#' + bytes(colour).hex() for colour in colours)})"

    def over(self, picture: Bgr, distances: DistanceMap) -> Bgr:
        """Colour a picture by distances, float32 [H, W]."""
        if self.threshold is not None:
            coloured = picture.copy()
            tint(coloured, to_threshold_heatmap(distances, None, self.threshold))
            return coloured
        share = np.clip((distances - self.low) / (self.high - self.low), 0, 1)
        colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), _COLOURS)
        opacity = (_MOST_OPAQUE * np.minimum(1, 0.1 + 1.5 * share))[..., None]
        return np.asarray(picture * (1 - opacity) + colours * opacity, np.uint8)


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
    grey = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    distance_map = to_image_grid(case.distances, case.image_hw, blur_sigma)
    # Each place as one pixel of the map has it: a mean of several could lie on the other side of the threshold.
    places = cv2.resize(distance_map, (width, height), interpolation=cv2.INTER_NEAREST)
    heatmap = scale.over(np.asarray(grey, np.uint8), np.asarray(places, np.float32))
    regions = _draw_regions(small, case, threshold, distance_map, limits)
    return Thumbnails(_jpeg(small), _jpeg(heatmap), _jpeg(regions), width, height)


def _draw_regions(
    small: Bgr, case: Case, threshold: float | None, distance_map: DistanceMap, limits: ImageLimits
) -> Bgr:
    """Ground truth as a tint, regions as outlines, on a pale picture."""
    pale = cv2.addWeighted(small, 0.75, np.full_like(small, 255), 0.25, 0)
    height, width = small.shape[:2]
    if case.image.masks:
        mask = read_masks(case.image.masks, limits).astype(np.float32)
        inside = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > 0
        pale[inside] = pale[inside] * 0.4 + np.array(_TRUTH) * 0.6
    if threshold is not None:
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
