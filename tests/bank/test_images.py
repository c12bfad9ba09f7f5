"""What a bank remembers of its images: scores, thumbnails, and which of them are suspicious."""

import json

import cv2
import numpy as np
import pytest

from backend.bank.images import BankImage, recorded_images, suspicious_images, thumbnail
from backend.common.errors import DamagedMemory


def test_too_few_or_unscored_images_are_not_suspected():
    images = [BankImage(f"{n}.png", f"{n}", 1, 1, 0, None, {"99": 0.5}) for n in range(4)] + [
        BankImage("x.png", "x", 1, 1, 0, None, {})
    ]
    assert suspicious_images([*images, BankImage("y.png", "y", 1, 1, 0, None, {"98": 2.0})], 99) == []
    assert [
        found.index for found in suspicious_images([BankImage("z.png", "z", 1, 1, 0, None, {"99": 0.9})], 99, images)
    ] == [0]


def test_a_score_is_that_of_its_percentile_to_the_last_digit():
    image = BankImage("a.png", "0", 1, 1, None, None, {"99": 0.4, "99.5": 0.5, "99.99996": 0.6})
    assert [image.score(percent) for percent in (99, 99.0, 99.5, 99.99996)] == [0.4, 0.4, 0.5, 0.6]
    assert [image.score(percent) for percent in (100, 99.0000001)] == [None, None]


def test_thumbnails_are_small_and_keep_the_aspect_of_the_image():
    for height, width in [(2000, 1000), (100, 50), (3, 3000)]:
        small = cv2.imdecode(np.frombuffer(thumbnail(np.zeros((height, width, 3), np.uint8)), np.uint8), 1)
        scale = min(1, 384 / max(height, width))
        assert small.shape[:2] == (max(1, round(height * scale)), max(1, round(width * scale)))


@pytest.mark.parametrize(
    "images",
    [
        "x",
        [1],
        [{"name": "a"}],
        [{"name": "a", "sha256": "b", "height": 0, "width": 1, "n_unique": 0, "shape": None, "scores": {}}],
        [
            {
                "name": "a",
                "sha256": "b",
                "height": 1,
                "width": 1,
                "n_unique": 0,
                "shape": None,
                "scores": {"99": float("nan")},
            }
        ],
    ],
)
def test_damaged_words_about_the_images_are_an_error(images):
    with pytest.raises(DamagedMemory):
        recorded_images({"images": json.loads(json.dumps(images))})
