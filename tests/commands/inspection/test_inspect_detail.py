"""`inspect --detail`: fits in tiles once, and again where another detail is asked for."""


def test_a_model_of_another_detail_is_fitted_anew(folders, forwards, command_line):
    arguments = ("inspect", "widget/good", "parts", "--ng", "bad")
    status, _, err = command_line(*arguments, "--detail", "2")
    assert status == 0, err
    assert len(forwards) == 4 * (10 + 3 + 2)
    status, _, err = command_line(*arguments, "--detail", "2")
    assert (status, "is used again" in err) == (0, True)
    assert len(forwards) == 4 * (10 + 3 + 2)
    status, _, err = command_line(*arguments)
    assert (status, "is replaced" in err) == (0, True)
    assert len(forwards) == (4 + 1) * (10 + 3 + 2)


def test_the_smallest_defect_chooses(folders, command_line):
    # 110 pixels of 1 mm: at detail 2 a token is 7.9 pixels, at detail 1 it is 13.8. The network shows every pixel
    # with one tile, so one is enough.
    status, _, err = command_line("inspect", "widget/good", "--detail", "auto", "--smallest-defect-mm", "8")
    assert status == 0, err
    assert "detail=1: a defect of 8 mm is 8 pixels long, and a token 13.8: it covers 0.58 tokens, and may be" in err
