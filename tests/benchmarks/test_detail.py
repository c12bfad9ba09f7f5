"""Scenes with small defects: their cells are pixels of the images, and what counts as found."""

import cv2
import numpy as np
import pytest

from benchmarks.detail import Found
from benchmarks.detail_scenes import KINDS, SCENE_HW, SIZES, Defect, Tray, defects_of, plant

CELL = 256


@pytest.fixture(scope="module")
def tray(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for name in ("train/good", "test/good", "test/defect"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(100, 130, (CELL, CELL + 4, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), pixels)
    return Tray.open(folder)


def mirrored(image):
    return [image[::down, ::across] for down in (1, -1) for across in (1, -1)]


def test_every_cell_of_a_scene_is_pixels_of_one_image(tray):
    scene = tray.fit_scenes(1)[0]
    assert scene.shape == (*SCENE_HW, 3)
    for row in range(SCENE_HW[0] // CELL):
        for column in range(SCENE_HW[1] // CELL):
            cell = scene[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            assert any(
                np.array_equal(cell, crop)
                for image in tray.fit
                for left in range(5)
                for crop in mirrored(image[:, left : left + CELL])
            )


def test_no_image_is_in_fit_scenes_and_in_test_scenes(tray):
    assert len(tray.fit) == len(tray.test) == 3
    assert not any(np.array_equal(fitted, tested) for fitted in tray.fit for tested in tray.test)


def test_scenes_are_the_same_every_time_and_differ(tray):
    first, second = tray.test_scenes(2)
    assert np.array_equal(tray.test_scenes(1)[0], first)
    assert not np.array_equal(first, second)


def test_a_scene_has_a_defect_of_each_kind_and_size():
    defects = defects_of(7)
    assert [(d.kind, d.size) for d in defects] == [(kind, size) for kind in KINDS for size in SIZES]
    assert defects_of(7) == defects
    assert defects_of(8) != defects


@pytest.mark.parametrize("defect", [*defects_of(0)[::5], Defect("spot", 48, 2, 2040, 0.0, 1)])
def test_a_planted_defect_is_of_its_size_and_at_its_place(tray, defect):
    scene = tray.test_scenes(1)[0]
    rows, columns = np.nonzero((plant(scene, defect) != scene).any(axis=2))
    edge = defect.size / 2 + 4
    assert defect.y - edge <= rows.min() <= rows.max() <= defect.y + edge
    assert defect.x - edge <= columns.min() <= columns.max() <= defect.x + edge
    spans = np.ptp(rows) + 1, np.ptp(columns) + 1
    if edge <= defect.x and defect.y + edge < SCENE_HW[0]:
        assert np.hypot(*spans) >= defect.size, "from end to end"


def test_found_is_what_scores_above_the_scenes_without_defects():
    scores = {(kind, size): [(0.3, 0.5 + size / 100), (0.5, 0.4)] for kind in KINDS for size in SIZES}
    found = Found("set", "contract", 3, 1, 1.0, [0.3, 0.62, 0.5], scores)
    assert found.limit == 0.62
    assert found.shares("all") == pytest.approx([0.0 if size <= 12 else 0.5 for size in SIZES])
    assert found.smallest("spot") is None
    found.scores["spot", 24] = found.scores["spot", 32] = [(0.3, 0.7), (0.3, 0.8)]
    assert found.smallest("spot") is None, "larger ones are not found"
    found.scores["spot", 48] = [(0.3, 0.7), (0.3, 0.8)]
    assert found.smallest("spot") == 24


def test_of_two_hundred_scenes_two_may_score_above_the_limit():
    assert Found("set", "contract", 1, 1, 1.0, [float(n) for n in range(200)]).limit == 197.0


def test_a_scene_that_reaches_the_limit_without_a_defect_tells_nothing():
    scores = {(kind, size): [(0.6, 0.61), (0.3, 0.4)] for kind in KINDS for size in SIZES}
    found = Found("set", "contract", 1, 1, 1.0, [0.6, 0.3], scores)
    assert found.shares("spot") == [0.0] * len(SIZES)
    found.scores["spot", 8] = [(0.6, 0.61)]
    assert np.isnan(found.shares("spot")[0])
