"""Why an image was judged as it was: the places that decided, and the good patches nearest to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from backend.bank.images import BankImage
from backend.block_memory import BlockMemory, Memory
from backend.common.arrays import Bgr
from backend.infer import Inference, Mask, Region
from backend.patchcore import l2_normalize

Box = tuple[int, int, int, int]

_MOST_PLACES = 8
# Products in float32 do not tell the nearest among almost equal ones: so many are compared by their difference.
_FETCHED = 4
# Patches shown around the one that a picture is about, to each side.
_CONTEXT = 4
_PANEL_HEIGHT, _MOST_PANEL_WIDTH = 288, 576
_GAP = 8
_QUERY_COLOUR, _GOOD_COLOUR = (28, 95, 224), (178, 114, 0)  # BGR


@dataclass(frozen=True)
class Reason:
    """A place of an image, and the nearest patch of the good images.

    Attributes:
        x, y: the place, in pixels of the image.
        region: position among the regions of the inference; None if the place is in no region.
        box: the patch of the place, (x, y, w, h) in pixels of the image.
        distance: of its embedding to the nearest in the memory bank, 0..2; of several blocks as the map has it.
        image_index: position of its image in the fit; None if the bank does not record it.
        image: record of that image; None if there is none.
        image_box: the nearest patch, (x, y, w, h) in pixels of that image; None if unknown.
    """

    x: int
    y: int
    region: int | None
    box: Box
    distance: float
    image_index: int | None
    image: BankImage | None
    image_box: Box | None


def reasons(
    inference: Inference,
    memory: Memory,
    images: Sequence[BankImage],
    mask: Mask | None,
    point: tuple[int, int] | None,
) -> list[Reason]:
    """The nearest good patch of a place, of the worst place of every region, or of the worst place of all.

    Args:
        inference: of the image.
        memory: bank that it was compared with.
        images: of that bank.
        mask: bool [H, W], or None for every pixel.
        point: (x, y) in pixels of the image; None takes the worst place of each of the eight largest regions, or of the
            image if there is no region.
    """
    points: list[tuple[int, int, int | None]]
    if point is not None:
        points = [(*point, None)]
    elif inference.regions:
        largest = inference.regions[:_MOST_PLACES]
        points = [(*_worst_in(inference, region), number) for number, region in enumerate(largest)]
    else:
        shown = inference.distance_map if mask is None else np.where(mask, inference.distance_map, -1)
        y, x = np.unravel_index(int(shown.argmax()), shown.shape)
        points = [(int(x), int(y), None)]
    image_hw = (inference.distance_map.shape[0], inference.distance_map.shape[1])
    return [_reason(inference, memory, images, image_hw, *found) for found in points]


def _worst_in(inference: Inference, region: Region) -> tuple[int, int]:
    inside = np.zeros((region.h, region.w), np.uint8)
    contour = np.array(region.contour, np.int32) - (region.x, region.y)
    cv2.drawContours(inside, [contour], -1, 1, cv2.FILLED)
    part = inference.distance_map[region.y : region.y + region.h, region.x : region.x + region.w]
    y, x = np.unravel_index(int(np.where(inside, part, -1).argmax()), part.shape)
    return region.x + int(x), region.y + int(y)


def _reason(
    inference: Inference,
    memory: Memory,
    images: Sequence[BankImage],
    image_hw: tuple[int, int],
    x: int,
    y: int,
    region: int | None,
) -> Reason:
    rows, columns = memory.token_hw
    row, column = y * rows // image_hw[0], x * columns // image_hw[1]
    embedding = inference.embeddings[row * columns + column][None]
    # Of several blocks the last one shows which good patch is alike: it tells parts of a thing apart best.
    of_last_block = embedding[:, -memory.embeddings.shape[1] :]
    query = l2_normalize(of_last_block)
    _, rows_near = memory.index.nearest(query, min(_FETCHED, len(memory.embeddings)))
    distances = np.linalg.norm(memory.embeddings[rows_near[0]] - query, axis=1)
    nearest, distance = int(rows_near[0][distances.argmin()]), float(distances.min())
    if isinstance(memory, BlockMemory):
        distance = float(memory.distances(embedding)[0])
    patch = -1 if memory.patches is None else int(memory.patches[nearest])
    index, image, image_box = None, None, None
    if patch >= 0:
        index, token = divmod(patch, rows * columns)
        if index < len(images):
            image = images[index]
            image_box = patch_box(divmod(token, columns), memory.token_hw, (image.height, image.width))
    box = patch_box((row, column), memory.token_hw, image_hw)
    return Reason(x, y, region, box, distance, index, image, image_box)


def patch_box(point: tuple[int, int], token_hw: tuple[int, int], image_hw: tuple[int, int]) -> Box:
    """The pixels of a patch, including those that it shares with another patch.

    Args:
        point: (row, column) in the token grid.
        token_hw: token grid (rows, columns).
        image_hw: image size (rows, columns).

    Returns:
        (x, y, w, h) in pixels.
    """
    starts = [part * size // tokens for part, size, tokens in zip(point, image_hw, token_hw, strict=True)]
    ends = [-(-(part + 1) * size // tokens) for part, size, tokens in zip(point, image_hw, token_hw, strict=True)]
    return starts[1], starts[0], ends[1] - starts[1], ends[0] - starts[0]


def beside(panel: Bgr, good: Bgr | None) -> Bgr:
    """A place, and to its right the nearest good patch.

    Args:
        panel, good: as `panel` draws them; without a good patch, only the place is shown.

    Returns:
        uint8 [288, W, 3], BGR.
    """
    if good is None:
        return panel
    return np.hstack([panel, np.full((_PANEL_HEIGHT, _GAP, 3), 255, np.uint8), good])


def panel_of_place(reason: Reason, image: Bgr) -> Bgr:
    """The surroundings of the place, its patch framed, uint8 [288, W, 3], BGR.

    Args:
        reason: what is shown.
        image: uint8 [H, W, 3], BGR.
    """
    return _panel(image, reason.box, _QUERY_COLOUR)


def panel_of_good(reason: Reason, good: Bgr) -> Bgr | None:
    """The surroundings of the nearest good patch, with a frame; None if unknown.

    Args:
        reason: what is shown.
        good: the image that the patch is from, of any scale, uint8 [H, W, 3], BGR.
    """
    if reason.image is None or reason.image_box is None:
        return None
    scale_x, scale_y = good.shape[1] / reason.image.width, good.shape[0] / reason.image.height
    x, y, w, h = reason.image_box
    left, top = min(round(x * scale_x), good.shape[1] - 1), min(round(y * scale_y), good.shape[0] - 1)
    return _panel(good, (left, top, max(1, round(w * scale_x)), max(1, round(h * scale_y))), _GOOD_COLOUR)


def _panel(image: Bgr, box: Box, colour: tuple[int, int, int]) -> Bgr:
    x, y, w, h = box
    height, width = image.shape[:2]
    shown_w, shown_h = min(width, (2 * _CONTEXT + 1) * w), min(height, (2 * _CONTEXT + 1) * h)
    left = min(max(0, x + w // 2 - shown_w // 2), width - shown_w)
    top = min(max(0, y + h // 2 - shown_h // 2), height - shown_h)
    scale = min(_PANEL_HEIGHT / shown_h, _MOST_PANEL_WIDTH / shown_w)  # a strip of an image is shown as one
    size = (max(1, round(shown_w * scale)), max(1, round(shown_h * scale)))
    panel = cv2.resize(image[top : top + shown_h, left : left + shown_w], size, interpolation=cv2.INTER_CUBIC)
    corner = (round((x - left) * scale), round((y - top) * scale))
    opposite = (round((x + w - left) * scale) - 1, round((y + h - top) * scale) - 1)
    cv2.rectangle(panel, corner, opposite, colour, 2)
    below = _PANEL_HEIGHT - size[1]
    return np.asarray(cv2.copyMakeBorder(panel, 0, below, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255)), np.uint8)
