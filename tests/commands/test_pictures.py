"""`roi-anomaly infer` with pictures on the scale of the threshold: right, in their place, and never of two scales."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.commands.heatmaps import Heatmaps, check_own_folders
from backend.common.errors import InvalidRequest
from backend.common.png_writer import png_text
from backend.service.judge import infer
from backend.service.pictures import Wanted
from backend.service.scoring import Scoring
from tests.commands.parts import ROI, calibrated, named, records, service
from tests.factories import KEY

IMAGE = "parts/a/10.bmp"
ON_SCALE = ("--heatmaps", "maps", "--heatmap", "threshold")


@pytest.fixture
def threshold(work, features):
    """Of a calibration by which the image is just defective."""
    score = infer(service(work, features), KEY, named(IMAGE), Scoring(0.2)).inference.score
    calibrated(work, features, score)
    return score


def written(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.png")}


class TestPictures:
    def test_they_are_those_of_infer(self, run, work, features, threshold):
        assert run("infer", *ROI, IMAGE, *ON_SCALE, "--overlays", "seen")[0] == 0
        result = infer(
            service(work, features), KEY, named(IMAGE), Scoring(0.2), wanted=Wanted("threshold", overlay=True)
        )
        assert written("maps") == {f"{IMAGE}.png": base64.b64decode(result.heatmap_png_base64)}
        assert written("seen") == {f"{IMAGE}.png": base64.b64decode(result.overlay_png_base64)}
        heatmap = cv2.imread(f"maps/{IMAGE}.png", cv2.IMREAD_UNCHANGED)
        assert heatmap.shape == (160, 200)
        assert 0 < np.mean(heatmap >= 128) < 0.05, "a hundredth of the image is at the 99th percentile or above"

    def test_records_are_the_same_with_and_without_them(self, run, work, threshold):
        plain, pictured = (
            [{**record, "ms": 0} for record in records(run("infer", *ROI, "parts", *options)[1])]
            for options in ((), (*ON_SCALE, "--overlays", "seen"))
        )
        assert plain == pictured
        assert len(written("seen")) == 4

    def test_a_run_goes_on_with_the_pictures_that_are_missing(self, run, work, threshold, monkeypatch):
        given = ("infer", *ROI, "parts", "--out", "r.jsonl", *ON_SCALE, "--overlays", "seen")
        assert run(*given)[0] == 0
        before = {**written("maps"), **{f"seen {name}": png for name, png in written("seen").items()}}
        content = Path("r.jsonl").read_bytes()
        Path(f"seen/{IMAGE}.png").unlink()
        asked = []
        monkeypatch.setattr("backend.commands.scoring.infer", lambda *a, **k: asked.append(a[2].name) or infer(*a, **k))
        assert run(*given)[0] == 0
        assert asked == [IMAGE]
        assert {**written("maps"), **{f"seen {name}": png for name, png in written("seen").items()}} == before
        assert Path("r.jsonl").read_bytes() == content

    @pytest.mark.parametrize("scales", [("contract", "threshold"), ("threshold", "contract")])
    def test_a_folder_never_keeps_heatmaps_of_another_scale(self, run, work, threshold, scales):
        texts = []
        for scale in scales:
            given = ("--heatmaps", "maps", "--heatmap", scale)
            assert run("infer", *ROI, "parts/a", "--out", "r.jsonl", *given)[0] == 0
            texts.append({png_text(png) for png in written("maps").values()})
        fixed = {f"heatmap=threshold threshold={threshold!r} distance=grey*threshold/128"}
        assert texts == [fixed if scale == "threshold" else {None} for scale in scales]

    def test_pictures_of_an_earlier_threshold_are_made_anew(self, run, work, features, threshold):
        overlays = ("--overlays", "seen")
        run("infer", *ROI, IMAGE, "--out", "1.jsonl", *overlays)
        calibrated(work, features, threshold * 0.9)
        run("infer", *ROI, IMAGE, "--out", "2.jsonl")
        assert run("infer", *ROI, IMAGE, "--out", "2.jsonl", *overlays)[0] == 0
        assert png_text(written("seen")[f"{IMAGE}.png"]) == f"overlay threshold={threshold * 0.9!r}"

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            (ON_SCALE, "--heatmap threshold: "),
            (("--overlays", "seen"), "--overlays: "),
            ((*ON_SCALE, "--overlays", "seen"), "--heatmap threshold and --overlays: "),
        ],
    )
    def test_without_a_calibration_they_are_refused(self, run, work, options, named):
        status, out, err = run("infer", *ROI, "parts", "--out", "r.csv", *options)
        assert (status, out) == (2, "")
        assert f"{named}the ROI has no calibration" in err
        assert not any(Path(name).exists() for name in ("maps", "seen", "r.csv")), "nothing was begun"

    def test_a_scale_without_a_folder_is_refused(self, run, work, threshold):
        status, _, err = run("infer", *ROI, "parts", "--heatmap", "threshold")
        assert status == 2
        assert "give --heatmaps FOLDER" in err

    def test_one_folder_for_both_is_refused(self, run, work, threshold):
        status, _, err = run("infer", *ROI, "parts", *ON_SCALE, "--overlays", "./maps")
        assert status == 2
        assert "--heatmaps and --overlays would both write" in err
        assert not Path("maps").exists()

    def test_overlays_among_the_images_are_refused(self, run, work, threshold):
        status, _, err = run("infer", *ROI, "parts", "--overlays", "parts/seen")
        assert status == 2
        assert "give --overlays another folder" in err

    def test_the_contracts_heatmaps_need_no_calibration(self, run, work):
        assert run("infer", *ROI, IMAGE, "--heatmaps", "maps", "--heatmap", "contract")[0] == 0
        assert run("infer", *ROI, IMAGE, "--heatmaps", "plain")[0] == 0
        assert written("maps") == written("plain")

    def test_a_name_that_is_too_long_is_told_for_both(self, run, work, threshold):
        name = f"parts/a/{'x' * 250}.png"
        (work / IMAGE).rename(work / name)
        status, out, err = run("infer", *ROI, name, *ON_SCALE, "--overlays", "seen")
        assert status == 0
        record = records(out)[0]
        assert [Path(record[kind]).is_file() for kind in ("heatmap", "overlay")] == [True, True]
        assert "1 heatmap with a shorter or different name" in err
        assert "1 overlay with a shorter or different name" in err
        run("infer", *ROI, name, "--out", "r.jsonl", *ON_SCALE, "--overlays", "seen")
        assert run("infer", *ROI, name, "--out", "r.jsonl", *ON_SCALE, "--overlays", "seen")[0] == 0


@pytest.mark.parametrize(("folder", "apart"), [("maps", False), ("maps/x", False), ("maps/y", True), ("other", True)])
def test_folders_whose_pictures_would_meet_are_refused(tmp_path, folder, apart):
    images = ["x/1.png", "x/x/1.png"]
    pictures = [
        Heatmaps(tmp_path / "maps", images),
        Heatmaps(tmp_path / folder, images, "--overlays", "overlay"),
    ]
    if apart:
        check_own_folders(pictures)
    else:
        with pytest.raises(InvalidRequest, match="give each its own folder"):
            check_own_folders(pictures)
