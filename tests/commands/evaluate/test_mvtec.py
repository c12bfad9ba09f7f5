"""Folders in MVTec layout, and folders that are nearly so."""

import cv2
import numpy as np
import pytest

from backend.commands.evaluate.layouts import find_categories
from backend.commands.evaluate.masks import read_mask
from backend.common.errors import InvalidImage, InvalidRequest, TooLarge
from backend.utils import ImageLimits

LIMITS = ImageLimits(1 << 20, 1000)


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((4, 6), 255, np.uint8))


@pytest.fixture
def part(tmp_path):
    """A category of two training images, a good one, two scratched ones and a torn one; one scratch has a mask."""
    folder = tmp_path / "sets" / "part"
    write(*(folder / name for name in ("train/good/10.png", "train/good/2.png", "test/good/0.png", "test/torn/0.png")))
    write(*(folder / name for name in ("test/scratch/0.jpg", "test/scratch/1.png")))
    write(folder / "ground_truth" / "scratch" / "0_mask.png")
    return folder


def test_a_category_is_read_type_by_type_good_ones_first_in_natural_order(part):
    (category,) = find_categories(str(part))
    assert category.name == "part"
    assert [path.removeprefix(f"{part}/") for path in category.train] == ["train/good/2.png", "train/good/10.png"]
    assert [image.name for image in category.test] == ["good/0.png", "scratch/0.jpg", "scratch/1.png", "torn/0.png"]
    assert [image.is_defective for image in category.test] == [False, True, True, True]
    assert category.defects == ["scratch", "torn"]


def test_masks_are_found_by_the_name_of_their_image_whatever_its_extension(part):
    write(part / "ground_truth" / "torn" / "0.png")
    (category,) = find_categories(str(part))
    masks = [[mask.removeprefix(f"{part}/") for mask in image.masks] for image in category.test]
    assert masks == [[], ["ground_truth/scratch/0_mask.png"], [], ["ground_truth/torn/0.png"]]


def test_a_mask_of_no_image_is_ignored_and_counted(part):
    write(part / "ground_truth" / "scratch" / "7_mask.png")
    (part / "test" / "good" / "notes.txt").write_text("")
    (category,) = find_categories(str(part))
    assert category.n_ignored == 2


def test_odd_names_are_taken_as_they_are(part):
    write(
        part / "test" / 'a & "b" <c>' / "Nuß 100%#?.png", part / "ground_truth" / 'a & "b" <c>' / "Nuß 100%#?_mask.png"
    )
    (category,) = find_categories(str(part))
    odd = next(image for image in category.test if image.defect == 'a & "b" <c>')
    assert odd.name == 'a & "b" <c>/Nuß 100%#?.png'
    assert len(odd.masks) == 1


def test_hidden_folders_are_no_types(part):
    write(part / "test" / ".thumbnails" / "0.png")
    assert find_categories(str(part))[0].defects == ["scratch", "torn"]


def test_folder_of_categories_gives_them_in_natural_order_and_no_others(part):
    for name in ("part10", "part2"):
        write(*(part.parent / name / place / "0.png" for place in ("train/good", "test/good", "test/bad")))
    write(part.parent / "licences" / "0.png")
    assert [category.name for category in find_categories(str(part.parent))] == ["part", "part2", "part10"]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["train/good"], r"train/good: no such folder; a data set in MVTec layout has train/good, test/good"),
        (["test/good"], r"test/good: no such folder"),
        (["test/scratch", "test/torn"], r"test: no defective images; put them into .*test/TYPE"),
        (["train", "test"], r"neither the folder nor its subfolders have a known layout"),
    ],
)
@pytest.mark.parametrize("with_others", [False, True])
def test_what_is_missing_is_named(part, missing, message, with_others):
    if with_others and missing != ["train", "test"]:
        write(*(part.parent / "other" / place / "0.png" for place in ("train/good", "test/good", "test/bad")))
    for place in missing:
        (part / place).rename(part.parent.parent / place.replace("/", "-"))
    with pytest.raises(InvalidRequest, match=message):
        find_categories(str(part.parent if with_others else part))


def test_an_empty_folder_is_named(part):
    (part / "test" / "bent").mkdir()
    with pytest.raises(InvalidRequest, match="test/bent: no images in this folder"):
        find_categories(str(part))


def test_a_data_set_that_does_not_exist_is_named():
    with pytest.raises(InvalidRequest, match="nowhere: no such folder"):
        find_categories("nowhere")


def test_a_name_that_the_system_refuses_is_an_error_of_ours():
    with pytest.raises(InvalidRequest, match="the folder cannot be read"):
        find_categories("x" * 300)


@pytest.mark.parametrize("value", [1, 128, 255])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_pixel_that_is_not_zero_is_a_defect(tmp_path, value, channels):
    picture = np.zeros((5, 7, channels), np.uint8)
    picture[1, 2, 0] = value
    if channels == 4:
        picture[..., 3] = 255  # opaque, and no defect for that
    cv2.imwrite(str(tmp_path / "m.png"), picture)
    assert np.argwhere(read_mask(str(tmp_path / "m.png"), LIMITS)).tolist() == [[1, 2]]


def test_one_of_65535_is_a_defect_too(tmp_path):
    picture = np.zeros((5, 7), np.uint16)
    picture[4, 0] = 1
    cv2.imwrite(str(tmp_path / "m.png"), picture)
    assert np.argwhere(read_mask(str(tmp_path / "m.png"), LIMITS)).tolist() == [[4, 0]]


def test_a_mask_that_is_no_image_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InvalidImage, match=r"text\.png"):
        read_mask(str(tmp_path / "text.png"), LIMITS)


def test_the_pixels_of_a_mask_are_counted_before_it_is_decoded(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.full((100, 100), 255, np.uint8))
    with pytest.raises(TooLarge, match=r"large\.png"):
        read_mask(str(tmp_path / "large.png"), LIMITS)
