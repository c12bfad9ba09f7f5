"""``feedback``: a verdict on images, one line for each."""

import cv2
import pytest

from tests.commands.parts import ROI
from tests.factories import KEY, listed, load, snapshot

IDS = ROI[:2]


@pytest.fixture
def calibrated(run, work, images):
    cv2.imwrite(str(work / "new.png"), cv2.resize(images[4], (200, 160), interpolation=cv2.INTER_AREA))
    assert run("fit", *ROI, "parts/1.png", "parts/a")[0] == 0
    assert run("calibrate", *ROI)[0] == 0
    return work / "models"


def files_of(models):
    return {name: what for name, what in snapshot(models).items() if not name.endswith(".lock")}


def test_a_good_image_is_one_change_and_one_roll_back_takes_it_back(run, calibrated):
    before = load(calibrated)
    status, out, err = run("feedback", *IDS, "good", "new.png")
    assert (status, len(out.splitlines())) == (0, 1), err
    assert out.startswith("new.png scores ")
    assert "of its patches join" in out or "already covers the image" in out
    after = load(calibrated)
    assert (after.calibration.n_ok, len(after.metadata["images"])) == (4, 4)
    assert listed(calibrated)[0][1] == "feedback"
    assert run("rollback", *IDS)[0] == 0
    assert (load(calibrated).metadata, load(calibrated).calibration) == (before.metadata, before.calibration)


def test_a_dry_run_prints_what_would_change_and_changes_nothing(run, calibrated):
    before = files_of(calibrated)
    for verdict in ("good", "bad"):
        status, out, _ = run("feedback", *IDS, verdict, "new.png", "--dry-run")
        assert status == 0
        assert out.endswith("Nothing was stored (dry_run).\n")
    assert files_of(calibrated) == before


def test_bad_images_of_a_folder_count_one_after_the_other(run, calibrated, work):
    (work / "returned").mkdir()
    for name in ("a.png", "b.png"):
        picture = cv2.imread(str(work / "new.png"))
        picture[20:60, 20:60] = 255 if name == "a.png" else 0
        cv2.imwrite(str(work / "returned" / name), picture)
    status, out, err = run("feedback", *IDS, "bad", "returned", "--mm-per-px", "0.2")
    assert (status, len(out.splitlines())) == (0, 2), err
    assert load(calibrated).calibration.n_ng == 2
    assert load(calibrated, KEY).calibration.n_ok == 3


def test_what_cannot_count_is_said_and_changes_nothing(run, calibrated):
    before = files_of(calibrated)
    assert run("feedback", *IDS, "fine", "new.png")[0] == 2
    status, out, err = run("feedback", *IDS, "bad", "parts/1.png")
    assert (status, out) == (1, "")
    assert "parts/1.png is in the memory bank as a good image" in err
    assert run("feedback", *IDS, "good", "nowhere.png")[0] == 2
    assert files_of(calibrated) == before
