"""What an inference does outside the network, stage by stage: the plain way beside ours, with the same results."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.features import IMAGENET_MEAN, IMAGENET_STD, preprocess
from backend.infer import find_regions, to_heatmap, to_image_grid
from backend.patchcore import PatchCoreMemory
from backend.roi_mask import Circle, build_mask
from backend.service.inspection import InspectionService
from backend.utils import ImageLimits, decode_image, encode_png_base64, percentile
from harness.images import solar_cells
from harness.measuring import interleaved, print_table

_SIZES = ((300, 300), (512, 512), (2048, 2448))
_LIMITS = ImageLimits(1 << 30, 1 << 30)
_SIGMA = 1.0
_MM_PER_PX = 0.2

Map = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]


def plain_decode(content: bytes) -> Picture:
    """Pillow's decoder."""
    with Image.open(io.BytesIO(content)) as image:
        return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)


def plain_preprocess(image: Picture, side: int) -> Map:
    """Stretch, then the formula on whole arrays."""
    shrunk = cv2.resize(image, (min(image.shape[1], side), min(image.shape[0], side)), interpolation=cv2.INTER_AREA)
    grown = cv2.resize(shrunk.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    normalised = (grown[..., ::-1] / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def plain_map(distances: Map, image_hw: tuple[int, int]) -> Map:
    """One resize and one blur."""
    return cv2.GaussianBlur(cv2.resize(distances, image_hw[::-1], interpolation=cv2.INTER_LINEAR), (0, 0), _SIGMA)


def plain_heatmap(distance_map: Map, low: float, high: float) -> Picture:
    """The formula on whole arrays."""
    scaled = np.clip((distance_map - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
    return np.rint(scaled).astype(np.uint8)


def plain_mask(circle: Circle, image_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A grid of distances from the centre."""
    y, x = np.arange(image_hw[0])[:, None] + 0.5, np.arange(image_hw[1])[None] + 0.5
    return (x - circle.cx) ** 2 + (y - circle.cy) ** 2 <= circle.r**2


def plain_regions(distance_map: Map, threshold: float) -> list[tuple[list[int], list[list[int]]]]:
    """Label every pixel, cut out every component, outline it; boxes with areas, and contours."""
    defective = (distance_map >= np.float32(threshold)).astype(np.uint8)
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(defective, connectivity=8)
    regions = []
    for label in range(1, n_labels):
        x, y, w, h, _ = stats[label].tolist()
        component = (labels[y : y + h, x : x + w] == label).astype(np.uint8)
        outlines, _ = cv2.findContours(component, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
        regions.append((stats[label].tolist(), outlines[0][:, 0].tolist()))
    return regions


def contenders(
    image: Picture, distances: Map, side: int
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By stage: the plain way and ours."""
    height, width = image_hw = image.shape[:2]
    png, jpeg = (cv2.imencode(extension, image)[1].tobytes() for extension in (".png", ".jpg"))
    distance_map = to_image_grid(distances, image_hw, _SIGMA)
    low, high, threshold = percentile(distance_map, 1, 99, 97)
    heatmap = to_heatmap(distance_map, None, low, high)
    circle = Circle(kind="circle", cx=width / 2, cy=height / 2, r=min(image_hw) / 2)
    mask = plain_mask(circle, image_hw)
    return {
        "decode PNG": (lambda: plain_decode(png), lambda: decode_image(png, "", _LIMITS)),
        "decode JPEG": (lambda: plain_decode(jpeg), lambda: decode_image(jpeg, "", _LIMITS)),
        "preprocess": (lambda: plain_preprocess(image, side), lambda: preprocess(image, side)),
        "round mask": (lambda: plain_mask(circle, image_hw), lambda: build_mask(circle, image_hw)),
        "map": (lambda: plain_map(distances, image_hw), lambda: to_image_grid(distances, image_hw, _SIGMA)),
        "percentiles": (
            lambda: (*np.percentile(distance_map, (1, 99)), np.percentile(distance_map, 99)),
            lambda: percentile(distance_map, 1, 99, 99),
        ),
        "masked percentile": (
            lambda: np.percentile(distance_map[mask], 99),
            lambda: percentile(distance_map, 99, mask=mask),
        ),
        "heatmap": (
            lambda: plain_heatmap(distance_map, low, high),
            lambda: to_heatmap(distance_map, None, low, high),
        ),
        "regions": (
            lambda: plain_regions(distance_map, threshold),
            lambda: find_regions(distance_map, None, threshold, 0, _MM_PER_PX),
        ),
        "encode": (lambda: cv2.imencode(".png", heatmap)[1].tobytes(), lambda: encode_png_base64(heatmap)),
    }


def main() -> None:
    """Print the tables."""
    configure_logging("warning", "console")
    features = InspectionService.open(load_settings()).features
    cells = solar_cells(63)
    memory = PatchCoreMemory.build(features.extract(cells[0])[0], features.token_hw, 0.1)
    distances = memory.distances(features.extract(cells[1])[0]).reshape(features.token_hw)
    mosaic = np.vstack([np.hstack(cells[row : row + 9]) for row in range(0, 63, 9)])
    for height, width in _SIZES:
        image = np.ascontiguousarray(mosaic[:height, :width])  # not enlarged: a photograph's own texture and noise
        pairs = contenders(image, distances, features.input_size)
        flat = {f"{stage} {index}": way for stage, ways in pairs.items() for index, way in enumerate(ways)}
        seconds = interleaved(flat, rounds=9)
        medians = [(stage, *(seconds[f"{stage} {index}"] * 1000 for index in (0, 1))) for stage in pairs]
        print_table(
            f"Outside the network, {width}×{height}, median milliseconds of 9 interleaved runs",
            ("stage", "plain", "ours", "plain / ours"),
            [(stage, f"{plain:.2f}", f"{ours:.2f}", f"{plain / ours:.1f}") for stage, plain, ours in medians],
        )


if __name__ == "__main__":
    main()
