"""What is said of folders, which are never read, and which a fit or a calibration refuses."""

import re
import shutil

import cv2
import numpy as np
import pytest

from backend.commands.folder_names import Kind, is_left_out, kind_of
from backend.commands.folders import DEFECTIVE_PARTS, GOOD_PARTS, check_folders, masks_beside, say_found
from backend.commands.image_files import find_images
from backend.common.config import Settings
from backend.common.errors import InvalidRequest
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.commands.parts import ROI

SYSTEM = (
    *("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", "lost+found", "@Recycle"),
    *(".Trash-1000", ".thumbnails", ".@__thumb"),
)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Puts files of one byte into the working folder."""
    monkeypatch.chdir(tmp_path)

    def put(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")

    return put


def refusal(paths, parts=GOOD_PARTS):
    """What `check_folders` says, or None."""
    try:
        check_folders(find_images(paths)[0], paths, parts)
    except InvalidRequest as refused:
        return str(refused)
    return None


class TestFoldersOfTheSystem:
    @pytest.mark.parametrize("name", SYSTEM)
    @pytest.mark.parametrize("turn", [str, str.upper, str.lower])
    def test_they_are_not_read_at_any_depth_and_are_named(self, put, capsys, name, turn):
        put("parts/1.png", "parts/a/2.png", f"parts/a/{turn(name)}/b/2.png", f"parts/{turn(name)}/1.png")
        images, ignored = find_images(["parts"])
        assert list(images.values()) == ["parts/1.png", "parts/a/2.png"]
        say_found(images, ignored)
        said = capsys.readouterr().err
        assert f"ignored: 2 system or hidden folders (parts/{turn(name)}, parts/a/{turn(name)})" in sorted_names(said)

    def test_one_that_is_named_itself_is_read(self, put):
        put("parts/@eaDir/1.png")
        assert list(find_images(["parts/@eaDir"])[0].values()) == ["parts/@eaDir/1.png"]

    def test_apple_double_files_and_thumbs_are_ignored_and_named(self, put, capsys):
        put("parts/1.png", "parts/._1.png", "parts/Thumbs.db", "parts/.DS_Store", "parts/desktop.ini")
        images, ignored = find_images(["parts"])
        say_found(images, ignored)
        said = capsys.readouterr().err.splitlines()
        assert said == [
            "1 image in parts",
            "ignored: 4 other files (parts/._1.png, parts/.DS_Store, parts/desktop.ini and 1 more)",
        ]

    @pytest.mark.parametrize("name", ["recycling", "eaDir", "macosx", "lost", "part #recycle", "@lot"])
    def test_names_that_are_merely_like_theirs_are_read(self, name):
        assert not is_left_out(name)


def sorted_names(said):
    """Messages with the names in brackets in order."""
    return re.sub(r"\((.*)\)", lambda match: f"({', '.join(sorted(match[1].split(', '), key=len))})", said)


class TestWhatIsSaid:
    def test_every_folder_has_its_count(self, put, capsys):
        put("parts/1.png", "parts/a/1.png", "parts/a/2.png", "other/7.png")
        say_found(*find_images(["parts", "other/7.png"]), "--ok")
        assert capsys.readouterr().err.splitlines() == [
            "--ok: 4 images in 3 folders",
            "  1 in parts",
            "  2 in parts/a",
            "  1 in other",
        ]

    def test_of_many_folders_the_rest_is_summed_up(self, put, capsys):
        put(*(f"parts/{number}/{image}.png" for number in range(50) for image in "ab"))
        say_found(*find_images(["parts"]))
        said = capsys.readouterr().err.splitlines()
        assert said[0] == "100 images in 50 folders"
        assert said[-1] == "  60 in 30 more folders"
        assert len(said) == 22

    def test_a_link_to_a_folder_is_named(self, put, tmp_path, capsys):
        put("parts/1.png", "elsewhere/2.png")
        (tmp_path / "parts" / "more").symlink_to(tmp_path / "elsewhere")
        say_found(*find_images(["parts"]))
        assert "ignored: 1 linked folder (parts/more)" in capsys.readouterr().err


NAMES = {
    Kind.GOOD: "good ok OK Normal good_parts no_defects defect-free ok2 iO",
    Kind.DEFECTIVE: "bad NG ng_2 NOK ko KO defect Defects defective anomaly Anomaly anomalous abnormal "
    "logical_anomalies structural_anomalies reject rejects Rejected scrap "
    "not_good not-ok notGood niO n.i.O. defectos malas Ausschuss faulty bad2 BadParts scratch",
    Kind.TEST: "test Test test_public test_private test_private_mixed testing tests test2",
    Kind.MASK: "ground_truth GroundTruth ground-truth gt GT mask Masks label labels bad_masks test_labels",
    None: "lot7 2024-05-01 train validation contest nothing station kosmos badge broker okra tested_2 Images 01",
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names.split()])
def test_the_name_of_a_folder_tells_what_it_holds(kind, name):
    assert kind_of(name) is kind


# Folders of good parts to name, and all that a fit on the whole folder would have taken besides.
DATA_SETS = {
    "MVTec AD": (
        ["train/good/0.png"],
        ["test/good/0.png", "test/crack/0.png", "ground_truth/crack/0_mask.png"],
    ),
    "MVTec AD 2": (
        ["train/good/0.png", "validation/good/0.png"],
        ["test_public/good/0.png", "test_public/bad/0.png", "test_public/ground_truth/bad/0_mask.png"],
    ),
    "MVTec LOCO": (
        ["train/good/0.png"],
        ["test/logical_anomalies/0.png", "ground_truth/logical_anomalies/0/000.png"],
    ),
    "VisA": (["Data/Images/Normal/0.JPG"], ["Data/Images/Anomaly/0.JPG", "Data/Masks/Anomaly/0.png"]),
    "BTAD": (["train/ok/0.bmp"], ["test/ko/0.bmp", "ground_truth/ko/0.bmp"]),
    "MPDD": (["train/good/0.png"], ["test/parts_mismatch/0.png", "ground_truth/parts_mismatch/0_mask.png"]),
    "two folders": (["good/0.png"], ["bad/0.png"]),
    "types beside good": (["good/0.png"], ["dull/0.png", "bent/lot1/0.png"]),
}


class TestFoldersOfOtherParts:
    @pytest.mark.parametrize("name", DATA_SETS)
    def test_the_whole_of_a_data_set_is_refused_and_its_good_parts_are_named(self, put, name):
        good, others = DATA_SETS[name]
        put(*(f"set/{path}" for path in (*good, *others)))
        said = refusal(["set"])
        assert said is not None
        for path in good:
            assert f"set/{path.rpartition('/')[0]}" in said.partition("such as ")[2]
        assert "--any-folder" in said
        assert refusal([f"set/{path.rpartition('/')[0]}" for path in good]) is None

    @pytest.mark.parametrize("name", DATA_SETS)
    def test_each_of_its_other_folders_alone_is_refused_beside_the_good_ones(self, put, name):
        good, others = DATA_SETS[name]
        for path in others:
            put(*(f"set/{path}" for path in (*good, path)))
            assert refusal(["set"]) is not None, path
            shutil.rmtree("set")

    def test_each_folder_is_named_once_with_its_images(self, put):
        put("p/good/1.png", "p/bad/1.png", "p/bad/deep/2.png", "p/ng/3.png", "p/lot/test/x/4.png")
        assert refusal(["p"]).startswith("2 images in p/bad, 1 image in p/lot, 1 image in p/ng: ")

    @pytest.mark.parametrize("path", ["bad", "set/test", "./set/../set/test/", "set/test/bad"])
    def test_the_folder_that_is_named_itself_may_have_any_name(self, put, path):
        put("bad/1.png", "set/test/bad/1.png", "set/test/1.png")
        if path.rstrip("/").endswith("test"):
            assert "1 image in " in refusal([path]), "but what is below it may not"
            assert refusal([path, "set/test/bad"]) is None, "unless it is named too"
        else:
            assert refusal([path]) is None

    def test_what_lies_above_the_named_folder_does_not_matter(self, put):
        put("defects/test/lot1/1.png", "defects/test/lot1/a/1.png")
        assert refusal(["defects/test/lot1"]) is None
        assert refusal(["defects/test/lot1/a/1.png"]) is None

    def test_folders_without_such_names_are_taken(self, put):
        put("parts/lot1/1.png", "parts/lot2/deep/1.png", "parts/1.png", "parts/good/1.png".replace("good", "day"))
        assert refusal(["parts"]) is None

    @pytest.mark.parametrize("mask", ["Part0_label.bmp", "Part0_GT.png", "part0_MASK.PNG", "Part0-mask.jpg"])
    def test_masks_beside_their_images_are_refused(self, put, mask):
        """As KolektorSDD and KolektorSDD2 have them."""
        put("set/kos01/Part0.jpg", f"set/kos01/{mask}")
        assert f"1 file (set/kos01/{mask}): their names suggest that these are masks" in refusal(["set"])
        assert f"set/kos01/{mask}" in refusal(["set/kos01"])
        assert "1 file" in refusal(["set/kos01/Part0.jpg", f"set/kos01/{mask}"]), "as a pattern names them"
        assert refusal([f"set/kos01/{mask}"]) is None, "named itself"

    def test_a_file_whose_name_ends_so_without_an_image_is_none(self):
        assert masks_beside(["a/1_mask.png", "b/1.png", "a/1_label_2.png"]) == set()

    def test_defective_parts_are_no_good_ones_and_no_masks(self, put):
        put("set/test/good/1.png", "set/test/crack/1.png", "set/ground_truth/crack/1.png")
        assert "1 image in set/test/good" in refusal(["set/test"], DEFECTIVE_PARTS)
        assert "1 image in set/ground_truth" in refusal(["set"], DEFECTIVE_PARTS)
        assert refusal(["set/test/crack"], DEFECTIVE_PARTS) is None


class TestCommands:
    @pytest.fixture
    def run(self, features, tmp_path, monkeypatch, command_line):
        for name in Settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(
            InspectionService,
            "open",
            lambda settings: InspectionService(settings, features, ModelStore(tmp_path / "models")),
        )
        rng = np.random.default_rng(0)
        for name in ("good/1.png", "good/2.png", "bad/3.png", "good/@eaDir/1.png"):
            (tmp_path / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "parts" / name), rng.integers(0, 255, (40, 60, 3), np.uint8))
        return command_line

    def test_a_fit_refuses_bad_parts_before_anything_is_computed(self, run, monkeypatch, tmp_path):
        monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("the network was loaded"))
        status, out, err = run("fit", *ROI, "parts")
        assert (status, out) == (2, "")
        assert err.startswith("1 image in parts/bad: the names of the folders suggest that these are not good parts.")
        assert not (tmp_path / "models").exists()

    def test_a_fit_takes_good_parts_says_so_and_takes_all_when_told(self, run):
        status, out, err = run("fit", *ROI, "parts/good")
        assert status == 0
        assert '"n_embeddings": 128' in out
        assert err.startswith("2 images in parts/good\nignored: 1 system or hidden folder (parts/good/@eaDir)\n")
        status, out, err = run("fit", *ROI, "parts", "--any-folder")
        assert status == 0
        assert '"n_embeddings": 192' in out
        assert err.startswith("3 images in 2 folders\n  1 in parts/bad\n  2 in parts/good\n")

    def test_a_calibration_refuses_either_kind_among_the_other(self, run):
        run("fit", *ROI, "parts/good")
        for arguments, says in (
            (("--ok", "parts"), "1 image in parts/bad: the names of the folders suggest that these are not good parts"),
            (
                ("--ok", "parts/good", "--ng", "parts"),
                "2 images in parts/good: the names of the folders suggest that these are not",
            ),
        ):
            status, out, err = run("calibrate", *ROI, *arguments)
            assert (status, out) == (2, "")
            assert err.startswith(says)
        status, out, err = run("calibrate", *ROI, "--ok", "parts", "--any-folder")
        assert (status, err.startswith("--ok: 3 images in 2 folders\n")) == (0, True)
        status, out, err = run("calibrate", *ROI, "--ok", "parts/good", "--ng", "parts/bad")
        assert status == 0
        assert "--ok: 2 images in parts/good\n--ok: ignored: 1 system" in err
        assert "--ng: 1 image in parts/bad\n" in err

    def test_infer_reads_every_folder_but_those_of_the_system(self, run):
        run("fit", *ROI, "parts/good")
        status, out, err = run("infer", *ROI, "parts")
        assert (status, out.count("\n")) == (0, 3)
        assert err.startswith("3 images in 2 folders\n  1 in parts/bad\n  2 in parts/good\nignored: 1 system")
