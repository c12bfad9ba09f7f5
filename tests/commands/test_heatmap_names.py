"""Heatmaps whose names a file system does not take, or takes for one another: they never stop a run."""

import errno
import shutil
from pathlib import Path

import pytest

from backend.commands.heatmaps import Heatmaps, heatmap_path
from tests.commands.parts import ROI, records
from tests.factories import refusing

LONG = "x" * 251 + ".png"


@pytest.mark.parametrize("name", ["r.jsonl", "r.csv"])
def test_a_name_too_long_for_a_heatmap_is_cut_and_the_run_goes_on(run, work, name):
    shutil.copy("parts/1.png", f"parts/{LONG}")
    status, _, err = run("infer", *ROI, "parts", "--out", name, "--heatmaps", "maps")
    assert status == 0
    assert "5 images: 5 not judged" in err
    (cut,) = Path("maps/parts").glob("x*")
    assert len(cut.name) < 256
    assert cut.read_bytes() == Path("maps/parts/1.png.png").read_bytes()
    assert f"1 heatmap with a shorter or different name than the image: parts/{LONG}: {cut}" in err
    if name == "r.jsonl":
        told = {record["path"]: record.get("heatmap") for record in records(Path(name).read_text(encoding="utf-8"))}
        assert told == {f"parts/{LONG}": str(cut)} | dict.fromkeys(told.keys() - {f"parts/{LONG}"})
    again = run("infer", *ROI, "parts", "--out", name, "--heatmaps", "maps")
    assert (again[0], "(5 from an earlier run)" in again[2]) == (0, True)


def test_every_part_of_a_path_fits_and_no_two_paths_meet(tmp_path):
    """Escapes make names longer; letters of several bytes are never halved; equal beginnings stay apart."""
    images = [f"{'%' * 200}/{'ä' * 125}{end}.png" for end in "ab"] + [f"/{'y' * 255}/1.png", "x" * 242 + ".png"]
    heatmaps = Heatmaps(tmp_path, images)
    assert len(set(heatmaps.paths.values())) == len(images)
    for image in images:
        heatmaps.write(image, b"png")
    assert heatmaps.failed == {}
    assert list(heatmaps.renamed) == images[:3]
    assert heatmaps.paths[images[3]] == tmp_path / (images[3] + ".png"), "246 bytes fit, as ever"
    for path in heatmaps.paths.values():
        assert path.read_bytes() == b"png"
        str(path).encode()


@pytest.mark.parametrize("pair", [("A.png", "a.png"), ("Lot/1.png", "lot/1.png"), ("\u00e9.png", "e\u0301.png")])
def test_names_that_some_file_systems_take_for_one_are_kept_apart(pair):
    first, second = Heatmaps(Path("maps"), pair).paths.values()
    assert first == heatmap_path(Path("maps"), pair[0])
    assert second.name.casefold() != first.name.casefold()
    assert (second.parent, second.suffix) == (heatmap_path(Path("maps"), pair[1]).parent, ".png")


def test_a_heatmap_is_never_where_the_folder_of_another_must_be(run, work):
    Path("parts/1.png.png").mkdir()
    shutil.copy("parts/1.png", "parts/1.png.png/2.png")
    assert run("infer", *ROI, "parts", "--heatmaps", "maps")[0] == 0
    assert len([path for path in Path("maps").rglob("*.png") if path.is_file()]) == 5


def test_a_name_that_the_folder_refuses_costs_the_heatmap_alone(run, work, monkeypatch):
    """As exFAT refuses a colon, or a share a name that is not UTF-8: the judgement is kept, the status is 1."""
    with monkeypatch.context() as patched:
        refusing(patched, Path, "write_bytes", errno.EINVAL, lambda path, _png: path.name == ".tmp-2.jpg.png")
        status, _, err = run("infer", *ROI, "parts", "--out", "r.jsonl", "--heatmaps", "maps")
    assert status == 1
    assert [bool(record["score"]) for record in records(Path("r.jsonl").read_text(encoding="utf-8"))] == [True] * 4
    assert "1 heatmap of judged images could not be written: parts/2.jpg" in err
    assert run("infer", *ROI, "parts", "--out", "r.jsonl", "--heatmaps", "maps")[0] == 0, "it is tried again"
    assert len(list(Path("maps/parts").rglob("*.png"))) == 4


def test_a_full_disk_stops_the_run_and_says_how_to_go_on(run, work, monkeypatch):
    with monkeypatch.context() as patched:
        refusing(patched, Path, "write_bytes", errno.ENOSPC, lambda path, _png: path.name == ".tmp-2.jpg.png")
        status, _, err = run("infer", *ROI, "parts", "--out", "r.jsonl", "--heatmaps", "maps")
    assert status == 1
    assert "stopped, 1 of 4 images done; run the same command again to resume" in err
    assert "maps/parts/2.jpg.png cannot be written (No space left on device)" in err
    assert run("infer", *ROI, "parts", "--out", "r.jsonl", "--heatmaps", "maps")[0] == 0


def test_a_file_in_place_of_the_folder_is_told_before_anything_is_judged(run, work):
    Path("maps").touch()
    status, out, err = run("infer", *ROI, "parts", "--heatmaps", "maps")
    assert (status, out) == (1, "")
    assert "--heatmaps maps: the folder cannot be made (File exists)" in err
