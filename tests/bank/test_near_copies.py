"""Near copies: a JPEG of an image, the same part a pixel to the right. Images of two parts are none."""

import importlib.util
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.bank.copies import Copies, Look, copies_warning, first_copies, near_copies
from tests.factories import SHARED

pytestmark = pytest.mark.slow

# Beside the solar cells of a package: the data sets that are there.
DATA_SETS = [
    SHARED / "data" / name
    for name in ("elpv_mono", "hazelnut", "cookie", "alien", "magnetic_tile")
    if (SHARED / "data" / name).is_dir()
]


def cell_files(count):
    """Good solar cells of one kind, which look much alike: 300 by 300 pixels."""
    package = importlib.util.find_spec("elpv_dataset")
    assert package is not None, "pip install -r requirements/dev.txt"
    data = Path(package.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    return [data / name for name, probability, kind in rows if kind == "mono" and float(probability) == 0][:count]


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def shifted(image, x, y):
    move = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(image, move, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def pairs_of(images):
    return list(near_copies([Look.of(image) for image in images]))


CHANGES = {
    "JPEG of quality 80": lambda image: jpeg(image, 80),
    "JPEG of quality 95": lambda image: jpeg(image, 95),
    "a pixel to the right": lambda image: shifted(image, 1, 0),
    "a pixel aslant": lambda image: shifted(image, 1, 1),
    "two grey levels brighter": lambda image: cv2.add(image, np.full_like(image, 2)),
    "noise of two grey levels": lambda image: np.clip(
        image + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255
    ).astype(np.uint8),
    "BMP of another size": lambda image: cv2.resize(image, (280, 280), interpolation=cv2.INTER_AREA),
}


@pytest.fixture(scope="module")
def parts():
    return [cv2.imread(str(path)) for path in cell_files(40)]


@pytest.mark.parametrize("change", CHANGES)
def test_copy_of_each_cell_is_found_and_no_other_cell(parts, change):
    copies = [CHANGES[change](part) for part in parts]
    assert pairs_of([*parts, *copies]) == [(number, number + len(parts)) for number in range(len(parts))]


def test_same_pixels_are_no_near_copy_and_count_as_the_first_of_them(parts):
    copy = jpeg(parts[0], 80)
    assert pairs_of([parts[0], parts[0]]) == []
    assert pairs_of([parts[1], parts[0], parts[0], copy, copy]) == [(1, 3)]


@pytest.mark.parametrize("level", [0, 100, 255])
def test_images_that_show_nothing_are_no_copies_of_one_another(level):
    noise = np.random.default_rng(0).integers(0, 3, (4, 64, 64, 3))
    plain = [np.clip(level + part, 0, 255).astype(np.uint8) for part in noise]
    assert pairs_of([*plain, np.full((64, 64, 3), level, np.uint8)]) == []


def test_parts_that_have_only_their_shading_in_common_are_no_copies():
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    shading = 180 - 60 * (x**2 + y**2) + 20 * x
    rng = np.random.default_rng(0)
    sheets = [
        np.clip(shading + cv2.GaussianBlur(rng.normal(0, 30, (300, 300)), (0, 0), 6), 0, 255).astype(np.uint8)
        for _ in range(12)
    ]
    assert pairs_of([cv2.cvtColor(sheet, cv2.COLOR_GRAY2BGR) for sheet in sheets]) == []


def test_more_images_than_are_compared_at_once_give_the_same_pairs(parts, monkeypatch):
    images = [*parts, *(jpeg(part, 80) for part in parts[::3])]
    expected = pairs_of(images)
    monkeypatch.setattr("backend.bank.copies._ROWS_AT_ONCE", 7)
    assert pairs_of(images) == expected
    assert len(expected) == 14


def test_groups_are_of_all_that_are_joined_by_pairs():
    identities = ["a", "b", "c", "d", "e", "c"]
    assert first_copies(identities, []) == identities
    assert first_copies(identities, [(2, 4), (3, 4)]) == ["a", "b", "c", "c", "c", "c"]
    assert first_copies(identities, [(3, 4), (0, 1), (1, 3)]) == ["a", "a", "c", "a", "a", "c"]


def test_warning_names_five_pairs_and_counts_the_rest():
    names = [f"{number}.png" for number in range(9)]
    none, pair, pairs = (Copies.of(names, [(0, number) for number in range(1, 1 + n)]) for n in (0, 1, 8))
    assert copies_warning(names, none, grouped=False) is None
    one = copies_warning(names, pair, grouped=False)
    assert one.startswith("1 pair of images looks nearly the same (0.png and 1.png): if they show the same part,")
    many = copies_warning(names, pairs, grouped=False)
    assert "8 pairs of images look nearly the same (0.png and 1.png, " in many
    assert "0.png and 5.png, 3 more)" in many
    assert "6.png" not in many
    assert "group_copies" in many
    assert "count once" in copies_warning(names, pair, grouped=True)


def images_of(data_set):
    files = sorted(path for path in data_set.rglob("*") if path.suffix in (".png", ".jpg"))
    return [path for path in files if "ground_truth" not in path.parts]


@pytest.mark.parametrize("data_set", [None, *DATA_SETS], ids=lambda data_set: data_set.name if data_set else "cells")
def test_no_two_parts_are_copies_and_every_jpeg_is(data_set):
    files = images_of(data_set) if data_set else cell_files(400)
    assert len(files) > 50
    images = [cv2.imread(str(path)) for path in files]
    n = len(images)
    pairs = pairs_of([*images, *(jpeg(image, 80) for image in images)])
    assert {(number, number + n) for number in range(n)} <= set(pairs)
    for first, second in pairs:
        if second < n:
            assert same_tile(files[first].stem, files[second].stem), f"{files[first]} and {files[second]}"


def same_tile(first, second):
    """Whether two images of magnetic_tile are frames of one tile, taken one after the other at six exposures.

    One tile was taken twice, some thousand frames apart.
    """
    numbers = [re.fullmatch(r"exp\d_num_(\d+)", name) for name in (first, second)]
    if not all(numbers):
        return False
    one, other = (int(number[1]) for number in numbers)
    return abs(one - other) <= 160 or all(85600 <= number <= 86860 for number in (one, other))
