"""Training images among the test images of a data set are named."""

import json

import cv2
import pytest

from backend.commands.evaluate import evaluation
from backend.common.config import Settings

pytestmark = pytest.mark.slow


@pytest.fixture
def part(small_features, images, tmp_path, monkeypatch):
    """A data set of different images."""
    places = ["train/good/0.png", "train/good/1.png", "test/good/0.png", "test/bad/0.png"]
    for place, image in zip(places, images, strict=False):
        (tmp_path / "part" / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "part" / place), cv2.resize(image, (200, 160), interpolation=cv2.INTER_AREA))
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "open_features", lambda settings, profile: (small_features, None))
    return tmp_path / "part"


def evaluated(part, command_line):
    status, printed, err = command_line("evaluate", "part", "--out", "out")
    assert status == 0, err
    out = part.parent / "out"
    (category,) = json.loads((out / "results.json").read_text())["categories"]
    return category, printed, (out / "report.html").read_text()


def test_sets_without_training_images_in_the_test_have_no_remark(part, command_line):
    category, printed, page = evaluated(part, command_line)
    assert "remarks" not in category
    assert [image["trained_as"] for image in category["images"]] == [None, None]
    assert "training images too" not in printed + page


def test_training_image_in_another_format_is_named_in_every_result(part, command_line):
    image = cv2.imread(str(part / "train/good/1.png"))
    cv2.imwrite(str(part / "test/good/copy.bmp"), image)
    category, printed, page = evaluated(part, command_line)
    sentence = "1 of 3 test images are training images too (test/good/copy.bmp is part/train/good/1.png)"
    assert [sentence in remark for remark in category["remarks"]] == [True]
    assert sentence in printed
    assert sentence in page
    trained = {image["name"]: image["trained_as"] for image in category["images"]}
    assert trained == {"good/0.png": None, "good/copy.bmp": "part/train/good/1.png", "bad/0.png": None}


def test_images_that_look_nearly_the_same_as_training_images_are_named(part, command_line):
    image = cv2.imread(str(part / "train/good/1.png"))
    cv2.imwrite(str(part / "test/good/again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(part / "test/good/copy.bmp"), image)
    category, printed, page = evaluated(part, command_line)
    sentence = (
        "1 test image looks nearly the same as training images (test/good/again.jpg and part/train/good/1.png): if "
        "they show the same part, they score too low"
    )
    assert [sentence in remark for remark in category["remarks"]] == [False, True]
    assert sentence in printed
    assert sentence in page


def test_near_copies_among_training_images_make_the_threshold_doubtful(part, command_line):
    image = cv2.imread(str(part / "train/good/1.png"))
    cv2.imwrite(str(part / "train/good/again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(part / "train/good/copy.bmp"), image)  # counts as one, so there is nothing to say
    (remark,) = evaluated(part, command_line)[0]["remarks"]
    assert remark.startswith("1 pair of training images looks nearly the same (part/train/good/1.png and ")
    assert remark.endswith("part/train/good/again.jpg): if they show the same part, the threshold is too low")
