"""Folders of masks that the command line names itself: no parts, though other folders named so are taken as meant."""

import pytest

from backend.commands.folders import DEFECTIVE_PARTS, GOOD_PARTS


@pytest.mark.parametrize("parts", [GOOD_PARTS, DEFECTIVE_PARTS])
@pytest.mark.parametrize("path", ["mv/ground_truth", "./mv/../mv/ground_truth/"])
def test_ground_truth_is_refused_when_it_is_named_itself(refusal, path, parts):
    said = refusal(["mv/ground_truth/crack/0_mask.png", "mv/ground_truth/hole/000/000.png"], [path], parts)
    assert said.startswith(
        f"2 images in {path.rstrip('/').removeprefix('./')}: the names of the folders suggest that these are not"
    )
    assert "--any-folder" in said


@pytest.mark.parametrize("name", ["masks", "GroundTruth", "my_segmentation", "Máscaras"])
def test_other_names_of_masks_are_refused_too(refusal, name):
    assert f"1 image in {name}: the names" in refusal([f"{name}/1.png"], [name])


@pytest.mark.parametrize("ending", ["_mask", "-MASK", "_GT", "_ground_truth"])
def test_a_folder_of_files_that_are_all_masks_is_refused(refusal, ending):
    files = [f"ground_truth/crack/{number}{ending}.png" for number in range(3)]
    said = refusal(files, ["ground_truth/crack"])
    assert said.startswith(f"3 files ({files[0]}, ")
    assert "their names suggest that these are masks, not good parts" in said


@pytest.mark.parametrize("folder", ["bad", "test", "labels", "GT", "lot 7"])
def test_folders_of_other_names_are_taken_as_meant(refusal, folder):
    assert refusal([f"{folder}/1.png", f"{folder}/2_mask.png", f"{folder}/a/1_label.png"], [folder]) is None


def test_a_folder_below_one_of_masks_that_is_named_itself_counts(refusal):
    files = ["masks/good/1.png", "masks/2.png"]
    assert refusal(files, ["masks/good"]) is None
    assert "1 image in masks: the names" in refusal(files, ["masks", "masks/good"])


def test_files_that_are_named_themselves_are_taken(refusal):
    assert refusal(["ground_truth/1_mask.png"], ["ground_truth/1_mask.png"]) is None
