"""Small pictures of judged images: the image, its distances on one colour scale, ground truth and regions.

With a threshold, the scale is that of overlays: there is no colour below it.
"""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from backend.commands.report.content import Pictures, Scale
from backend.common.arrays import Bgr, DistanceMap
from backend.infer import Mask, find_regions, to_image_grid, to_threshold_heatmap
from backend.service.overlay import tint

_LONGEST_SIDE = 256
_JPEG_QUALITY = 80
_COLOURS = cv2.COLORMAP_TURBO
_MOST_OPAQUE = 0.7
_STOPS = 65  # of the scale as it is shown; one of them is the threshold
_TRUTH = (96, 160, 24)  # BGR, as the page's --truth
_REGION = (24, 96, 240)  # BGR, as the page's --region


def scale_of(distances: Sequence[DistanceMap], threshold: float | None) -> Scale:
    """The scale of a threshold; without one above 0, a scale that shows nearly all distances.

    Args:
        distances: float32 [rows, columns] each, of one token grid; at least one.
        threshold: of the decisions.
    """
    if threshold is not None and threshold > 0:
        low, high, start = 0.0, 2 * threshold, threshold
    else:
        low, high = (float(value) for value in np.percentile(np.stack(distances), (1, 99.9)))
        high, start = max(high, low + 1e-6), None
    places = np.linspace(low, high, _STOPS, dtype=np.float32)[None]
    colours = _over(np.full((1, _STOPS, 3), 255, np.uint8), places, Scale(low, high, "", start))[0, :, ::-1]
    gradient = f"linear-gradient(to right,{','.join('#' + bytes(colour).hex() for colour in colours)})"
    return Scale(low, high, gradient, start)


def draw(
    image: Bgr,
    distances: DistanceMap,
    scale: Scale,
    threshold: float | None,
    blur_sigma: float,
    truth: Mask | None = None,
    mask: Mask | None = None,
    least_area_px: float = 0,
) -> Pictures:
    """Draw an image; no side is longer than 256 pixels.

    Args:
        image: uint8 [H, W, 3], BGR.
        distances: float32 [rows, columns] of its token grid.
        scale: of the heatmap.
        threshold: threshold of the regions; None draws none.
        blur_sigma: Gaussian sigma on the distance map, in pixels of the image.
        truth: bool [H, W], pixels that are defective; None if unknown.
        mask: bool [H, W], pixels that are judged; None is every pixel.
        least_area_px: regions smaller than this are not drawn, in pixels of the image.
    """
    image_hw = (image.shape[0], image.shape[1])
    shrunk = min(1.0, _LONGEST_SIDE / max(image_hw))
    height, width = (max(1, round(side * shrunk)) for side in image_hw)
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    distance_map = to_image_grid(distances, image_hw, blur_sigma)
    # Each place as one pixel of the map has it: a mean of several could lie on the other side of the threshold.
    judged = distance_map if mask is None else np.where(mask, distance_map, np.float32(scale.low))
    places = cv2.resize(judged, (width, height), interpolation=cv2.INTER_NEAREST)
    heatmap = _over(np.asarray(grey, np.uint8), np.asarray(places, np.float32), scale)
    pale = cv2.addWeighted(small, 0.75, np.full_like(small, 255), 0.25, 0)
    if truth is not None:
        inside = cv2.resize(truth.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
        pale[inside] = pale[inside] * 0.4 + np.array(_TRUTH) * 0.6
    if threshold is not None:
        stretch = np.array((width, height)) / image_hw[::-1]
        outlines = [
            np.rint((np.array(region.contour) + 0.5) * stretch - 0.5).astype(np.int32)
            for region in find_regions(distance_map, mask, threshold, least_area_px, 1)
        ]
        cv2.polylines(pale, outlines, isClosed=True, color=_REGION, thickness=2, lineType=cv2.LINE_AA)
    return Pictures(_jpeg(small), _jpeg(heatmap), _jpeg(np.asarray(pale, np.uint8)), width, height)


def _over(picture: Bgr, distances: DistanceMap, scale: Scale) -> Bgr:
    """Colour a picture by distances, float32 [H, W]."""
    if scale.start is not None:
        coloured = picture.copy()
        tint(coloured, to_threshold_heatmap(distances, None, scale.start))
        return coloured
    share = np.clip((distances - scale.low) / (scale.high - scale.low), 0, 1)
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), _COLOURS)
    opacity = (_MOST_OPAQUE * np.minimum(1, 0.1 + 1.5 * share))[..., None]
    return np.asarray(picture * (1 - opacity) + colours * opacity, np.uint8)


def _jpeg(picture: npt.NDArray[np.generic]) -> str:
    _, content = cv2.imencode(".jpg", np.asarray(picture), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode('ascii')}"
