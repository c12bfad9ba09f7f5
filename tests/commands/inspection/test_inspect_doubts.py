"""``inspect`` says what is doubtful, as the other commands do, and refuses what can give no threshold."""

import csv
import shutil

import cv2
import numpy as np
import pytest

from backend.commands.inspection import page
from tests.commands.inspection.conftest import part

ALL = ("inspect", "widget/good", "parts", "--ng", "bad")


def page_of(folder):
    return (folder / "inspection-widget" / "report.html").read_text(encoding="utf-8")


def test_a_part_of_another_size_is_warned_about_every_time(run, folders):
    cv2.imwrite("parts/tiny.png", part(30)[:1, :1].copy())
    for _ in range(2):  # the second time its map is read from the file
        status, _, err = run(*ALL)
        assert status == 0, err
        assert "warning: parts/tiny.png: the image has 1 × 1 pixels, but those of the fit have 110 × 90" in err
        assert "parts/tiny.png: the image has 1 × 1 pixels" in page_of(folders)


def test_a_part_of_fewer_bits_is_warned_about_every_time(run, folders):
    for folder in ("widget/good", "bad", "parts"):
        for path in (folders / folder).iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 16)
    cv2.imwrite("parts/dark.png", cv2.imread("parts/1.png", cv2.IMREAD_UNCHANGED) // 64)
    for _ in range(2):
        status, _, err = run(*ALL)
        assert status == 0, err
        assert "warning: parts/dark.png: the image reaches" in err


def test_a_threshold_that_rejects_good_images_is_warned_about(run, folders):
    _, _, err = run(*ALL)
    assert "warning" not in err
    _, _, err = run(*ALL, "--threshold", 0)
    assert "warning: 10 of 10 images of the fit reach the threshold 0" in err
    assert "10 of 10 images of the fit reach the threshold 0" in page_of(folders)


def test_good_images_that_look_alike_are_warned_about_every_time(run, folders):
    cv2.imwrite("widget/good/copy.jpg", cv2.imread("widget/good/3.png"), [cv2.IMWRITE_JPEG_QUALITY, 98])
    for _ in range(2):
        _, _, err = run(*ALL)
        assert "warning: 1 pair of images of the fit looks nearly the same" in err


def test_one_good_image_is_refused_before_anything_is_fitted(run, folders, forwards):
    status, _, err = run("inspect", "widget/good/1.png", "--name", "one")
    assert status == 2
    assert "widget/good/1.png gives 1 good image, and a threshold needs at least two different ones" in err
    assert not forwards
    assert not (folders / "models").exists()
    assert not (folders / "inspection-one").exists()


def test_copies_of_one_good_image_are_refused_in_words_of_inspect(run, folders):
    shutil.copy("widget/good/1.png", folders / "widget" / "1.png")
    status, _, err = run("inspect", "widget", "--any-folder", "--name", "w")
    assert status == 0, err  # a copy among others
    (folders / "same").mkdir()
    for number in (1, 2):
        shutil.copy("widget/good/1.png", folders / "same" / f"{number}.png")
    status, _, err = run("inspect", "same")
    assert status == 2
    assert "a threshold needs at least two different ones" in err
    assert "--ok" not in err


def test_another_blur_fits_anew(run, folders, forwards, monkeypatch):
    run(*ALL)
    forwards.clear()
    monkeypatch.setenv("BLUR_SIGMA", "2")
    status, _, err = run(*ALL)
    assert status == 0, err
    assert len(forwards) == 10  # the memory bank is the same, and so are the maps of the others
    forwards.clear()
    assert run(*ALL)[0] == 0
    assert not forwards


def test_a_folder_name_that_is_no_text_names_the_model_with_escapes(run, folders):
    odd = folders / "t\udce4il"
    try:
        (folders / "widget").rename(odd)
    except (OSError, UnicodeError):
        pytest.skip("the file system takes text alone")
    status, _, err = run("inspect", f"{odd}/good", "parts")
    assert status == 0, err
    assert (folders / "inspection-t\\udce4il" / "results.csv").exists()


def test_a_name_that_cannot_be_used_is_told_by_its_option(run, folders):
    status, _, err = run(*ALL, "--name", "a\nb")
    assert status == 2
    assert err.startswith("--name: ")


def test_an_empty_scale_is_refused(run, folders):
    status, _, err = run(*ALL, "--mm-per-px", "")
    assert status == 2
    assert "--mm-per-px: must be a number" in err
    assert not (folders / "models").exists()


def test_results_keep_a_verdict_beside_a_warning(run, folders):
    cv2.imwrite("parts/tiny.png", part(30)[:1, :1].copy())
    run(*ALL)
    with (folders / "inspection-widget" / "results.csv").open(encoding="utf-8") as file:
        found = {row["path"]: row for row in csv.DictReader(file)}
    assert found["parts/tiny.png"]["verdict"] in ("ok", "ng")
    assert "1 × 1 pixels" in found["parts/tiny.png"]["warning"]
    assert not found["parts/1.png"]["warning"]


def test_the_page_draws_the_regions_that_it_counts(run, folders, monkeypatch):
    drawn = []

    def draw(*args, least_area_px, **options):
        drawn.append(least_area_px)
        return real(*args, least_area_px=least_area_px, **options)

    real = page.draw
    monkeypatch.setattr(page, "draw", draw)
    monkeypatch.setenv("AREA_MM2_THR", "3")
    assert run(*ALL, "--mm-per-px", "0.5")[0] == 0
    assert set(drawn) == {12}
    assert "ground truth" not in page_of(folders)


def test_a_model_of_other_images_is_said_to_be_replaced(run, folders):
    _, _, err = run(*ALL)
    assert "is replaced, because" not in err
    (folders / "widget" / "good" / "10.png").unlink()
    _, _, err = run(*ALL)
    assert "is replaced, because" in err
    assert "versions inspect widget` will list the old one" in err
    _, out, _ = run("versions", "inspect", "widget")
    assert '"n_images": 10' in out


def test_a_threshold_that_somebody_else_chose_is_said_to_be_replaced(run, folders):
    run(*ALL)
    assert "this run chose a new one" not in run(*ALL)[2]
    run("calibrate", "inspect", "widget", "--mm-per-px", 1, "--threshold", 0.123456)
    _, _, err = run(*ALL)
    assert "the threshold was 0.1235 before; this run chose a new one" in err


def test_a_bad_image_that_looks_like_a_good_one_is_warned_about(run, folders):
    cv2.imwrite("bad/copy.jpg", cv2.imread("widget/good/3.png"), [cv2.IMWRITE_JPEG_QUALITY, 98])
    for _ in range(2):
        _, _, err = run(*ALL)
        assert "warning: 1 image looks nearly the same as one of the fit (bad/copy.jpg and 3.png)" in err
