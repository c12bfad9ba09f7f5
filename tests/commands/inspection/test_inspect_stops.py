"""A run of ``inspect`` that fails leaves nothing but what the next one goes on with."""

ALL = ("inspect", "widget/good", "parts", "--ng", "bad")


def test_a_failed_run_leaves_no_empty_folder(run, folders):
    (folders / "widget" / "good" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert run("inspect", "widget/good")[0] == 1
    assert not (folders / "inspection-widget").exists()
    (folders / "mine").mkdir()
    assert run("inspect", "widget/good", "--out", "mine")[0] == 1
    assert (folders / "mine").is_dir()


def test_a_run_that_fails_late_keeps_what_it_goes_on_with(run, folders, forwards):
    (folders / "bad" / "4.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert run(*ALL)[0] == 1
    (folders / "bad" / "4.png").unlink()
    forwards.clear()
    assert run(*ALL)[0] == 0
    assert not forwards
