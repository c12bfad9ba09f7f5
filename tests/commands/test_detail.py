"""`--detail` of `fit`: what it stores and prints, and what it refuses."""

import json

import pytest

from tests.commands.parts import ROI, service
from tests.factories import KEY


def test_a_fit_in_tiles_is_what_the_service_fits(run, work, features):
    status, out, _ = run("fit", *ROI, "parts", "--detail", "2")
    assert status == 0
    printed = json.loads(out)
    assert (printed["detail"], printed["token_shape"], printed["n_embeddings"]) == (2, [14, 14], 4 * 196)
    fitted = service(work, features).fitted(KEY)
    assert (fitted.detail, len(fitted.memory.embeddings)) == (2, printed["coreset_size"])
    status, out, _ = run("infer", *ROI, "parts/1.png")
    assert status == 0
    assert run("fit", *ROI, "parts/2.jpg", "--append")[0] == 0
    status, _, err = run("fit", *ROI, "parts/2.jpg", "--append", "--detail", "3")
    assert (status, "append keeps the detail of the model, 2" in err) == (2, True)


def test_auto_says_what_it_chose_and_why(run):
    status, out, err = run("fit", *ROI, "parts", "--detail", "auto", "--smallest-defect-mm", "1.8")
    assert status == 0
    # 200 pixels of 0.2 mm: 9 pixels are 0.63 tokens at detail 2.
    reason = "detail=2: a defect of 1.8 mm is 9 pixels long, and a token 14.3: it covers 0.63 tokens"
    assert json.loads(out)["detail_reason"] == reason
    assert reason in err


def test_nothing_is_said_of_detail_1(run):
    assert "detail" not in json.loads(run("fit", *ROI, "parts")[1])


@pytest.mark.parametrize("detail", ["0", "6", "x", "2.0"])
def test_another_detail_is_refused_before_anything_is_read(run, detail):
    status, _, err = run("fit", *ROI, "parts", "--detail", detail)
    assert status == 2
    assert f"'{detail}' is neither auto nor a whole number from 1 to 5" in err


@pytest.mark.parametrize("length", ["0", "nan", "1,5", "-2"])
def test_a_length_that_is_none_is_refused(run, length):
    status, _, err = run("fit", *ROI, "parts", f"--smallest-defect-mm={length}")
    assert status == 2
    assert "is not a number above 0" in err
