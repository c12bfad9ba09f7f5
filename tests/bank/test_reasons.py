"""The places that decided a score, and the good patches that come nearest to them."""

import cv2
import numpy as np
import pytest

from backend.bank.images import BankImage
from backend.bank.reasons import beside, panel_of_good, panel_of_place, patch_box, reasons
from backend.infer import Inference, find_regions, to_image_grid
from backend.patchcore import PatchCoreMemory, l2_normalize

GRID = (4, 6)
HW = (80, 180)
IMAGES = [BankImage("a.png", "00", 40, 60, 3, None, {}), BankImage("b.png", "01", 80, 180, 3, None, {})]


def unit_rows(n, seed=0):
    return l2_normalize(np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32))


@pytest.fixture
def memory():
    return PatchCoreMemory.build(unit_rows(2 * 24), GRID, 0.5)


def inference(memory, embeddings, threshold=None):
    distances = memory.distances(embeddings).reshape(GRID)
    distance_map = to_image_grid(distances, HW, 1.0)
    regions = [] if threshold is None else find_regions(distance_map, None, threshold, 0, 1.0)
    return Inference(0.5, regions, (), np.zeros(HW, np.uint8), distance_map, embeddings, distances)


def test_a_pixel_is_explained_by_the_patch_that_has_it(memory):
    embeddings = unit_rows(24, seed=1)
    (reason,) = reasons(inference(memory, embeddings), memory, IMAGES, None, (100, 45))
    row, column = 2, 3
    expected = np.linalg.norm(memory.embeddings.astype(np.float64) - embeddings[row * 6 + column], axis=1)
    assert reason.distance == pytest.approx(expected.min(), abs=1e-6)
    assert reason.box == (90, 40, 30, 20)
    patch = memory.patches[expected.argmin()]
    assert reason.image_index == patch // 24
    height, width = [(40, 60), (80, 180)][patch // 24]
    x, y, w, h = reason.image_box
    assert (x, y, w, h) == ((patch % 6) * width // 6, (patch % 24) // 6 * height // 4, width // 6, height // 4)


def test_the_nearest_of_a_patch_of_the_bank_is_that_patch(memory):
    embeddings = unit_rows(24, seed=1)
    embeddings[0] = memory.embeddings[7] * 3
    (reason,) = reasons(inference(memory, embeddings), memory, IMAGES, None, (0, 0))
    assert reason.distance == pytest.approx(0, abs=1e-6)
    assert reason.image.name == IMAGES[memory.patches[7] // 24].name


def test_every_region_is_explained_by_its_worst_place(memory):
    embeddings = np.repeat(memory.embeddings[:1], 24, axis=0)
    embeddings[[0, 17]] = -embeddings[[0, 17]]
    found = inference(memory, embeddings, threshold=0.7)
    assert len(found.regions) == 2
    explained = reasons(found, memory, IMAGES, None, None)
    assert [reason.region for reason in explained] == [0, 1]
    assert {reason.box for reason in explained} == {(0, 0, 30, 20), (150, 40, 30, 20)}
    for reason in explained:
        region = found.regions[reason.region]
        assert region.x <= reason.x < region.x + region.w
        assert region.y <= reason.y < region.y + region.h


def test_without_regions_the_worst_place_inside_the_mask_is_explained(memory):
    embeddings = np.repeat(memory.embeddings[:1], 24, axis=0)
    embeddings[0] *= -1
    mask = np.zeros(HW, np.bool_)
    assert reasons(inference(memory, embeddings), memory, IMAGES, None, None)[0].box == (0, 0, 30, 20)
    mask[40:, 60:] = True
    (reason,) = reasons(inference(memory, embeddings), memory, IMAGES, mask, None)
    assert reason.x >= 60
    assert reason.y >= 40


def test_bank_without_patch_origins_still_gives_the_distance(memory):
    """A bank of an older version does not know which image a patch came from; the reason holds the distance alone."""
    older = PatchCoreMemory(memory.embeddings, GRID)
    (reason,) = reasons(inference(older, unit_rows(24, seed=1)), older, [], None, (5, 5))
    assert reason.distance > 0
    assert (reason.image_index, reason.image, reason.image_box) == (None, None, None)


@pytest.mark.parametrize("hw", [(448, 448), (80, 180), (33, 47), (5, 3)])
def test_the_patches_of_a_grid_cover_the_image(hw):
    covered = np.zeros(hw, np.int64)
    for row in range(4):
        for column in range(6):
            x, y, w, h = patch_box((row, column), GRID, hw)
            assert w >= 1
            assert h >= 1
            covered[y : y + h, x : x + w] += 1
    assert covered.min() >= 1


def test_a_picture_shows_the_place_and_the_good_patch_side_by_side(memory):
    image = np.full((*HW, 3), 200, np.uint8)
    cv2.rectangle(image, (90, 40), (119, 59), (0, 0, 255), cv2.FILLED)
    good = np.full((40, 90, 3), 90, np.uint8)  # a thumbnail of half the size
    (reason,) = reasons(inference(memory, unit_rows(24, seed=1)), memory, [IMAGES[1], IMAGES[1]], None, (100, 45))
    alone = beside(panel_of_place(reason, image), None)
    picture = beside(panel_of_place(reason, image), panel_of_good(reason, good))
    assert picture.shape[0] == alone.shape[0] == 288
    assert picture.shape[1] > alone.shape[1]
    np.testing.assert_array_equal(picture[:, : alone.shape[1]], alone)
    right = picture[:, alone.shape[1] + 8 :]
    assert np.median(right) == 90
    assert (right != 90).any(), "the patch is framed"
    red = (picture[..., 2] > 200) & (picture[..., 1] < 50)
    assert red.any(), "the place is in the picture"


@pytest.mark.parametrize("hw", [(1, 200_000), (200_000, 1), (2, 30_000), (8000, 8), (1, 1)])
def test_a_picture_of_a_strip_is_no_larger_than_any_other(memory, hw):
    distances = memory.distances(unit_rows(24, seed=1)).reshape(GRID)
    distance_map = to_image_grid(distances, hw, 0)
    found = Inference(0.5, [], (), np.zeros(hw, np.uint8), distance_map, unit_rows(24, seed=1), distances)
    strip = BankImage("strip.png", "02", *hw, 3, None, {})
    (reason,) = reasons(found, memory, [strip, strip], None, (hw[1] // 2, hw[0] // 2))
    image = np.zeros((*hw, 3), np.uint8)
    for panel in (panel_of_place(reason, image), panel_of_good(reason, image)):
        assert panel.shape[0] == 288
        assert panel.shape[1] <= 576
