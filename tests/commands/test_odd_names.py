"""Names of files that are not UTF-8: how records, replies and messages show them."""

import csv
import json
import os
from pathlib import Path

import pytest

from backend.commands import scoring
from backend.commands.console import say
from tests.commands.parts import ROI, records

ODD = b"parts/M\xe4rz.png"
SHOWN = r"parts/M\udce4rz.png"


@pytest.fixture
def odd(work):
    """One image in parts/, and its name is Latin-1."""
    (work / "parts/1.png").rename(os.fsdecode(ODD))
    for other in ("2.jpg", "a/1.png", "a/10.bmp"):
        (work / "parts" / other).unlink()
    return work


def test_records_are_utf_8_and_show_odd_bytes_as_escapes(run, odd):
    assert run("infer", *ROI, "parts", "--out", "r.csv")[0] == 0
    (row,) = csv.DictReader(Path("r.csv").read_bytes().decode().splitlines())
    assert row["path"] == SHOWN
    status, out, _ = run("infer", *ROI, "parts")
    assert (status, records(out)[0]["path"]) == (0, SHOWN)
    bytes_again = records(out)[0]["path"].encode().decode("unicode_escape").encode("utf-8", "surrogateescape")
    assert bytes_again == ODD, "the name can be had back"


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_a_run_goes_on_with_records_of_earlier_versions(run, odd, monkeypatch, name):
    """They hold the bytes as they are (CSV), or halves of characters (JSON lines)."""
    run("infer", *ROI, "parts", "--out", name)
    before = Path(name).read_bytes()
    old = before.replace(rb"\\udce4", rb"\udce4") if name == "r.jsonl" else before.replace(rb"\udce4", b"\xe4")
    assert old != before
    Path(name).write_bytes(old)
    monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))
    status, _, err = run("infer", *ROI, "parts", "--out", name)
    assert (status, "(1 from an earlier run)" in err) == (0, True)
    assert Path(name).read_bytes() == old


def test_an_error_about_such_a_file_is_shown_in_the_same_way(run, odd):
    Path(os.fsdecode(ODD)).write_bytes(b"")
    status, out, err = run("infer", *ROI, "parts")
    assert (status, records(out)[0]["error"].partition(";")[0]) == (1, f"{SHOWN}: the file is empty")
    assert f"{SHOWN}: the file is empty" in err


def test_fit_and_calibrate_take_such_files(run, odd):
    status, out, _ = run("fit", *ROI, "parts")
    assert (status, json.loads(out)["n_embeddings"]) == (0, 64)
    assert run("calibrate", *ROI, "--ok", "parts", "--scores", "s.csv")[0] == 0
    assert run("calibrate", *ROI, "--ok", "parts", "--scores", "s.csv")[0] == 0, "with the record that was kept"


def test_names_that_records_cannot_tell_apart_are_refused(run, odd):
    Path(SHOWN).write_bytes(Path(os.fsdecode(ODD)).read_bytes())
    status, out, err = run("infer", *ROI, "parts")
    assert (status, out) == (2, "")
    assert f"two files have names that records show as {SHOWN}: rename one of them" in err


def test_messages_are_shown_on_terminals_of_any_encoding(capfd):
    say("März, M\udce4rz")
    assert capfd.readouterr().err == "März, M\\udce4rz\n"
