"""The overlay: the image as it is, but for places at and above the threshold, outlines, and areas beside regions."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from backend.infer import find_regions, to_threshold_heatmap
from backend.service import overlay
from backend.service.overlay import COLOUR, OPACITY, area_text, draw_overlay, tint

RANDOM = np.random.default_rng(5)
THRESHOLD = 0.5
# What people see who lack one kind of cones: Machado et al., A Physiologically-based Model for Simulation of Color
# Vision Deficiency, 2009; linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
PARTS = {  # RGB
    "black": (25, 25, 25),
    "grey": (110, 110, 110),
    "light": (215, 215, 215),
    "brown": (165, 120, 70),
    "yellow": (215, 205, 60),
    "green": (40, 110, 60),
    "blue": (50, 80, 150),
    "copper": (190, 110, 70),
    "red": (170, 50, 40),
}


def photograph(height, width):
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def map_with(height, width, *spots):
    """float32 [H, W]: 0.45, and 0.6 in boxes (x, y, w, h)."""
    distance_map = np.full((height, width), 0.45, np.float32)
    for x, y, w, h in spots:
        distance_map[y : y + h, x : x + w] = 0.6
    return distance_map


def drawn(image, distance_map, mm_per_px=0.1):
    regions = find_regions(distance_map, None, THRESHOLD, 0, mm_per_px)
    return draw_overlay(image, to_threshold_heatmap(distance_map, None, THRESHOLD), regions), regions


def labels(monkeypatch, image, distance_map, mm_per_px=0.1):
    """The boxes of the labels that an overlay has, (x, y, w, h)."""
    boxes = []
    draw = overlay._Label.draw

    def noted(label, picture, x, y):
        boxes.append((x, y, *label.size))
        draw(label, picture, x, y)

    monkeypatch.setattr(overlay._Label, "draw", noted)
    picture, regions = drawn(image, distance_map, mm_per_px)
    return picture, regions, boxes


def box_mask(box, image_hw):
    mask = np.zeros(image_hw, bool)
    x, y, w, h = box
    mask[y : y + h, x : x + w] = True
    return mask


def cielab(rgb, vision):
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(vision) @ linear, 0, 1)
    seen = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(np.float32([[seen]]), cv2.COLOR_RGB2LAB)[0, 0]


def test_an_image_below_the_threshold_stays_as_it_is():
    image = photograph(70, 90)
    picture, regions = drawn(image, map_with(70, 90))
    assert regions == []
    assert np.array_equal(picture, image)
    assert picture is not image


def test_only_outlines_and_labels_change_what_is_below_the_threshold(monkeypatch):
    image, distance_map = photograph(300, 400), map_with(300, 400, (150, 120, 60, 50), (20, 200, 9, 7))
    before = image.copy()
    picture, _, boxes = labels(monkeypatch, image, distance_map)
    assert np.array_equal(image, before), "the image itself is left as it is"
    defective = distance_map >= THRESHOLD
    spared = ~ndimage.binary_dilation(defective, iterations=4)
    assert len(boxes) == 2
    for box in boxes:
        spared &= ~box_mask(box, spared.shape)
    assert np.array_equal(picture[spared], image[spared])
    inside = ndimage.binary_erosion(defective, iterations=4)
    for box in boxes:
        inside &= ~box_mask(box, spared.shape)
    assert inside.sum() > 1000
    assert (picture[inside] != image[inside]).any(axis=1).all()


def test_colour_is_laid_on_by_the_value_of_the_heatmap():
    assert (OPACITY[:128] == 0).all()
    assert (OPACITY[128:] >= 0.4).all()
    assert (np.diff(OPACITY[128:]) >= 0).all()
    image, heatmap = photograph(16, 16), np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = image.copy()
    tint(picture, heatmap)
    for grey, before, after in zip(heatmap.ravel(), image.reshape(-1, 3), picture.reshape(-1, 3), strict=True):
        expected = before * (1 - float(OPACITY[grey])) + COLOUR[grey] * float(OPACITY[grey])
        assert np.abs(after - expected).max() <= 0.51


def test_tint_works_through_large_pictures_to_the_last_row():
    picture = np.full((1100, 600, 3), 200, np.uint8)
    tint(picture, np.full((1100, 600), 255, np.uint8))
    assert (picture == picture[0, 0]).all()
    assert tuple(picture[0, 0]) != (200, 200, 200)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("part", PARTS)
def test_colours_are_seen_on_parts_of_any_colour_with_any_vision(part, vision):
    for grey in (128, 160, 192, 255):
        laid_on = np.array(PARTS[part]) * (1 - OPACITY[grey]) + COLOUR[grey][::-1] * OPACITY[grey]
        difference = cielab(laid_on, VISION[vision]) - cielab(PARTS[part], VISION[vision])
        assert np.linalg.norm(difference) > 7, "three times what is just noticed"


@pytest.mark.parametrize("background", [0, 128, 255])
def test_outlines_are_light_beside_dark_on_any_background(background):
    distance_map = map_with(200, 200, (60, 60, 80, 80))
    picture, _ = drawn(np.full((200, 200, 3), background, np.uint8), distance_map)
    across = picture[100, 52:70].astype(int).sum(axis=1)  # through the left edge
    assert across.max() - across.min() > 300


@pytest.mark.parametrize("size", [(60, 90), (300, 300), (1024, 1024), (2048, 2448), (64, 3000), (3000, 64)])
def test_labels_lie_in_the_picture_beside_their_region_and_apart(monkeypatch, size):
    height, width = size
    side = min(size) // 8
    corners = [(x, y, side, side) for x in (0, width - side) for y in (0, height - side)]
    middle = (width // 2, height // 2, side * 2, side)
    picture, regions, boxes = labels(monkeypatch, photograph(*size), map_with(*size, *corners, middle))
    assert picture.shape == (*size, 3)
    assert len(regions) == 5
    assert boxes
    assert len(boxes) == 5 or min(size) < 100
    for number, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        for other in boxes[:number]:
            assert not (box_mask((x, y, w, h), size) & box_mask(other, size)).any()
    if min(size) >= 300:
        of_regions = np.any([box_mask((r.x, r.y, r.w, r.h), size) for r in regions], axis=0)
        for box in boxes:
            assert not (box_mask(box, size) & of_regions).any(), "there is room beside all regions"


def test_lines_and_labels_grow_with_the_image(monkeypatch):
    lines, labels_high = [], []
    for side in (300, 1024, 2048):
        spot = (side // 3, side // 3, side // 4, side // 4)
        with monkeypatch.context() as patch:
            picture, _, ((*_, high),) = labels(
                patch, np.full((side, side, 3), 90, np.uint8), map_with(side, side, spot)
            )
        left = picture[side // 2, : side // 2 - 20]  # through the left edge, up to the inside of the region
        lines.append(int((left.max(axis=1) > 200).sum()))
        labels_high.append(high)
    assert 1 <= lines[0] < lines[1] < lines[2]
    assert labels_high[0] < labels_high[1] < labels_high[2]


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (20, 30), (1, 70_000), (70_000, 1), (5, 40_000)])
def test_pictures_without_room_for_a_label_have_none(monkeypatch, size):
    image = photograph(*size)
    picture, regions, boxes = labels(monkeypatch, image, np.full(size, 0.6, np.float32))
    assert len(regions) == 1
    assert boxes == []
    assert picture.shape == image.shape
    assert (picture != image).any()


def test_a_region_of_the_whole_picture_has_its_label_in_it(monkeypatch):
    _, _, boxes = labels(monkeypatch, photograph(200, 200), np.full((200, 200), 0.6, np.float32))
    assert [box[:2] for box in boxes] == [(0, 0)]


def test_the_eight_largest_regions_have_labels(monkeypatch):
    spots = [(20 + 90 * (n % 6), 40 + 90 * (n // 6), 30 - n, 30 - n) for n in range(18)]
    _, regions, boxes = labels(monkeypatch, photograph(400, 600), map_with(400, 600, *spots))
    assert (len(regions), len(boxes)) == (18, 8)


@pytest.mark.parametrize(
    ("area_mm2", "text"),
    [
        (3.2416, "3.2"),
        (9.949, "9.9"),
        (9.96, "10"),
        (127.6, "128"),
        (999_999.0, "999999"),
        (1e6, "1.0e+06"),
        (0.996, "1.00"),
        (0.0412, "0.041"),
        (0.000412, "0.00041"),
        (1e-12, "1.0e-12"),
    ],
)
def test_areas_are_written_short_and_rightly_rounded(area_mm2, text):
    assert area_text(area_mm2) == text
    assert float(text) == pytest.approx(area_mm2, rel=0.06)
