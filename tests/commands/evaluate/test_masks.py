"""Ground-truth masks as people have them: each marks the same pixels, and what marks the wrong ones is said."""

import json

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from backend.commands.evaluate import evaluation
from backend.commands.evaluate.layouts import find_categories
from backend.commands.evaluate.masks import read_mask, read_masks
from backend.common.config import Settings
from backend.common.errors import InvalidRequest
from backend.infer import to_image_grid
from backend.patchcore import PatchCoreMemory
from backend.utils import ImageLimits

LIMITS = ImageLimits(1 << 20, 1 << 20)
HW = (60, 80)
MARKED = np.zeros(HW, bool)
MARKED[17:40, 21:50] = True
GREY = 255 * MARKED.astype(np.uint8)


def bgra(colour, alpha):
    return np.dstack([np.broadcast_to(np.asarray(colour, np.uint8), (*HW, 3)), alpha])


def drawn(colour, ground):
    """Colours of a drawing: uint8 [H, W, 3]."""
    return np.where(MARKED[..., None], colour, ground).astype(np.uint8)


# How a mask may be drawn, and the file's ending.
DRAWN = {
    "white on black": (GREY, ".png"),
    "1 on 0": (MARKED.astype(np.uint8), ".png"),
    "1 of 65535": (MARKED.astype(np.uint16), ".png"),
    "a bitmap": (GREY, ".bmp"),
    "red on black": (drawn((0, 0, 255), (0, 0, 0)), ".png"),
    "opaque": (bgra(drawn((255, 255, 255), (0, 0, 0)), np.full(HW, 255, np.uint8)), ".png"),
    "alpha over black": (bgra((0, 0, 0), GREY), ".png"),
    "alpha over white": (bgra((255, 255, 255), GREY), ".png"),
    "faint alpha": (bgra((255, 255, 255), MARKED.astype(np.uint8)), ".png"),
    "red on transparent black": (bgra(drawn((0, 0, 255), (0, 0, 0)), GREY), ".png"),
    "black on transparent white": (bgra(drawn((0, 0, 0), (255, 255, 255)), GREY), ".png"),
    "two colours on transparent white": (
        bgra(np.where(np.arange(80)[:, None] > 30, drawn((9, 9, 9), 255), drawn((9, 255, 9), 255)), GREY),
        ".png",
    ),
    "a good JPEG": (GREY, ".jpg"),
    "a WebP": (cv2.cvtColor(GREY, cv2.COLOR_GRAY2BGR), ".webp"),
}


def write(path, picture, *options):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture, options)


@pytest.mark.parametrize("name", DRAWN)
def test_however_a_mask_is_drawn_it_marks_the_same_pixels(tmp_path, name):
    picture, suffix = DRAWN[name]
    write(tmp_path / f"m{suffix}", picture)
    np.testing.assert_array_equal(read_mask(str(tmp_path / f"m{suffix}"), LIMITS), MARKED)


@pytest.mark.parametrize("quality", [20, 50, 95])
def test_noise_of_a_jpeg_beside_a_defect_is_no_defect(tmp_path, quality):
    write(tmp_path / "m.jpg", GREY, cv2.IMWRITE_JPEG_QUALITY, quality)
    stored = cv2.imread(str(tmp_path / "m.jpg"), cv2.IMREAD_GRAYSCALE)
    assert (stored[~MARKED] > 0).any(), "or nothing is proven"
    np.testing.assert_array_equal(read_mask(str(tmp_path / "m.jpg"), LIMITS), MARKED)


@pytest.mark.parametrize(("value", "marks"), [(0, False), (126, False), (130, True), (255, True)])
def test_a_jpeg_marks_from_half_on(tmp_path, value, marks):
    write(tmp_path / "m.jpg", np.full(HW, value, np.uint8), cv2.IMWRITE_JPEG_QUALITY, 100)
    assert read_mask(str(tmp_path / "m.jpg"), LIMITS).all() == marks


def test_several_masks_are_united_and_must_have_one_size(tmp_path):
    left, right = GREY.copy(), GREY.copy()
    left[:, 30:], right[:, :30] = 0, 0
    for name, picture in (("left", left), ("right", right), ("odd", GREY[1:])):
        write(tmp_path / f"{name}.png", picture)
    paths = [str(tmp_path / f"{name}.png") for name in ("left", "right", "odd")]
    np.testing.assert_array_equal(read_masks(paths[:2], LIMITS), MARKED)
    with pytest.raises(
        InvalidRequest, match=r"odd\.png: the mask has 80x59 pixels, another of the same image, .* has 80x60"
    ):
        read_masks(paths, LIMITS)


@pytest.fixture
def part(tmp_path, monkeypatch, features):
    """part/ in the working folder: woven images, of which two have a blot where `MARKED` says so; no masks."""
    rng = np.random.default_rng(7)

    def weave():
        rows, columns = np.indices(HW)
        return np.clip(120 + 50 * np.sin(rows / 2) * np.sin(columns / 2) + rng.normal(0, 6, HW), 0, 255)

    for name in ("train/good/0", "train/good/1", "train/good/2", "test/good/0", "test/good/1"):
        write(tmp_path / "part" / f"{name}.png", weave().astype(np.uint8))
    for name in ("test/blot/0", "test/blot/1"):
        write(tmp_path / "part" / f"{name}.png", np.where(MARKED, 25, weave()).astype(np.uint8))
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "open_features", lambda settings, profile: (features, None))
    return tmp_path / "part"


@pytest.fixture
def run(part, command_line):
    """Evaluates; gives stdout, stderr, and the only category of the results."""

    def run(*arguments):
        status, out, err = command_line("evaluate", *(arguments or ("part",)), "--out", "out")
        assert status == 0, err
        (category,) = json.loads((part.parent / "out" / "results.json").read_text())["categories"]
        return out, err, category

    return run


def pixel_auroc(part, features, marked):
    """Of every pixel, by scikit-learn; `marked` has a mask for each defective image, or None."""

    def tokens(path):
        return features.extract(cv2.imread(str(path)))[0]

    training = np.concatenate([tokens(path) for path in sorted((part / "train/good").iterdir())])
    bank = PatchCoreMemory.build(training, features.token_hw, 0.02)
    cases = [(path, np.zeros(HW, bool)) for path in sorted((part / "test/good").iterdir())]
    cases += zip(sorted((part / "test/blot").iterdir()), marked, strict=True)
    cases = [(path, mask) for path, mask in cases if mask is not None]
    values = [to_image_grid(bank.distances(tokens(path)).reshape(bank.token_hw), HW, 1.0).ravel() for path, _ in cases]
    return roc_auc_score(np.concatenate([mask.ravel() for _, mask in cases]), np.concatenate(values))


def found(category):
    return category["groups"][0]["pixel_auroc"]["value"]


class TestPixelAuroc:
    @pytest.mark.parametrize(
        "name", ["white on black", "alpha over black", "alpha over white", "a good JPEG", "a WebP"]
    )
    def test_it_is_that_of_every_pixel_however_masks_are_drawn(self, run, part, features, name):
        picture, suffix = DRAWN[name]
        for number in (0, 1):
            write(part / "ground_truth" / "blot" / f"{number}_mask{suffix}", picture)
        _, err, category = run()
        exact = pixel_auroc(part, features, [MARKED, MARKED])
        assert exact > 0.9, "the blot is found, or a wrong mask would cost nothing"
        assert found(category) == pytest.approx(exact, abs=1e-5)
        assert category["groups"][0]["n_masks"] == 2
        assert "remarks" not in category
        assert "blot: 2 images in part/test/blot, 2 with a mask" in err

    @pytest.mark.parametrize(
        "mask",
        [
            "ground_truth/blot/{}_MASK.png",
            "Ground_Truth/Blot/{}.png",
            "ground_truth/{}_gt.png",
            "ground_truth/blot/{}/0.png",
        ],
    )
    def test_masks_are_found_under_the_names_that_people_give(self, run, part, features, mask):
        for number in (0, 1):
            write(part / mask.format(number), GREY)
        _, err, category = run()
        assert found(category) == pytest.approx(pixel_auroc(part, features, [MARKED, MARKED]), abs=1e-5)
        assert "not used" not in err

    def test_an_upper_case_extension_is_one(self, run, part):
        for number in (0, 1):
            write(part / "ground_truth/blot" / f"{number}.png", GREY)
            (part / "ground_truth/blot" / f"{number}.png").rename(part / "ground_truth/blot" / f"{number}_MASK.PNG")
        assert run()[2]["groups"][0]["n_masks"] == 2

    def test_masks_beside_their_images_are_masks_and_no_images(self, run, part, features):
        for number in (0, 1):
            write(part / "test/blot" / f"{number}_mask.png", GREY)
        write(part / "train/good/0_mask.png", np.zeros(HW, np.uint8))
        _, err, category = run()
        for name in ("test/blot/0_mask.png", "test/blot/1_mask.png", "train/good/0_mask.png"):
            (part / name).unlink()
        assert (category["n_train"], category["n_defective"], category["groups"][0]["n_masks"]) == (3, 2, 2)
        assert found(category) == pytest.approx(pixel_auroc(part, features, [MARKED, MARKED]), abs=1e-5)
        assert "not used: 1 mask without a defective image (part/train/good/0_mask.png)" in err

    def test_folders_that_are_named_give_the_same(self, run, part, features):
        for number in (0, 1):
            write(part.parent / "drawn" / f"{number}.png", GREY)
        folders = ("--good", "part/test/good", "--bad", "part/test/blot", "--train", "part/train/good")
        _, err, category = run(*folders, "--masks", "drawn")
        assert "read as the folders that were named" in err
        assert found(category) == pytest.approx(pixel_auroc(part, features, [MARKED, MARKED]), abs=1e-5)


class TestMasksThatMarkTheWrongPixels:
    def test_inverted_masks_are_said_wherever_the_numbers_stand(self, run, part, features):
        write(part / "ground_truth/blot/0_mask.png", 255 - GREY)
        write(part / "ground_truth/blot/1_mask.png", GREY)
        out, err, category = run()
        says = "1 mask marked more than half of the image (part/ground_truth/blot/0_mask.png: 86 %)"
        page = (part.parent / "out" / "report.html").read_text()
        assert all(says in text for text in (err, out, page, category["remarks"][0]))
        assert "magick mogrify -negate" in err
        exact = pixel_auroc(part, features, [~MARKED, MARKED])
        assert found(category) == pytest.approx(exact, abs=1e-5), "nothing is inverted silently"

    @pytest.mark.parametrize(("rows", "is_said"), [(30, False), (31, True)])
    def test_half_of_the_image_is_not_more_than_half(self, run, part, rows, is_said):
        half = np.zeros(HW, np.uint8)
        half[:rows] = 1
        write(part / "ground_truth/blot/0_mask.png", half)
        assert ("marked more than half" in run()[1]) == is_said

    def test_a_mask_that_marks_nothing_is_said_and_counts_as_none(self, run, part, features):
        write(part / "ground_truth/blot/0_mask.png", np.zeros(HW, np.uint8))
        write(part / "ground_truth/blot/1_mask.png", GREY)
        out, err, category = run()
        says = "1 mask of defective images marked no pixel (part/ground_truth/blot/0_mask.png)"
        assert says in out
        assert says in err
        assert category["groups"][0]["n_masks"] == 1
        assert [image["has_mask"] for image in category["images"]] == [False, False, False, True]
        assert found(category) == pytest.approx(pixel_auroc(part, features, [None, MARKED]), abs=1e-5)

    def test_a_mask_of_another_size_is_refused_by_name(self, part, command_line):
        write(part / "ground_truth/blot/0_mask.jpg", GREY[1:])
        status, _, err = command_line("evaluate", "part")
        assert status == 2
        assert (
            "part/ground_truth/blot/0_mask.jpg: the mask has 80x59 pixels, its image part/test/blot/0.png has 80x60"
            in err
        )

    def test_every_mask_that_is_not_used_is_named(self, run, part):
        for name in ("blot/0_mask.png", "blot/0.png", "blot/7_mask.png", "good/0_mask.png", "dent/0.png"):
            write(part / "ground_truth" / name, GREY)
        (part / "ground_truth" / "blot" / "0.json").write_text("{}")
        _, err, category = run()
        (known,) = find_categories("part")
        assert [path.removeprefix("part/ground_truth/") for path in known.unused_masks] == [
            *("blot/0.png", "blot/7_mask.png", "dent/0.png", "good/0_mask.png"),
        ]
        assert "not used: 4 masks without a defective image (part/ground_truth/blot/0.png, " in err
        assert "ignored: 1 other file (part/ground_truth/blot/0.json)" in err
        assert category["n_ignored"] == 5
