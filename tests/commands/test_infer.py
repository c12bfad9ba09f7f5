"""`roi-anomaly infer`, on the extractor that the commands' tests share."""

import base64
import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.commands import scoring
from backend.service.fit import fit
from backend.service.judge import infer
from backend.service.scoring import Scoring
from tests.commands.parts import CIRCLE, PARTS, ROI, calibrated, named, records, service, without_ms
from tests.factories import KEY


class TestInfer:
    @pytest.mark.slow
    def test_without_out_it_prints_what_the_service_gives_as_json_lines(self, run, work, features):
        status, out, err = run("infer", *ROI, "parts")
        assert status == 0
        printed = records(out)
        assert [record["path"] for record in printed] == PARTS
        for record in printed:
            result = infer(service(work, features), KEY, named(record["path"]), Scoring(0.2))
            assert record["score"] == result.inference.score
            assert (record["threshold"], record["decision"], record["calibration"]) == (None, None, "none")
            assert record["regions"] == []
        assert "4 images: 4 not judged, because there is no calibration" in err

    def test_the_calibration_decides_and_finds_regions(self, run, work, features):
        alone = service(work, features)
        calibrated(work, features, infer(alone, KEY, named("parts/2.jpg"), Scoring(0.2)).inference.score)
        status, out, _ = run("infer", *ROI, "parts", "--shape", CIRCLE)
        assert status == 0
        assert {record["decision"] for record in records(out)} <= {"ok", "ng"}
        assert any(record["regions"] for record in records(out))
        unmasked = records(run("infer", *ROI, "parts/2.jpg")[1])[0]
        assert (unmasked["score"], unmasked["decision"]) == (unmasked["threshold"], "ng"), "it reaches the threshold"

    def test_a_broken_image_is_a_record_and_the_run_goes_on_to_the_end(self, run, work):
        (work / "parts" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (work / "parts" / "3.png").write_bytes(b"GIF89a")
        (work / "parts" / "4.png").symlink_to("nowhere")
        status, out, err = run("infer", *ROI, "parts", "--out", "r.csv")
        assert status == 1
        assert out == ""
        rows = {row["path"]: row for row in csv.DictReader((work / "r.csv").open(newline=""))}
        assert list(rows) == ["parts/1.png", "parts/2.jpg", "parts/3.png", "parts/4.png", "parts/a/1.png", PARTS[3]]
        assert "truncated or damaged" in rows["parts/1.png"]["error"]
        assert "not an accepted image" in rows["parts/3.png"]["error"]
        assert "cannot be read" in rows["parts/4.png"]["error"]
        assert [bool(row["score"]) for row in rows.values()] == [False, True, False, False, True, True]
        for path in ("parts/1.png", "parts/3.png", "parts/4.png"):
            assert rows[path]["error"] in err
        assert "6 images: 3 not judged, because there is no calibration, 3 failed" in err

    def test_limits_of_the_service_and_shapes_fail_only_the_images_they_hit(self, run, work, monkeypatch):
        """An image above MAX_PIXELS, or one in which the shape selects no pixel, is a record with an error."""
        monkeypatch.setenv("MAX_PIXELS", "10000")
        cv2.imwrite("parts/small.png", np.zeros((50, 50, 3), np.uint8))
        status, out, _ = run("infer", *ROI, "parts/2.jpg", "parts/small.png")
        assert status == 1
        assert "200x160 pixels, at most 10000" in records(out)[0]["error"]
        assert records(out)[1]["error"] is None
        monkeypatch.delenv("MAX_PIXELS")
        status, out, _ = run(
            "infer", *ROI, "parts/2.jpg", "parts/small.png", "--shape", '{"kind":"rect","x":60,"y":60,"w":9,"h":9}'
        )
        assert status == 1
        assert [bool(record["error"]) for record in records(out)] == [False, True]
        assert "selects no pixel of the 50x50 image" in records(out)[1]["error"]

    @pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
    def test_a_run_that_is_stopped_goes_on_to_the_same_file(self, run, work, monkeypatch, name):
        (work / "parts" / "1.png").write_bytes(b"broken")
        assert run("infer", *ROI, "parts", "--out", f"whole-{name}", "--heatmaps", "whole")[0] == 1
        whole, asked = (work / f"whole-{name}").read_bytes(), []
        infer_image = scoring.infer

        def stopped(alone, key, image, *given, **options):
            if len(asked) == 2:
                raise KeyboardInterrupt
            asked.append(image.name)
            return infer_image(alone, key, image, *given, **options)

        with monkeypatch.context() as patched:
            patched.setattr(scoring, "infer", stopped)
            status, _, err = run("infer", *ROI, "parts", "--out", name, "--heatmaps", "maps")
        assert status == 130
        assert "stopped, 2 of 4 images done; run the same command again to resume" in err
        assert without_ms((work / name).read_bytes()) == without_ms(whole)[:2]

        monkeypatch.setattr(scoring, "infer", lambda *a, **k: asked.append(a[2].name) or infer_image(*a, **k))
        status, _, err = run("infer", *ROI, "parts", "--out", name, "--heatmaps", "maps")
        assert status == 1, "an image had failed before"
        assert asked == PARTS, "each once"
        assert "(2 from an earlier run)" in err
        assert without_ms((work / name).read_bytes()) == without_ms(whole)
        maps = {path.relative_to("maps"): path.read_bytes() for path in Path("maps").rglob("*.png")}
        assert maps == {path.relative_to("whole"): path.read_bytes() for path in Path("whole").rglob("*.png")}
        assert len(maps) == 3

    def test_going_on_takes_more_images_and_does_no_image_twice(self, run, work, monkeypatch):
        asked = []
        infer_image = scoring.infer
        monkeypatch.setattr(scoring, "infer", lambda *a, **k: asked.append(a[2].name) or infer_image(*a, **k))
        for paths in (["parts/a"], ["parts"], ["parts"]):
            assert run("infer", *ROI, *paths, "--out", "r.jsonl")[0] == 0
        assert asked == ["parts/a/1.png", "parts/a/10.bmp", "parts/1.png", "parts/2.jpg"]
        assert [record["path"] for record in records(Path("r.jsonl").read_text(encoding="utf-8"))] == asked

    def test_a_missing_heatmap_is_made_without_a_second_record(self, run, work):
        run("infer", *ROI, "parts/a", "--out", "r.jsonl")
        before = Path("r.jsonl").read_bytes()
        assert run("infer", *ROI, "parts/a", "--out", "r.jsonl", "--heatmaps", "maps")[0] == 0
        assert Path("r.jsonl").read_bytes() == before
        assert sorted(path.as_posix() for path in Path("maps").rglob("*.png")) == [
            "maps/parts/a/1.png.png",
            "maps/parts/a/10.bmp.png",
        ]

    @pytest.mark.parametrize(
        ("what", "says"),
        [
            ("fit", "another memory bank"),
            ("calibration", "threshold none instead of 0.7"),
            ("setting", "score_percentile 99.0 instead of 98.0"),
            ("blur", "blur_sigma 1.0 instead of 2.0"),
            ("mm_per_px", "mm_per_px 0.2 instead of 0.3"),
            ("shape", "shape none instead of"),
            ("roi", "no memory bank of role 'Master1', roi 'Other' in MODELS_DIR=models: run `roi-anomaly fit`"),
            ("image", "parts/a/1.png has changed since its record"),
        ],
    )
    def test_records_of_other_conditions_are_refused_before_any_work(
        self, run, work, features, monkeypatch, what, says
    ):
        arguments = {"roi_id": "Pattern", "--mm-per-px": "0.2"}
        run("infer", *ROI, "parts/a", "--out", "r.jsonl")
        before = Path("r.jsonl").read_bytes()
        if what == "fit":
            fit(service(work, features), KEY, [named("parts/1.png")], mm_per_px=0.2)
        elif what == "calibration":
            calibrated(work, features, 0.7)
        elif what == "setting":
            monkeypatch.setenv("SCORE_PERCENTILE", "98")
        elif what == "blur":
            monkeypatch.setenv("BLUR_SIGMA", "2")
        elif what == "image":
            shutil.copy("parts/1.png", "parts/a/1.png")
        elif what == "mm_per_px":
            arguments["--mm-per-px"] = "0.3"
        elif what == "shape":
            arguments["--shape"] = CIRCLE
        else:
            arguments["roi_id"] = "Other"
        options = [
            text for name, value in arguments.items() for text in ((name, value) if name[0] == "-" else (value,))
        ]
        with monkeypatch.context() as patched:
            patched.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))
            status, _, err = run("infer", "Master1", *options, "--out", "r.jsonl", "--", "parts/1.png", "parts/a")
        assert status == 2
        assert says in err
        assert "Traceback" not in err
        assert Path("r.jsonl").read_bytes() == before

    def test_restart_begins_anew_and_a_stop_says_to_go_on_without_it(self, run, work, monkeypatch):
        run("infer", *ROI, "parts/a", "--out", "r.jsonl")
        status, _, _ = run("infer", *ROI[:3], "0.3", "parts/1.png", "--out", "r.jsonl", "--restart")
        assert status == 0
        assert [record["path"] for record in records(Path("r.jsonl").read_text(encoding="utf-8"))] == ["parts/1.png"]
        monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt))
        status, _, err = run("infer", *ROI, "parts", "--out", "r.jsonl", "--restart")
        assert status == 130
        assert "stopped, 0 of 4 images done; run the same command again without --restart to resume" in err
        assert "stopped, 0 of 4 images done; with --out FILE a run can be resumed" in run("infer", *ROI, "parts")[2]

    def test_an_image_that_failed_is_tried_again_once_it_has_changed(self, run, work):
        right = Path("parts/a/1.png").read_bytes()
        Path("parts/a/1.png").write_bytes(right[:100])
        assert run("infer", *ROI, "parts/a", "--out", "r.jsonl")[0] == 1
        broken = Path("r.jsonl").read_bytes()
        status, _, err = run("infer", *ROI, "parts/a", "--out", "r.jsonl")
        assert (status, Path("r.jsonl").read_bytes()) == (1, broken)
        assert "parts/a/1.png: " in err, "what failed before is told again"
        Path("parts/a/1.png").write_bytes(right)
        assert run("infer", *ROI, "parts/a", "--out", "r.jsonl")[0] == 0
        assert [record["path"] for record in records(Path("r.jsonl").read_text(encoding="utf-8"))] == [
            PARTS[3],
            PARTS[2],
        ]

    @pytest.mark.parametrize("change", ["fit", "calibration"])
    def test_a_fit_or_calibration_in_the_middle_of_a_run_ends_it(self, run, work, features, monkeypatch, change):
        infer_image, asked = scoring.infer, []

        def disturbed(alone, key, image, *given, **options):
            asked.append(image.name)
            if len(asked) == 2:  # by another process, as it were
                other = service(work, features)
                if change == "fit":
                    fit(other, KEY, [named("parts/1.png")], mm_per_px=0.2)
                else:
                    calibrated(work, features, 0.5)
            return infer_image(alone, key, image, *given, **options)

        monkeypatch.setattr(scoring, "infer", disturbed)
        status, _, err = run("infer", *ROI, "parts", "--out", "r.jsonl", "--heatmaps", "maps")
        assert status == 1
        assert "was fitted or calibrated anew during this run" in err
        assert [record["path"] for record in records(Path("r.jsonl").read_text(encoding="utf-8"))] == PARTS[:1]
        assert len(list(Path("maps").rglob("*.png"))) == 1

    def test_heatmaps_are_those_of_infer(self, run, work, features):
        run("infer", *ROI, "parts/a/10.bmp", "--heatmaps", "maps", "--shape", CIRCLE)
        shape = {"kind": "circle", "cx": 100, "cy": 80, "r": 60}
        heatmap = cv2.imread("maps/parts/a/10.bmp.png", cv2.IMREAD_GRAYSCALE)
        y, x = np.mgrid[:160, :200] + 0.5
        outside = (x - shape["cx"]) ** 2 + (y - shape["cy"]) ** 2 > shape["r"] ** 2
        assert heatmap.shape == (160, 200), "geometry is that of the image"
        assert (heatmap[outside] == 0).all()
        assert (heatmap[~outside] > 0).any()
        whole = infer(service(work, features), KEY, named("parts/a/10.bmp"), Scoring(0.2)).heatmap_png_base64
        run("infer", *ROI, "parts/a/10.bmp", "--heatmaps", "maps")
        assert Path("maps/parts/a/10.bmp.png").read_bytes() == base64.b64decode(whole)

    def test_logs_are_quiet_unless_asked_for_but_warnings_come_through(self, run, work, features, monkeypatch):
        (work / "models" / "Master1" / "Pattern" / "index.faiss").write_bytes(b"damaged")
        assert "index.rebuilt" not in run("infer", *ROI, "parts/a")[2]
        (work / "models" / "Master1" / "Pattern" / "index.faiss").write_bytes(b"damaged")
        monkeypatch.setenv("LOG_LEVEL", "info")
        assert "index.rebuilt" in run("infer", *ROI, "parts/a")[2]
        (work / "models" / "Master1" / "Pattern" / "calib.json").write_text("{}")
        monkeypatch.delenv("LOG_LEVEL")
        assert "calibration.without_threshold" in run("infer", *ROI, "parts/a")[2]
