"""Folders and files that a pattern such as ``parts/*`` names, so that nobody has looked at each of them."""

import pytest

from backend.commands.folders import DEFECTIVE_PARTS


@pytest.mark.parametrize("other", ["bad", "test", "NOK 2", "@eaDir", "$RECYCLE.BIN", "labels"])
def test_what_lies_beside_good_parts_is_none_though_it_is_named(refusal, other):
    files = ["parts/good/1.png", "parts/good/2.png", f"parts/{other}/1.png", f"parts/{other}/a/2.png"]
    said = refusal(files, ["parts/good", f"parts/{other}"])
    assert said.startswith(f"2 images in parts/{other}: the names of the folders suggest that these are not good parts")
    assert "such as parts/good" in said
    assert "--any-folder" in said


@pytest.mark.parametrize(
    "paths",
    [["parts/bad"], ["parts/lot 7", "parts/bad"], ["parts/good", "parts/lot 7"], ["parts/good", "others/bad"]],
    ids=" ".join,
)
def test_folders_that_nobody_contradicts_are_taken_as_meant(refusal, paths):
    files = [f"{path}/1.png" for path in ("parts/good", "parts/bad", "parts/lot 7", "others/bad")]
    assert refusal(files, paths) is None


def test_good_parts_beside_defective_ones_are_no_defective_ones(refusal):
    said = refusal(["parts/good/1.png", "parts/bad/1.png"], ["parts/good", "parts/bad"], DEFECTIVE_PARTS)
    assert said.startswith("1 image in parts/good: the names of the folders suggest that these are not defective parts")


@pytest.mark.parametrize("mask", ["7_mask.png", "7_GT.bmp"])
def test_masks_are_refused_where_they_are_named_with_their_images(refusal, mask):
    said = refusal(["a/7.jpg", "a/8.jpg", f"a/{mask}"], ["a/7.jpg", "a/8.jpg", f"a/{mask}"])
    assert said.startswith(f"1 file (a/{mask}): their names suggest that these are masks, not good parts")


def test_a_file_that_is_named_without_the_image_of_its_name_is_taken(refusal):
    assert refusal(["a/7.jpg", "a/7_mask.png"], ["a/7_mask.png"]) is None
