"""Pictures show the regions that count, and a page names only what its pictures show."""

import base64

import cv2
import numpy as np

from backend.commands.report.pictures import draw, scale_of
from tests.commands.report.sections import html, section


def outlined(least_area_px):
    """Whether the picture of a small region and a large one, shows the colour of outlines: [small, large]."""
    distances = np.zeros((20, 20), np.float32)
    distances[2:4, 2:4] = distances[8:16, 8:16] = 1
    image = np.full((80, 80, 3), 128, np.uint8)
    text = draw(image, distances, scale_of([distances], 0.9), 0.9, 0, least_area_px=least_area_px).regions
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(text.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    colourful = np.ptp(picture.astype(int), axis=2) > 60
    return [bool(colourful[4:20, 4:20].any()), bool(colourful[28:68, 28:68].any())]


def test_regions_below_the_least_area_are_not_drawn():
    assert outlined(0) == [True, True]
    assert outlined(100) == [False, True]
    assert outlined(5000) == [False, False]


def test_ground_truth_is_named_only_where_pictures_show_it():
    assert "ground truth" in html(section(has_truth=True))
    assert "ground truth" not in html(section())
