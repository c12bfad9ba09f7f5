"""Progress on stderr."""

from backend.commands.console import progress_bar, step_bars


def test_nothing_to_do_shows_no_bar(capfd):
    with progress_bar("infer", 0):
        pass
    with step_bars() as on_progress:
        on_progress("coreset", 0, 0)
        on_progress("coreset", 0, 0)
    assert capfd.readouterr().err == ""


def test_each_step_has_one_bar(capfd):
    with step_bars() as on_progress:
        for step, done in [("extract", 1), ("extract", 2), ("coreset", 2)]:
            on_progress(step, done, 2)
    err = capfd.readouterr().err
    assert [err.count(f"{step}:   0%") for step in ("extract", "coreset", "score")] == [1, 1, 0], "bars begin with it"
    assert all(f"{step}: 100%" in err for step in ("extract", "coreset"))
