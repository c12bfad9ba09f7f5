"""The crop that the existing GUI makes: whole pixels where nothing is turned, black beyond, and smaller at borders."""

import cv2
import numpy as np
import pytest

from backend.commands.watch.crop import Roi
from backend.commands.watch.gui_crop import gui_crop, warp_affine
from backend.commands.watch.pictures import cut_roi, open_picture


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)


def test_without_a_turn_it_takes_the_pixels_as_they_are(image):
    cut, shape = gui_crop(image, Roi("rect", 40, 30, w=20, h=10, crop="gui"))
    assert np.array_equal(cut, image[25:35, 30:50])
    assert shape is None


@pytest.mark.parametrize("angle", [30, -17.3, 90, 211])
def test_a_turned_crop_is_that_of_the_whole_picture_turned(image, angle):
    matrix = cv2.getRotationMatrix2D((40, 30), angle, 1.0)
    cut, _ = gui_crop(image, Roi("rect", 40, 30, w=20, h=10, angle_deg=angle, crop="gui"))
    assert np.array_equal(cut, warp_affine(image, matrix)[25:35, 30:50])
    opencv = cv2.warpAffine(image, matrix, (80, 60))[25:35, 30:50]
    assert np.abs(cut.astype(int) - opencv).max() <= 8  # of noise; 1/32 of a pixel is a 64th to each side


def test_beyond_the_picture_it_is_black(image):
    turned = warp_affine(image, np.array([[1.0, 0, 100_000], [0, 1, 0]]))
    assert not turned.any()


def test_at_borders_it_shrinks_or_moves_and_circles_shrink_with_it(image):
    cut, shape = gui_crop(image, Roi("annulus", 75, 30, r=10, r_inner=4, crop="gui"))
    assert cut.shape[:2] == (20, 15)
    assert shape == {"kind": "annulus", "cx": 7.5, "cy": 10, "r": 7.5, "r_inner": 3}
    cut, shape = gui_crop(image, Roi("circle", 4, 30, r=10, crop="gui"))
    assert np.array_equal(cut, image[20:40, :20])
    assert shape == {"kind": "circle", "cx": 10, "cy": 10, "r": 10}


def test_a_picture_is_cut_as_its_roi_says_and_nothing_is_refused(image):
    picture = open_picture(cv2.imencode(".png", image)[1].tobytes(), "part.png")
    roi = Roi("circle", 75, 30, r=10, angle_deg=30, crop="gui")
    crop = cut_roi(picture, roi)
    expected, shape = gui_crop(image, roi)
    assert np.array_equal(cv2.imdecode(np.frombuffer(crop.content, np.uint8), cv2.IMREAD_COLOR), expected)
    assert crop.shape == shape
