"""Good test parts of another lamp are named, in every result; those of the same one are not."""

import shutil

import cv2
import numpy as np
import pytest

from tests.commands.evaluate.reports import results
from tests.factories import smooth_parts

pytestmark = pytest.mark.slow


@pytest.fixture
def lit(part, tmp_path):
    """Writes a data set of one part that is photographed again and again: 12 to fit on, 10 good and 1 defective."""

    def write(lamp):
        rng = np.random.default_rng(5)
        base = smooth_parts(1)[0].astype(np.float64)
        shots = [np.clip(base + rng.normal(0, 12, base.shape), 0, 255) for _ in range(23)]
        places = [f"train/good/{n}.png" for n in range(12)] + [f"test/good/{n}.png" for n in range(10)]
        for place, shot in zip([*places, "test/bad/0.png"], shots, strict=True):
            path = tmp_path / "lit" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if "test/good" in place:
                shot = np.clip(shot * lamp, 0, 255)
            elif "bad" in place:
                shot[30:60, 30:60] = 0
            cv2.imwrite(str(path), np.rint(shot).astype(np.uint8))

    return write


def test_parts_of_another_lamp_are_named_with_the_test_behind_it(run, lit, tmp_path):
    lit(0.5)
    _, out, _ = run("lit")
    (found,) = results(tmp_path / "evaluation-lit")["categories"]
    beside = found["good_against_training"]
    assert beside["matters"]
    assert beside["p_value"] < 0.01
    assert beside["median"] == pytest.approx(
        np.median([image["score"] for image in found["images"] if image["defect"] == "good"])
    )
    assert beside["median_of_fit"] == pytest.approx(np.median(found["ok_scores"]))
    assert beside["promised"] == found["promise"]["false_reject_rate_at_most"]
    sentence = "The good test parts score higher than the training images (median "
    (remark,) = (remark for remark in found["remarks"] if remark.startswith(sentence))
    assert f"! {remark}" in out
    assert sentence in (tmp_path / "evaluation-lit" / "report.html").read_text()


def test_parts_of_the_same_lamp_are_not(run, lit, tmp_path):
    lit(1)
    _, out, _ = run("lit")
    (found,) = results(tmp_path / "evaluation-lit")["categories"]
    assert not found["good_against_training"]["matters"]
    assert "score higher than the training images" not in out


def test_copies_and_training_images_are_no_further_parts(run, lit, tmp_path):
    lit(0.5)
    run("lit")
    before = results(tmp_path / "evaluation-lit")["categories"][0]["good_against_training"]
    for source, name in (("test/good/0.png", "copy.png"), ("train/good/0.png", "trained.png")):
        shutil.copy(tmp_path / "lit" / source, tmp_path / "lit/test/good" / name)
    run("lit")
    (found,) = results(tmp_path / "evaluation-lit")["categories"]
    assert found["n_good"] == before["n"] + 2 == 12
    assert found["good_against_training"] == before


def test_suspicious_training_images_are_named_and_shown(run, lit, tmp_path):
    lit(1)
    odd = tmp_path / "lit/train/good/3.png"
    image = cv2.imread(str(odd))
    image[20:70, 20:70] = 0
    cv2.imwrite(str(odd), image)
    run("lit")
    (found,) = results(tmp_path / "evaluation-lit")["categories"]
    assert found["suspicious"] == ["lit/train/good/3.png"]
    page = (tmp_path / "evaluation-lit" / "report.html").read_text()
    shown = page.partition("Training images that stand out")[2].partition("<h3>")[0]
    assert shown.count("<figure") == 1
    assert "lit/train/good/3.png" in shown
    assert f"score {found['ok_scores'][3]:.4f}" in shown
    assert shown.count("data:image/jpeg;base64,") == 3
