"""`roi-anomaly evaluate`: what it writes and prints, and how it ends where it cannot."""

import os
import shutil
from functools import partial

import cv2
import numpy as np
import pytest

from backend.commands.evaluate import evaluation
from tests.commands.evaluate.reports import Page, results


class TestCommand:
    def test_nothing_is_read_or_written_in_the_models_folder(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
        assert run("part")[0] == 0
        assert not (tmp_path / "models").exists()
        assert {path.name for path in tmp_path.iterdir()} == {"part", "evaluation-part"}

    def test_it_prints_a_row_for_all_defects_and_each_type(self, run):
        _, out, err = run("part")
        table = out.split("\n\n")[1].splitlines()
        assert [line.split()[0] for line in table[2:]] == ["all", "a", "b"]
        assert len({len(line) for line in table}) == 1, "aligned"
        assert "95 % bootstrap intervals of the other measures" in out.splitlines()[-1]
        assert "wrote evaluation-part/report.html and evaluation-part/results.json" in err

    @pytest.mark.parametrize(
        ("break_it", "status", "message"),
        [
            (lambda part: shutil.rmtree(part / "train"), 2, "train/good: no such folder"),
            (lambda part: (part / "test/b").rename(part / "test/all"), 2, "part: rename the folder test/all"),
            (lambda part: (part / "test/a/0.png").write_text("no image"), 1, "part/test/a/0.png: a text is not an"),
            (
                lambda part: cv2.imwrite(str(part / "ground_truth/b/0_mask.png"), np.ones((3, 4), np.uint8)),
                2,
                "part/ground_truth/b/0_mask.png: the mask has 4x3 pixels, its image part/test/b/0.png has",
            ),
            (
                lambda part: (part / "train/good/3.png").write_bytes((part / "train/good/3.png").read_bytes()[:999]),
                1,
                "part/train/good/3.png: the image cannot be decoded",
            ),
        ],
    )
    def test_what_cannot_be_used_is_named_and_nothing_is_written(self, run, part, tmp_path, break_it, status, message):
        break_it(part)
        found = run("part")
        assert found[0] == status
        assert message in found[2]
        assert "Traceback" not in found[2]
        assert not (tmp_path / "evaluation-part").exists()

    @pytest.mark.parametrize(
        ("option", "value", "wrong"),
        [
            ("--percentile", "0", "'0' is not a number"),
            ("--percentile", "x", "'x' is not a number"),
            ("--shots", "0", "'0' is not a whole number"),
            ("--shots", "1,", "'' is not a whole number"),
            ("--seeds", "a", "'a' is not a whole number"),
        ],
    )
    def test_an_option_that_cannot_be_used_is_named(self, run, option, value, wrong):
        status, _, err = run("part", option, value)
        assert status == 2
        assert f"argument {option}: {wrong}" in err

    def test_a_folder_that_cannot_be_made_stops_it_before_anything_is_computed(self, run, part, monkeypatch):
        monkeypatch.setattr(evaluation, "evaluate", None)
        status, _, err = run("part", "--out", part / "test/a/0.png" / "out")
        assert status == 2
        assert "the folder cannot be made" in err

    def test_a_folder_that_was_there_stays_whatever_fails(self, run, part, tmp_path):
        (tmp_path / "mine").mkdir()
        assert run("nowhere", "--out", "mine")[0] == 2
        assert (tmp_path / "mine").is_dir()

    def test_names_that_are_no_utf_8_are_written_with_escapes(self, run, part, tmp_path):
        odd = os.fsdecode(b"kr\xe4tzer")
        (part / "test/b").rename(part / "test" / odd)
        (part / "ground_truth/b").rename(part / "ground_truth" / odd)
        (part / "test" / odd / "0.png").rename(part / "test" / odd / f"{odd}.png")
        (part / "ground_truth" / odd / "0_mask.png").rename(part / "ground_truth" / odd / f"{odd}_mask.png")
        part.rename(tmp_path / os.fsdecode(b"tei\xdfl"))
        status, table, err = run(os.fsdecode(b"tei\xdfl"), "--out", "out")
        assert (status, "Traceback" in err) == (0, False)
        assert "kr\\udce4tzer" in table
        (found,) = results(tmp_path / "out")["categories"]
        assert found["groups"][2]["name"] == "kr\\udce4tzer"
        assert found["images"][-1]["name"] == "kr\\udce4tzer/kr\\udce4tzer.png"
        assert "kr\\udce4tzer/kr\\udce4tzer.png" in Page(tmp_path / "out" / "report.html").texts

    def test_an_image_that_is_deleted_meanwhile_costs_the_page_alone(self, run, part, tmp_path, monkeypatch):
        evaluate = evaluation.evaluate

        def and_delete(*given, **options):
            found = evaluate(*given, **options)
            (part / "test/b/0.png").unlink()
            return found

        monkeypatch.setattr(evaluation, "evaluate", and_delete)
        (tmp_path / "evaluation-part").mkdir()
        (tmp_path / "evaluation-part" / "report.html").write_text("of an earlier evaluation")
        status, table, err = run("part")
        assert status == 1
        assert "part/test/b/0.png" in err
        assert "wrote evaluation-part/results.json, but not report.html" in err
        assert "image AUROC" in table
        assert len(results(tmp_path / "evaluation-part")["categories"][0]["images"]) == 6
        assert not (tmp_path / "evaluation-part" / "report.html").exists()

    def test_a_full_disk_ends_it_with_a_sentence(self, run, monkeypatch, tmp_path):
        monkeypatch.setattr(evaluation, "_spill_file", partial(open, "/dev/full", "r+b", buffering=0))
        status, _, err = run("part", "--shots", "1")
        assert status == 1
        assert "they cannot be written (No space left on device); set TMPDIR" in err
        assert not (tmp_path / "evaluation-part").exists()

    def test_ctrl_c_ends_it_with_one_sentence_and_without_results(self, run, features, monkeypatch, tmp_path):
        def interrupted(_pixels):
            raise KeyboardInterrupt

        monkeypatch.setattr(features.runtime, "forward", interrupted)
        status, out, err = run("part", "--shots", "1")
        assert (status, out) == (130, "")
        assert err.endswith("stopped; nothing was written\n")
        assert not (tmp_path / "evaluation-part").exists()
