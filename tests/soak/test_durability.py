"""Short forms of the long runs about crashes, several processes, and what their judge lets pass."""

import time

import pytest

from harness.history import Answer, History, Lost, Refused
from harness.versions import Version
from soak import crash, mixed, processes


def test_a_service_that_is_killed_answers_with_whole_models(capsys):
    assert crash.main(["--rounds", "2"]) == 0, capsys.readouterr().out
    assert "| models found whole | 6 |" in capsys.readouterr().out


@pytest.mark.long
def test_every_reply_of_two_workers_is_that_of_a_model_of_now(capsys):
    assert processes.main(["--minutes", "0.15", "--kill-every", "3", "--clients", "8"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert "| workers killed |" in printed
    assert "| promises broken | 0 |" in printed


@pytest.mark.long
def test_a_mixed_load_is_drawn(tmp_path, capsys):
    picture = tmp_path / "soak.png"
    assert mixed.main(["--minutes", "0.1", "--clients", "3", "--out", str(picture)]) == 0, capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_slower_inferences_are_reported_where_there_are_enough_samples():
    """Inferences that become slower against the yardstick are reported, but not where the whole machine is busy."""
    steady = [mixed.Sample(minute, 400, 50, 90, 3, 20) for minute in range(40)]
    slow = [mixed.Sample(minute, 400, 50 + 5 * minute, 900, 3, 20) for minute in range(40)]
    busy = [mixed.Sample(minute, 400, 50 + 5 * minute, 900, 3, 20 + 2 * minute) for minute in range(40)]
    assert mixed.slower(steady) == []
    assert mixed.slower(slow) == ["the median inference went from 3.62 to 11.12 times the yardstick"]
    assert mixed.slower(busy) == [], "what else the machine does is not the service's"
    assert mixed.slower(slow[::2]) == []


# --- what the history lets pass

A, B, C = (Version(name, (), name, "", number) for number, name in enumerate("ABC"))


@pytest.fixture
def history():
    """A is fitted and calibrated with 0.4."""
    history = History()
    history.seed(A, 0.4, A)
    return history


def now(history, answer):
    start = time.monotonic()
    return history.contradiction(answer, start, time.monotonic())


def test_version_is_possible_once_its_fit_begins_and_alone_after_its_end(history):
    """During a fit either version may answer, after its end only the new one, unless the request began before."""
    before = time.monotonic()
    assert now(history, Answer(B, "stale", None))
    with history.fitting(B):
        for version, state, threshold in ((A, "applied", 0.4), (B, "stale", None)):
            assert now(history, Answer(version, state, threshold)) is None
        assert now(history, Answer(C, "stale", None))
    assert now(history, Answer(B, "stale", None)) is None
    assert "possible ['B']" in now(history, Answer(A, "applied", 0.4))
    assert history.contradiction(Answer(A, "applied", 0.4), before, time.monotonic()) is None, "it began before"
    assert now(history, Answer(None, "stale", None)) == "the score is that of no version, possible ['B']"


def test_fit_without_reply_may_be_done_and_a_refused_fit_was_not(history):
    """After a lost reply both versions may answer; a refused fit makes no version possible."""
    with pytest.raises(Lost), history.fitting(B):
        raise Lost
    with pytest.raises(Refused), history.fitting(C):
        raise Refused
    assert now(history, Answer(A, "applied", 0.4)) is None
    assert now(history, Answer(B, "stale", None)) is None
    assert now(history, Answer(C, "stale", None))


def test_a_threshold_belongs_to_the_version_that_it_was_made_for(history):
    with history.fitting(B):
        pass
    with history.calibrating(0.6):
        pass
    assert now(history, Answer(B, "applied", 0.6)) is None
    assert "possible [0.6]" in now(history, Answer(B, "applied", 0.4))
    assert now(history, Answer(B, "stale", None)) == "the calibration of B is called stale"
    assert now(history, Answer(B, "none", None)) == "an acknowledged calibration is not there"
    assert now(history, Answer(B, "applied", None)) == "calibration 'applied' with threshold None"
    with history.fitting(A):
        pass
    assert "possible []" in now(history, Answer(A, "applied", 0.4))
    assert now(history, Answer(A, "stale", None)) is None
