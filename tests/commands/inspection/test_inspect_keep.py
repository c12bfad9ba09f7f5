"""``inspect --keep`` and the good images that stand out."""

import html

import cv2
import numpy as np
import pytest

from tests.commands.inspection.conftest import part

ALL = ("inspect", "widget/good", "parts", "--ng", "bad")


def odd_image():
    odd = part(50)
    odd[20:60, 30:80] = np.minimum(odd[20:60, 30:80] + 60, 255)
    return odd


def page_of(folder):
    return html.unescape((folder / "inspection-widget" / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("n_odd", [1, 2])
def test_the_reason_names_the_option_that_keeps_images(run, folders, n_odd):
    cv2.imwrite("widget/good/odd.png", odd_image())
    if n_odd == 2:
        cv2.imwrite("widget/good/odder.png", np.minimum(odd_image(), 180))
    _, _, err = run(*ALL)
    for told in (err, page_of(folders)):
        assert "with --keep, and the threshold becomes" in told
        assert "in keep" not in told


def test_of_images_with_one_name_the_one_that_is_named_is_kept(run, folders):
    for folder, image in (("a", part(51)), ("b", odd_image()), ("c", part(52))):
        (folders / "widget" / "good" / folder).mkdir()
        cv2.imwrite(f"widget/good/{folder}/1.png", image)
    _, _, err = run(*ALL)
    assert "1 good image stands out: look at widget/good/b/1.png" in err
    _, _, err = run(*ALL, "--keep", "widget/good/a/1.png")
    assert "1 good image stands out: look at widget/good/b/1.png" in err
    status, _, err = run(*ALL, "--keep", "widget/good/b/1.png")
    assert status == 0, err
    assert "stands out" not in err


def test_keeping_what_is_no_good_image_is_refused(run, folders):
    status, _, err = run(*ALL, "--keep", "bad/1.png")
    assert status == 2
    assert "--keep bad/1.png: this is not one of the good images that were scored" in err


def test_images_to_keep_beside_a_named_threshold_are_refused_at_once(run, folders):
    status, _, err = run(*ALL, "--keep", "widget/good/1.png", "--threshold", "0.5")
    assert status == 2
    assert "--keep cannot be combined with --threshold" in err
    assert not (folders / "models").exists()
