"""``inspect``: one command from folders to verdicts."""

import base64
import csv
import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.commands.inspection.inspection import Inspector
from tests.commands.inspection.conftest import part

ROOT = Path(__file__).parents[3]
ALL = ("inspect", "widget/good", "parts", "--ng", "bad")


def results(folder, out="inspection-widget"):
    with (folder / out / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_a_clean_part_is_ok_and_a_scratched_one_ng(run, folders):
    status, _, err = run(*ALL)
    assert status == 0, err
    found = results(folders)
    assert len(found) == 15
    assert [found[f"parts/{n}.png"]["verdict"] for n in (1, 2)] == ["ok", "ng"]
    assert {found[f"bad/{n}.png"]["verdict"] for n in (1, 2, 3)} == {"ng"}
    assert "2 parts: 1 OK, 1 NG" in err
    assert "0 of 3 bad images would be OK" in err


def test_verdicts_and_scores_are_those_of_infer(run, folders):
    run(*ALL)
    status, out, err = run("infer", "inspect", "widget", "--mm-per-px", 1, "parts", "bad")
    assert status == 0, err
    found = results(folders)
    for record in map(json.loads, out.splitlines()):
        mine = found[record["path"]]
        assert float(mine["score"]) == record["score"]
        assert float(mine["threshold"]) == record["threshold"]
        assert mine["verdict"] == record["decision"]
        assert int(mine["n_regions"]) == len(record["regions"])
        assert [float(mine["largest_area_px"] or 0)] == [max((r["area_mm2"] for r in record["regions"]), default=0)]


def test_good_images_have_the_scores_that_the_fit_gave_them(run, folders):
    run(*ALL)
    _, out, _ = run(
        "fit", "other", "widget", "--mm-per-px", 1, "--profile", "recommended", "--all-scores", "widget/good"
    )
    by_fit = json.loads(out.splitlines()[0])["ok_scores"]
    mine = {path: float(row["score"]) for path, row in results(folders).items() if row["given_as"] == "good"}
    assert mine == by_fit


def test_the_same_command_again_does_nothing_twice(run, folders, forwards):
    run(*ALL)
    before = results(folders)
    forwards.clear()
    status, _, err = run(*ALL)
    assert status == 0, err
    assert not forwards
    assert "was fitted on the same images and is used again" in err
    assert results(folders) == before


def test_a_stopped_run_goes_on_where_it_was(run, folders, forwards, monkeypatch):
    score = Inspector._score
    done = []

    def stopping(self, kind, path):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        return score(self, kind, path)

    monkeypatch.setattr(Inspector, "_score", stopping)
    assert run(*ALL)[0] == 130
    monkeypatch.setattr(Inspector, "_score", score)
    forwards.clear()
    assert run(*ALL)[0] == 0
    assert len(forwards) == 3  # of five: two are kept
    assert len(results(folders)) == 15


def test_a_changed_good_folder_is_fitted_anew(run, folders, forwards):
    run(*ALL)
    forwards.clear()
    cv2.imwrite("widget/good/11.png", part(11))
    status, _, err = run(*ALL)
    assert status == 0, err
    assert len(forwards) == 11 + 5  # the maps are of the model before
    assert len(results(folders)) == 16


def test_damaged_maps_are_made_anew(run, folders, forwards):
    run(*ALL)
    before = results(folders)
    for number, kept in enumerate(sorted((folders / "inspection-widget" / "maps").iterdir())):
        kept.write_bytes([b"", b"PK\x03\x04", kept.read_bytes()[:200]][number % 3])
    forwards.clear()
    assert run(*ALL)[0] == 0
    assert len(forwards) == 5
    assert results(folders) == before


def test_a_broken_part_has_an_error_and_the_others_a_verdict(run, folders):
    (folders / "parts" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    status, _, err = run(*ALL)
    assert status == 1
    found = results(folders)
    assert found["parts/3.png"]["verdict"] == ""
    assert found["parts/3.png"]["error"]
    assert found["parts/2.png"]["verdict"] == "ng"
    assert "3 parts: 1 OK, 1 NG, 1 not judged" in err


def test_a_broken_bad_image_chooses_no_threshold(run, folders):
    (folders / "bad" / "4.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    status, _, err = run(*ALL)
    assert status == 1
    assert "1 of 4 bad images cannot be judged, so no threshold was chosen" in err
    assert not list(folders.glob("models/**/calib.json"))
    assert not (folders / "inspection-widget" / "results.csv").exists()


def test_a_good_image_given_as_bad_is_refused(run, folders):
    image = cv2.imread("widget/good/3.png")
    cv2.imwrite("bad/again.bmp", image)
    status, _, err = run(*ALL)
    assert status == 2
    assert "bad/again.bmp: given as bad, but the same pixels are among the good images" in err


def test_a_part_of_the_fit_has_its_score_by_the_others(run, folders):
    image = cv2.imread("widget/good/3.png")
    cv2.imwrite("parts/again.bmp", image)
    assert run(*ALL)[0] == 0
    found = results(folders)
    assert found["parts/again.bmp"]["score"] == found["widget/good/3.png"]["score"]


@pytest.fixture
def with_an_unusual_image(folders):
    odd = part(50)
    odd[20:60, 30:80] = np.minimum(odd[20:60, 30:80] + 60, 255)
    cv2.imwrite("widget/good/odd.png", odd)


@pytest.mark.usefixtures("with_an_unusual_image")
def test_an_unusual_good_image_is_named_and_can_be_kept(run, folders):
    _, _, err = run(*ALL)
    assert "next: 1 good image stands out: look at widget/good/odd.png" in err
    without = float(results(folders)["parts/1.png"]["threshold"])
    status, _, err = run(*ALL, "--keep", "widget/good/odd.png")
    assert status == 0, err
    assert float(results(folders)["parts/1.png"]["threshold"]) > without
    assert "stands out" not in err, "nobody is asked to look at it again"


def test_a_threshold_by_hand_is_taken(run, folders):
    assert run(*ALL, "--threshold", "0.001")[0] == 0
    assert {row["verdict"] for row in results(folders).values()} == {"ng"}


def test_what_to_do_next_asks_for_more_images(run, folders):
    for number in range(5, 11):
        (folders / "widget" / "good" / f"{number}.png").unlink()
    _, _, err = run("inspect", "widget/good")
    assert "next: add good images: 4 are few" in err
    assert "next: give some bad images with --ng" in err


def test_one_good_image_gives_no_threshold_and_says_what_to_do(run, folders):
    status, _, err = run("inspect", "widget/good/1.png", "--name", "one")
    assert status == 2
    assert "a threshold needs at least two different ones" in err


def test_an_image_given_twice_as_different_kinds_is_refused(run, folders):
    status, _, err = run("inspect", "widget/good", "--ng", "widget/good/1.png")
    assert status == 2
    assert "widget/good/1.png is given among the good images and among the bad images" in err
    assert not (folders / "models").exists()


def test_areas_are_in_mm2_where_the_scale_is_given(run, folders):
    run(*ALL)
    in_pixels = float(results(folders)["parts/2.png"]["largest_area_px"])
    run(*ALL, "--mm-per-px", "0.5", "--out", "scaled")
    in_mm2 = float(results(folders, "scaled")["parts/2.png"]["largest_area_mm2"])
    assert in_mm2 == pytest.approx(in_pixels * 0.25)


def test_the_page_has_scores_pictures_and_what_to_do_next(run, folders):
    run(*ALL)
    page = (folders / "inspection-widget" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Inspection of widget</h1>" in page
    assert page.count('data-kind="defective"') == 3
    assert page.count('data-kind="part"') == 2
    assert "What to do next" in page
    assert not re.search(r"(?:src|href)=.(?!data:|#)", page)


@pytest.mark.usefixtures("with_an_unusual_image")
def test_the_page_shows_the_good_image_that_stands_out_with_its_map(run, folders):
    run(*ALL)
    page = (folders / "inspection-widget" / "report.html").read_text(encoding="utf-8")
    standing_out = page[page.index("Good images that stand out") : page.index("<h3>Images</h3>")]
    assert standing_out.count("<figure") == 1
    image, heatmap, _ = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", standing_out)
    grey, coloured = (
        cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR) for text in (image, heatmap)
    )
    assert np.ptp(grey.astype(int), axis=2).max() < 12  # the part has no colour of its own
    assert np.ptp(coloured.astype(int), axis=2)[20:60, 30:80].max() > 40


def test_the_command_of_the_readme_works_as_it_is_written(run, folders):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^roi-anomaly (inspect .*)$", readme, re.MULTILINE)
    (folders / "hazelnut").mkdir()
    for old, new in (("widget/good", "hazelnut/good"), ("parts", "hazelnut/parts"), ("bad", "hazelnut/bad")):
        (folders / old).rename(folders / new)
    status, _, err = run(*shlex.split(line))
    assert status == 0, err
    assert (folders / "inspection-hazelnut" / "report.html").exists()
    assert len(results(folders, "inspection-hazelnut")) == 15
