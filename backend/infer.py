"""One image through a memory bank: distance map → image score, heatmap, regions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from backend.block_memory import Memory
from backend.common.arrays import DistanceMap, Embeddings
from backend.common.telemetry import stage
from backend.features import DinoV2Features, RunNetwork
from backend.roi_mask import Shape, build_mask
from backend.utils import BLOCK_PIXELS, mm2_to_px2, percentile, px2_to_mm2

Mask = npt.NDArray[np.bool_]

THRESHOLD_GREY = 128
"""What `to_threshold_heatmap` shows at the threshold."""


@dataclass(frozen=True)
class Region:
    """A connected defect, in pixels of the uploaded image.

    Attributes:
        x, y, w, h: bounding box; pixels x..x+w-1, y..y+h-1.
        area_px: number of pixels.
        area_mm2: the same in mm².
        contour: outer boundary as [x, y] pixel coordinates.
    """

    x: int
    y: int
    w: int
    h: int
    area_px: float
    area_mm2: float
    contour: list[list[int]]


@dataclass(frozen=True)
class Finding:
    """The result for one image, without arrays of its size.

    Attributes:
        score: percentile of the masked distance map; a distance, 0..2.
        regions: defects by falling area; empty without a threshold.
        scores: further requested percentiles of the map.
    """

    score: float
    regions: list[Region]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Inference(Finding):
    """The result for one image.

    Attributes:
        score, regions, scores: see `Finding`.
        heatmap: uint8 [H, W], the map stretched from its 1st..99th percentile to 0..255, 0 outside the mask.
        distance_map: float32 [H, W], distances on the pixel grid of the uploaded image, not masked.
        embeddings: float32 [N, D], of its patches, row by row, not normalised; of patches that the mask hides with
            their whole tile zeros; [0, D] where they are not kept.
        distances: float32 [rows, columns], of these, on the token grid; of patches that the mask hides with their whole
            tile the median of the others.
    """

    heatmap: npt.NDArray[np.uint8]
    distance_map: DistanceMap
    embeddings: Embeddings
    distances: DistanceMap


@dataclass(frozen=True)
class InferenceEngine:
    """Runs images through memory banks.

    Attributes:
        features: the extractor.
        blur_sigma: Gaussian sigma on the distance map, in ROI pixels; 0 is none.
    """

    features: DinoV2Features
    blur_sigma: float = 1.0

    def run(
        self,
        image: npt.NDArray[np.uint8],
        memory: Memory,
        *,
        mm_per_px: float,
        shape: Shape | None = None,
        threshold: float | None = None,
        score_percentile: float = 99,
        percentiles: Sequence[float] = (),
        area_mm2_thr: float = 0,
        run_network: RunNetwork | None = None,
        keeps_embeddings: bool = True,
        every_tile: bool = False,
    ) -> Inference:
        """Score one image and find its defects.

        Args:
            image: uint8 [H, W, 3], BGR, the canonical ROI.
            memory: bank of the ROI, built by the same extractor.
            mm_per_px: millimetres per pixel of `image`.
            shape: mask in pixels of `image`; None is the whole image.
            threshold: from calibration; None finds no regions.
            score_percentile: percentile of the masked map that is the score.
            percentiles: further ones, for `Finding.scores`.
            area_mm2_thr: regions smaller than this are dropped, in mm².
            run_network: see `DinoV2Features.each_tile`.
            keeps_embeddings: whether `Inference.embeddings` are wanted: of a large grid they take 100 MB and more.
            every_tile: look at tiles that the mask hides, too.

        Raises:
            InvalidShape: the shape selects no pixel.
        """
        image_hw = (image.shape[0], image.shape[1])
        mask = build_mask(shape, image_hw)
        tiles = self.features.tiling.within(None if every_tile else mask, self.blur_sigma)
        embeddings, distances = self._search(image, memory, tiles, run_network, keeps_embeddings=keeps_embeddings)
        with stage("post"):
            distance_map = to_image_grid(distances, image_hw, self.blur_sigma)
            if mask is None:  # one sample and one upper tail serve the picture and the score
                low, high, score, *scores = percentile(distance_map, 1, 99, score_percentile, *percentiles)
            else:
                low, high = percentile(distance_map, 1, 99)
                score, *scores = percentile(distance_map, score_percentile, *percentiles, mask=mask)
            heatmap = to_heatmap(distance_map, mask, low, high)
            regions = []
            if threshold is not None:
                regions = find_regions(distance_map, mask, threshold, area_mm2_thr, mm_per_px)
        return Inference(score, regions, tuple(scores), heatmap, distance_map, embeddings, distances)

    def _search(
        self,
        image: npt.NDArray[np.uint8],
        memory: Memory,
        tiles: Sequence[int],
        run_network: RunNetwork | None,
        *,
        keeps_embeddings: bool,
    ) -> tuple[Embeddings, DistanceMap]:
        """Embeddings and distances of the tokens of some tiles, see `Inference`."""
        grid_hw, kept_hw = self.features.token_hw, self.features.token_hw if keeps_embeddings else (0, 0)
        embeddings = np.zeros((*kept_hw, self.features.dim), np.float32)
        distances, is_seen = np.empty(grid_hw, np.float32), np.zeros(grid_hw, np.bool_)
        for tile, tokens in self.features.each_tile(image, run_network, tiles):
            place = tile.rows, tile.columns
            with stage("search"):
                distances[place] = memory.distances(tokens).reshape(distances[place].shape)
            is_seen[place] = True
            if keeps_embeddings:
                embeddings[place] = tokens.reshape(*distances[place].shape, -1)
        if not is_seen.all():
            distances[~is_seen] = np.median(distances[is_seen])
        return embeddings.reshape(-1, self.features.dim), distances


def to_image_grid(distances: DistanceMap, image_hw: tuple[int, int], blur_sigma: float) -> DistanceMap:
    """Bring token distances back onto the image's pixels: the inverse of the extractor's stretch, then a blur.

    Args:
        distances: float32 [rows, columns] of the token grid.
        image_hw: image size (rows, columns).
        blur_sigma: Gaussian sigma in image pixels; 0 is none.

    Returns:
        float32 [H, W]; bilinear between token centres, constant beyond the outermost ones.
    """
    upsampled = cv2.resize(distances, image_hw[::-1], interpolation=cv2.INTER_LINEAR)
    if blur_sigma > 0:
        upsampled = cv2.GaussianBlur(upsampled, (0, 0), blur_sigma)
    return np.asarray(upsampled, dtype=np.float32)


def image_scores(
    distances: DistanceMap,
    image_hw: tuple[int, int],
    shape: Shape | None,
    blur_sigma: float,
    percentiles: Sequence[float],
) -> list[float]:
    """Image scores of one distance map, as `InferenceEngine.run` makes them.

    Args:
        distances: float32 [rows, columns] of the token grid.
        image_hw: image size (rows, columns).
        shape: mask in pixels of the image; None is the whole image.
        blur_sigma: Gaussian sigma in image pixels; 0 is none.
        percentiles: each gives a score.

    Raises:
        InvalidShape: the shape selects no pixel.
    """
    mask = build_mask(shape, image_hw)
    return percentile(to_image_grid(distances, image_hw, blur_sigma), *percentiles, mask=mask)


def to_heatmap(distance_map: DistanceMap, mask: Mask | None, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Stretch `low`..`high` to 0..255, only for display; 0 outside the mask, and everywhere if the map is flat.

    Args:
        distance_map: float32 [H, W].
        mask: bool [H, W], or None for every pixel.
        low, high: percentiles 1 and 99 of the whole map.

    Returns:
        uint8 [H, W].
    """
    heatmap = np.zeros(distance_map.shape, np.uint8)
    if high <= low:
        return heatmap
    scale = np.float32(255 / (high - low))
    for rows in _row_blocks(distance_map.shape):
        scaled = distance_map[rows] - np.float32(low)
        scaled *= scale
        np.clip(scaled, 0, 255, out=scaled)
        heatmap[rows] = np.rint(scaled, out=scaled)
        if mask is not None:
            heatmap[rows] *= mask[rows]
    return heatmap


def to_threshold_heatmap(distance_map: DistanceMap, mask: Mask | None, threshold: float) -> npt.NDArray[np.uint8]:
    """Show distances in units of the threshold, on one scale for all images; 0 outside the mask.

    A grey value is ``floor(128 * distance / threshold)``, and 255 from there on; 0 for distances below 0. So a distance
    lies between ``grey * threshold / 128`` and ``(grey + 1) * threshold / 128``. A pixel inside the mask is 128 or
    brighter exactly if `find_regions` counts it as defective, independent of rounding.

    Args:
        distance_map: float32 [H, W].
        mask: bool [H, W], or None for every pixel.
        threshold: distance at and above which a pixel is defective; above 0, because it is the unit.

    Returns:
        uint8 [H, W].
    """
    heatmap = np.zeros(distance_map.shape, np.uint8)
    with np.errstate(over="ignore"):  # as in `find_regions`
        limit = np.float32(threshold)
    scale = np.float32(min(THRESHOLD_GREY / threshold, 1e30))
    for rows in _row_blocks(distance_map.shape):
        scaled = distance_map[rows] * scale
        np.clip(scaled, 0, 255, out=scaled)
        grey = scaled.astype(np.uint8)
        reached = np.maximum(grey, THRESHOLD_GREY) * (distance_map[rows] >= limit)
        np.maximum(np.minimum(grey, THRESHOLD_GREY - 1), reached, out=heatmap[rows])
        if mask is not None:
            heatmap[rows] *= mask[rows]
    return heatmap


def find_regions(
    distance_map: DistanceMap, mask: Mask | None, threshold: float, area_mm2_thr: float, mm_per_px: float
) -> list[Region]:
    """Connected defects (8 neighbours) with ``distance >= threshold`` inside the mask, islands dropped.

    Args:
        distance_map: float32 [H, W].
        mask: bool [H, W], or None for every pixel.
        threshold: distance at and above which a pixel is defective.
        area_mm2_thr: components smaller than this are dropped, in mm².
        mm_per_px: millimetres per pixel.

    Returns:
        Regions by falling area, then from top to bottom and left to right.
    """
    with np.errstate(over="ignore"):  # no distance reaches a threshold that float32 cannot hold
        defective = distance_map >= np.float32(threshold)
    if mask is not None:
        defective &= mask
    # Outlines tell areas and boxes too: labelling every pixel for them takes ten times as long at five megapixels.
    contours, _ = cv2.findContours(defective.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []
    areas, boxes, holes = _measure(contours)
    if holes.any():  # OpenCV's own search for the outline around each is quadratic
        _, labels = cv2.connectedComponents(defective.view(np.uint8), connectivity=8)
        x, y = np.array([contour[0, 0] for contour in contours]).T
        of_contour = labels[y, x]
        of_label = np.empty(of_contour.max() + 1, np.int64)
        of_label[of_contour[~holes]] = np.flatnonzero(~holes)
        np.subtract.at(areas, of_label[of_contour[holes]], areas[holes])
    # A product rounds: 25 px at 0.2 mm are 1.0000000000000002 mm², and a region of exactly the limit is kept.
    kept = np.flatnonzero(~holes & (areas >= mm2_to_px2(area_mm2_thr, mm_per_px) * (1 - 1e-9)))
    order = kept[np.lexsort((boxes[kept, 0], boxes[kept, 1], -areas[kept]))]
    return [
        Region(x, y, w, h, float(area_px), px2_to_mm2(area_px, mm_per_px), contours[index][:, 0].tolist())
        for index, area_px, (x, y, w, h) in zip(order, areas[order].tolist(), boxes[order].tolist(), strict=True)
    ]


def region_score(distance_map: DistanceMap, mask: Mask | None, area_mm2: float, mm_per_px: float) -> float | None:
    """The highest level at which a region of at least some area exists.

    `find_regions` finds one at a threshold if and only if this score reaches it. It is the score of an image that is
    judged by its regions. It is the maximum of the map's area opening: Vincent, *Grayscale area openings and closings*,
    Proc. EURASIP Workshop on Mathematical Morphology (1993).

    Args:
        distance_map: float32 [H, W].
        mask: bool [H, W], or None for every pixel; it selects at least one.
        area_mm2: least area of a region, in mm²; 0 makes it the maximum of the map.
        mm_per_px: millimetres per pixel.

    Returns:
        A value of the map; None if the mask is too small for such a region.
    """
    inside = distance_map if mask is None else distance_map[mask]
    low, high = _ordered(inside.min()), _ordered(inside.max())
    if not find_regions(distance_map, mask, _unordered(low), area_mm2, mm_per_px):
        return None
    if find_regions(distance_map, mask, _unordered(high), area_mm2, mm_per_px):
        return _unordered(high)
    while high - low > 1:  # there is a region at `low`, and none at `high`
        middle = (low + high) // 2
        if found := find_regions(distance_map, mask, _unordered(middle), area_mm2, mm_per_px):
            low = middle
            # Higher up, all that is large enough lies within what is so here: the rest need not be looked at again.
            rows = slice(min(region.y for region in found), max(region.y + region.h for region in found))
            columns = slice(min(region.x for region in found), max(region.x + region.w for region in found))
            distance_map, mask = distance_map[rows, columns], None if mask is None else mask[rows, columns]
        else:
            high = middle
    return _unordered(low)


def _ordered(value: np.float32) -> int:
    """A whole number for each float32, in their order; neighbours have neighbouring ones."""
    bits = int(value.view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _unordered(number: int) -> float:
    """The float32 of a whole number, see `_ordered`."""
    value = float(np.int32(abs(number)).view(np.float32))
    return value if number >= 0 else -value


def _row_blocks(image_hw: tuple[int, ...]) -> Iterator[slice]:
    """Rows that are worked on together, from top to bottom."""
    height, width = image_hw
    step = max(1, BLOCK_PIXELS // width)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _measure(
    contours: Sequence[cv2.typing.MatLike],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Number of pixels inside contours, boxes around them, and which contours are holes; for all contours at once.

    By Pick's theorem a lattice polygon of area A that takes S steps from pixel to neighbouring pixel has A + S/2 + 1
    pixels in or on it and A - S/2 + 1 strictly inside. An outline runs on its component's outermost pixels; a hole's
    contour runs on the component's pixels around the hole, the other way round.

    Args:
        contours: int32 [K, 1, 2] each, (x, y) where the direction changes.

    Returns:
        areas: int64 [N], pixels, those of an outline included and those of a hole's contour not.
        boxes: int64 [N, 4], x, y, w, h.
        holes: bool [N].
    """
    points = np.concatenate(contours)[:, 0].astype(np.int64)
    ends = np.cumsum([len(contour) for contour in contours])
    starts = np.concatenate([[0], ends[:-1]])
    following = np.roll(points, -1, axis=0)
    following[ends - 1] = points[starts]
    doubled = np.add.reduceat(points[:, 1] * following[:, 0] - points[:, 0] * following[:, 1], starts)
    steps = np.add.reduceat(np.abs(following - points).max(axis=1), starts)
    holes = doubled < 0
    areas = (np.abs(doubled) + np.where(holes, -steps, steps)) // 2 + 1
    corner = np.minimum.reduceat(points, starts)
    return areas, np.hstack([corner, np.maximum.reduceat(points, starts) - corner + 1]), holes
