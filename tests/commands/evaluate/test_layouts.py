"""The layouts that `evaluate` reads: each is recognised by its structure, and what is not clear is refused."""

import cv2
import numpy as np
import pytest

from backend.commands.evaluate.dataset import say_category
from backend.commands.evaluate.layouts import category_of, find_categories
from backend.common.errors import InvalidRequest


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes small images below set/ in the working folder."""
    monkeypatch.chdir(tmp_path)

    def put(*names):
        for name in names:
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path.with_suffix(path.suffix.lower())), np.full((4, 6), 255, np.uint8))
            path.with_suffix(path.suffix.lower()).rename(path)

    return put


def only(dataset="set"):
    (category,) = find_categories(dataset)
    return category


def below(paths):
    return [path.removeprefix("set/") for path in paths]


def kinds(category):
    """Type and masks of each test image, by its path."""
    return {image.path.removeprefix("set/"): (image.defect, below(image.masks)) for image in category.test}


MVTEC_LIKE = {
    "MVTec AD": (
        ["train/good/000.png", "test/good/000.png", "test/crack/000.png", "ground_truth/crack/000_mask.png"],
        "test/crack/000.png",
        ("crack", ["ground_truth/crack/000_mask.png"]),
    ),
    "MVTec AD 2": (
        [
            *("train/good/000_regular.png", "validation/good/001_regular.png", "test_private/002_mixed.png"),
            *("test_public/good/003_shift.png", "test_public/bad/004_shift.png"),
            "test_public/ground_truth/bad/004_shift_mask.png",
        ],
        "test_public/bad/004_shift.png",
        ("bad", ["test_public/ground_truth/bad/004_shift_mask.png"]),
    ),
    "MVTec LOCO": (
        [
            *("train/good/000.png", "validation/good/000.png", "test/good/000.png", "test/logical_anomalies/000.png"),
            *(f"ground_truth/logical_anomalies/000/{number}.png" for number in ("000", "001", "002")),
        ],
        "test/logical_anomalies/000.png",
        ("logical_anomalies", [f"ground_truth/logical_anomalies/000/00{number}.png" for number in range(3)]),
    ),
    "BTAD": (
        ["train/ok/0000.bmp", "test/ok/0001.bmp", "test/ko/0002.bmp", "ground_truth/ko/0002.png"],
        "test/ko/0002.bmp",
        ("ko", ["ground_truth/ko/0002.png"]),
    ),
}


class TestLayoutsOfMvtec:
    @pytest.mark.parametrize("layout", MVTEC_LIKE)
    def test_each_is_recognised_with_its_masks_and_said(self, put, capsys, layout):
        names, defective, expected = MVTEC_LIKE[layout]
        put(*names)
        category = only()
        assert category.layout == layout
        assert below(category.train) == [name for name in names if name.startswith("train/")]
        images = kinds(category)
        assert images.pop(defective) == expected
        assert [kind for kind, _ in images.values()] == ["good"] * len(images)
        assert (category.unused_masks, category.remarks) == ((), ())
        say_category(category)
        assert f"set: read as {layout}\n  to fit on: 1 image in set/train/" in capsys.readouterr().err

    def test_names_of_folders_count_without_regard_to_case(self, put):
        put("Train/Good/0.png", "TEST/GOOD/1.png", "TEST/Crack/2.png", "Ground_Truth/CRACK/2_mask.png")
        assert kinds(only()) == {
            "TEST/GOOD/1.png": ("good", []),
            "TEST/Crack/2.png": ("Crack", ["Ground_Truth/CRACK/2_mask.png"]),
        }

    def test_visa_as_it_is_prepared_for_training(self, put):
        put("train/good/0.JPG", "test/good/1.JPG", "test/bad/002.JPG", "ground_truth/bad/002.png")
        assert kinds(only())["test/bad/002.JPG"] == ("bad", ["ground_truth/bad/002.png"])

    def test_what_is_not_used_is_named_with_its_images(self, put, capsys):
        put("train/good/0.png", "train/bad/1.png", "test/good/2.png", "test/bad/3.png", "validation/good/4.png")
        put("validation/good/5.png", "test/@eaDir/3.png", "train/good/@eaDir/0.png")
        category = only()
        say_category(category)
        said = capsys.readouterr().err
        assert "  not used: set/validation (2 images)\n  not used: set/train/bad (1 image)\n" in said
        assert category.defects == ["bad"]
        assert below(category.train) == ["train/good/0.png"]
        assert "ignored: 1 system or hidden folder (set/train/good/@eaDir)" in said

    def test_bad_parts_among_the_training_images_are_refused(self, put):
        put("train/good/0.png", "train/good/ng/1.png", "test/good/2.png", "test/bad/3.png")
        with pytest.raises(InvalidRequest, match=r"1 image in set/train/good/ng: .* or rename them"):
            find_categories("set")

    def test_two_folders_that_may_both_be_meant_are_refused(self, put):
        put("train/good/0.png", "train/ok/0.png", "test/good/2.png", "test/bad/3.png")
        with pytest.raises(
            InvalidRequest, match="set/train: good and ok both have a suitable name; rename one of them, or name"
        ):
            find_categories("set")

    def test_what_is_missing_is_named_with_what_was_found(self, put):
        put("train/0.png", "train/1.png", "train/lot/0.png", "test/good/0.png", "test/bad/0.png")
        with pytest.raises(
            InvalidRequest, match=r"set/train holds 2 images, lot \(1 image\)\. For another layout, name"
        ):
            find_categories("set")


class TestTwoFolders:
    def test_the_last_fifth_of_the_good_images_is_the_test_and_said(self, put, capsys):
        put(*(f"good/{number}.png" for number in range(1, 13)), "bad/1.png", "masks/1_mask.png")
        category = only()
        assert below(category.train) == [f"good/{number}.png" for number in range(1, 11)]
        assert kinds(category) == {
            "good/11.png": ("good", []),
            "good/12.png": ("good", []),
            "bad/1.png": ("bad", ["masks/1_mask.png"]),
        }
        assert [image.name for image in category.test] == ["good/11.png", "good/12.png", "bad/1.png"]
        say_category(category)
        said = capsys.readouterr().err
        assert "set: read as good parts beside defective ones" in said
        assert "set: the data set has no training images of its own: the first 10 good images" in said

    @pytest.mark.parametrize(("n_good", "n_test"), [(2, 1), (4, 1), (9, 1), (10, 2), (100, 20)])
    def test_there_is_one_to_test_at_least(self, put, n_good, n_test):
        put(*(f"good/{number}.png" for number in range(n_good)), "bad/1.png")
        category = only()
        assert (len(category.train), len(category.test)) == (n_good - n_test, n_test + 1)

    def test_one_good_image_is_too_few(self, put):
        put("good/1.png", "bad/1.png")
        with pytest.raises(InvalidRequest, match="1 good image: too few to fit on some and judge others"):
            find_categories("set")

    def test_every_other_folder_with_images_is_a_type(self, put, tmp_path):
        put("OK/1.png", "OK/2.png", "Dull/1.png", "bent/lot1/1.png", "ground_truth/bent/lot1/1.png", "@eaDir/1.png")
        (tmp_path / "set" / "docs").mkdir()
        category = only()
        assert category.defects == ["bent", "Dull"]
        assert kinds(category)["bent/lot1/1.png"] == ("bent", ["ground_truth/bent/lot1/1.png"])

    @pytest.mark.parametrize("name", ["good_masks", "good2", "test_old", "labels"])
    def test_a_folder_that_is_no_type_by_its_name_is_refused(self, put, name):
        put("good/1.png", "good/2.png", "bad/1.png", f"{name}/1.png", f"{name}/2.png")
        with pytest.raises(InvalidRequest) as refused:
            find_categories("set")
        assert f"set: the name of {name}, beside good, is not a type of defect" in str(refused.value)
        assert f"{name} (2 images)" in str(refused.value)
        assert "--good, --bad and --masks" in str(refused.value)

    def test_without_defective_images_it_says_where_they_belong(self, put):
        put("good/1.png", "good/2.png")
        with pytest.raises(InvalidRequest, match=r"set: no defective images; .* such as set/bad"):
            find_categories("set")

    def test_a_mask_of_images_of_two_types_is_refused(self, put):
        put("good/1.png", "good/2.png", "bent/1.png", "torn/1.png", "masks/1.png")
        with pytest.raises(
            InvalidRequest, match=r"set/masks/1\.png would be the mask of set/bent/1\.png and of set/torn"
        ):
            find_categories("set")


class TestVisa:
    def test_the_published_folders_are_read(self, put, capsys):
        put(*(f"candle/Data/Images/Normal/{number:04}.JPG" for number in range(10)))
        put("candle/Data/Images/Anomaly/000.JPG", "candle/Data/Masks/Anomaly/000.png", "split_csv/x.png")
        category = only()
        assert (category.name, category.layout, len(category.train)) == ("candle", "VisA", 8)
        assert kinds(category)["candle/Data/Images/Anomaly/000.JPG"] == (
            "Anomaly",
            ["candle/Data/Masks/Anomaly/000.png"],
        )
        assert [image.name for image in category.test] == ["Normal/0008.JPG", "Normal/0009.JPG", "Anomaly/000.JPG"]
        say_category(category)
        said = capsys.readouterr().err
        assert "split_csv of VisA is not read, so published results use another split" in said
        assert "not used" not in said
        assert only("set/candle") == category


class TestSeveralCategories:
    def test_each_may_have_a_layout_of_its_own(self, put):
        put("b/train/good/0.png", "b/test/good/0.png", "b/test/bad/0.png", "a/good/1.png", "a/good/2.png", "a/ng/1.png")
        assert [(category.name, category.layout) for category in find_categories("set")] == [
            ("a", "good parts beside defective ones"),
            ("b", "MVTec AD"),
        ]

    def test_a_folder_without_a_known_layout_is_refused_with_what_it_holds(self, put):
        put("lot1/0.png", "lot1/1.png", "lot2/0.png", "0.png")
        with pytest.raises(InvalidRequest) as refused:
            find_categories("set")
        assert "set holds 1 image, lot1 (2 images), lot2 (1 image)." in str(refused.value)
        assert "MVTec AD, AD 2 and LOCO, VisA and BTAD" in str(refused.value)
        assert "--good, --bad and --masks" in str(refused.value)


class TestFoldersThatAreNamed:
    def test_each_folder_is_a_type_and_masks_are_found_by_it(self, put):
        put("a/fine/1.png", "a/fine/2.png", "b/bent/1.png", "c/bent/2.png", "c/torn/1.png")
        put("drawn/bent/1_mask.png", "drawn/bent/2.png", "drawn/torn/1.png", "drawn/torn/9.png")
        category = category_of(["set/a/fine"], ["set/b/bent", "set/c/bent/", "set/c/torn/1.png"], masks="set/drawn")
        assert category.name == "a"
        assert below(category.train) == ["a/fine/1.png"]
        assert kinds(category) == {
            "a/fine/2.png": ("good", []),
            "b/bent/1.png": ("bent", ["drawn/bent/1_mask.png"]),
            "c/bent/2.png": ("bent", ["drawn/bent/2.png"]),
            "c/torn/1.png": ("torn", ["drawn/torn/1.png"]),
        }
        assert category.unused_masks == ("set/drawn/torn/9.png",)
        assert category.test[0].name == "set/a/fine/2.png"

    def test_training_images_that_are_named_leave_the_good_ones_whole(self, put):
        put("fit/1.png", "good/1.png", "good/2.png", "bad/1.png")
        category = category_of(["set/good"], ["set/bad"], ["set/fit"])
        assert below(category.train) == ["fit/1.png"]
        assert list(kinds(category)) == ["good/1.png", "good/2.png", "bad/1.png"]
        assert category.remarks == ()

    @pytest.mark.parametrize(
        ("named", "says"),
        [
            ({"good": ["set/a"], "bad": ["set/a"]}, r"set/a/1\.png is given twice, as good and as a"),
            ({"good": ["set/a"], "bad": ["set/good"]}, "--bad set/good: the type of a defect cannot be called good"),
            ({"good": ["set/a"], "bad": ["set/b"], "train": ["set/a"]}, "given twice, as to fit on and as good"),
            ({"good": ["set/a"], "bad": ["set/b"], "masks": "set/m"}, "--masks set/m: no such folder"),
            (
                {"good": ["set"], "bad": ["set/b"]},
                "images? in set/.*: the names of the folders suggest that these are not good",
            ),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, put, named, says):
        put("a/1.png", "a/2.png", "b/1.png", "good/1.png")
        with pytest.raises(InvalidRequest, match=says):
            category_of(**named)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ((), "give DATASET, or both --good and --bad"),
            (("--good", "set/a"), "give DATASET, or both --good and --bad"),
            (
                ("set", "--good", "set/a", "--bad", "set/b"),
                "give either DATASET, or --good, --bad, --train and --masks",
            ),
            (("set", "--masks", "set/a"), "give either DATASET, or"),
        ],
    )
    def test_the_command_takes_a_data_set_or_folders(self, put, command_line, arguments, says):
        put("a/1.png", "b/1.png")
        status, _, err = command_line("evaluate", *arguments)
        assert (status, err.count("\n")) == (2, 1)
        assert says in err
