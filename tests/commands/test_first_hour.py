"""The mistakes of a first hour: each is told in a sentence that says how to mend it, and none shows a trace."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from backend.commands import infer as infer_command
from backend.commands import scoring
from backend.service.inspection import InspectionService
from tests.commands.parts import PARTS, ROI, records
from tests.factories import refusing

LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fit", "A", "B", "parts", "--mm_per_px", "1"), "--mm_per_px is not an option: did you mean --mm-per-px?"),
        (("infer", "A", "B", "parts", "--mm-per-px", "1", "--output", "r.csv"), "--output is not an option"),
        (("infer", *ROI, "parts", "--heat-maps=maps"), "--heat-maps is not an option: did you mean --heatmaps?"),
        (("serve", "--port", "9000"), "is a setting, not an option: set the environment variable PORT"),
        (
            ("fit", *ROI, "parts", "--models-dir=x"),
            "is a setting, not an option: set the environment variable MODELS_DIR",
        ),
        (("fitt", *ROI), "'fitt' is not a command: did you mean 'fit'?"),
        (("rollback", "A", "B", "--version", "x"), "'x' is not a whole number from 1 on"),
        (("fit", "A", "B", "parts", "--mm-per-px", "0,2"), "write the number with a decimal point, 0.2"),
        (("calibrate", *ROI, "--area-mm2-thr", "1,5"), "write the number with a decimal point, 1.5"),
        (("infer", *ROI, f"{LONG}.png"), "cannot be read (File name too long)"),
        (("calibrate", *ROI, "--ok", "parts/1.png/2.png"), "parts/1.png/2.png: no such file or folder"),
        (("rollback", "A", "B", "--version", "1", "-x"), "unrecognized arguments: -x"),
        (("calibrate", *ROI, "parts"), "unrecognized arguments: parts\ngive images of good parts with --ok"),
        (("calibrate", *ROI, "parts"), "usage: roi-anomaly calibrate "),
        (("evaluate", "one", "two"), "for several data sets, give the folder that contains them"),
        (("infer", *ROI, "parts", "--decimal", "x"), "argument --decimal: invalid choice: 'x'"),
    ],
)
def test_a_mistaken_argument_is_told_how_to_mend(run, monkeypatch, arguments, says):
    monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("the network was loaded"))
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_a_comma_in_an_id_is_no_number(run, work):
    status, _, err = run("infer", "1,2", "Pattern", "parts", "--mm-per-px", "1")
    assert (status, "no memory bank of role '1,2'" in err) == (2, True)


def test_no_command_at_all_prints_the_help(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "learn what good parts look like" in err


def test_weights_that_are_not_there_are_told_with_their_path(run, monkeypatch):
    monkeypatch.setenv("WEIGHTS", "/nowhere/w.safetensors")
    status, _, err = run("weights")
    assert (status, err) == (1, "WEIGHTS is not a file: w.safetensors (WEIGHTS=/nowhere/w.safetensors)\n")


def test_an_uncalibrated_roi_is_judged_by_nothing_and_told_what_is_next(run, work):
    assert run("infer", *ROI, "parts/1.png")[2].endswith("next: `roi-anomaly calibrate` chooses the threshold\n")


def test_names_steer_no_terminal(run, work):
    (work / "parts/a\x1b[2J\x9b.png").write_bytes(b"")
    status, out, err = run("infer", *ROI, "parts")
    assert (status, "\x1b" in out + err, "\x9b" in out + err) == (1, False, False)
    assert r"parts/a\x1b[2J\x9b.png: the file is empty" in err
    assert r"parts/a\x1b[2J\x9b.png" in run("fit", *ROI, "parts")[2]


@pytest.mark.parametrize("command", ["infer", "versions"])
def test_who_finds_no_model_is_told_which_folder_has_what(run, work, monkeypatch, command):
    arguments = ("Master1", "Patterns", *((*ROI[2:], "parts") if command == "infer" else ()))
    assert f"{work / 'models'} has Master1 Pattern\n" in run(command, *arguments)[2]
    (work / "empty").mkdir()
    monkeypatch.setenv("MODELS_DIR", "empty")
    assert f"{work / 'empty'} has no model yet\n" in run(command, *arguments)[2]
    monkeypatch.setenv("MODELS_DIR", "elsewhere")
    assert f"{work / 'elsewhere'} does not exist\n" in run(command, *arguments)[2]


@pytest.mark.parametrize("arguments", [("fit", "parts"), ("calibrate", "--ok", "parts")])
def test_a_models_folder_that_cannot_be_written_is_told_at_once(run, work, monkeypatch, arguments):
    """Not after the minutes that the images take."""
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **k: mode != os.W_OK and access(path, mode, **k)
    )  # as for others than root
    monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))
    status, out, err = run(arguments[0], *ROI, *arguments[1:])
    assert (status, out) == (1, "")
    assert "the model cannot be stored (its folder cannot be written); check the models folder" in err
    assert f"(MODELS_DIR={work / 'models'})" in err
    assert "extract" not in err


def test_a_file_that_cannot_be_read_anywhere_is_told_by_its_name(run, work, monkeypatch):
    def unreadable(_settings):
        raise PermissionError(errno.EACCES, "Permission denied", "models/.runs")

    monkeypatch.setattr(InspectionService, "open", unreadable)
    status, out, err = run("infer", *ROI, "parts")
    assert (status, out) == (1, "")
    assert err.endswith("models/.runs: Permission denied\n")


def test_records_that_cannot_be_written_are_told_before_any_work(run, work):
    status, _, err = run("infer", *ROI, "parts", "--out", f"{LONG}.csv")
    assert (status, "cannot be written (File name too long)" in err) == (1, True)


def test_records_that_may_not_be_written_are_told_with_both_causes(run, work, monkeypatch):
    """On Windows another program has the file open, elsewhere it is read-only."""
    refusing(monkeypatch, Path, "open", errno.EACCES, lambda path, *_: path.name == "r.csv")
    status, _, err = run("infer", *ROI, "parts", "--out", "r.csv")
    assert status == 1
    assert "r.csv cannot be written (Permission denied): close it in other programs, such as Excel, or make it" in err
    assert "then run the command again: it resumes where it stopped" in err


def test_weights_that_cannot_be_read_are_told_by_name(run, work, monkeypatch):
    (work / "w.safetensors").write_bytes(b"")
    monkeypatch.setenv("WEIGHTS", "w.safetensors")
    refusing(monkeypatch, Path, "open", errno.EACCES, lambda path, *_: path.name == "w.safetensors")
    status, _, err = run("weights")
    assert (status, "the weights cannot be read (w.safetensors: Permission denied)" in err) == (1, True)


def test_ctrl_c_while_a_library_loads_leaves_no_trace(run, work, monkeypatch):
    """A library in C makes an ImportError of it."""

    def interrupted(*_given, **_options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as exc:
            raise ImportError("initialization failed") from exc

    monkeypatch.setattr(infer_command, "infer", interrupted)
    assert run("infer", *ROI, "parts") == (130, "", "")

    def broken(*_given, **_options):
        raise ImportError("libfaiss is missing")

    monkeypatch.setattr(infer_command, "infer", broken)
    with pytest.raises(ImportError, match="libfaiss"):
        run("infer", *ROI, "parts")


def test_a_folder_that_vanishes_in_the_middle_gives_records_with_errors(run, work, monkeypatch):
    infer = scoring.infer

    def unplugged(*given, **options):
        shutil.rmtree("parts", ignore_errors=True)
        shutil.rmtree("maps", ignore_errors=True)
        return infer(*given, **options)

    monkeypatch.setattr(scoring, "infer", unplugged)
    status, _, err = run("infer", *ROI, "parts", "--out", "r.jsonl", "--heatmaps", "maps")
    assert status == 1
    assert "4 images: 1 not judged, because there is no calibration, 3 failed" in err
    rows = records(Path("r.jsonl").read_text(encoding="utf-8"))
    assert [row["error"] for row in rows[1:]] == [
        f"{path}: the file cannot be read (No such file or directory)" for path in PARTS[1:]
    ]
    assert Path("maps/parts/1.png.png").is_file(), "its folder was made again"
