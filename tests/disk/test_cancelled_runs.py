"""Runs that anybody cancels: which of them end, which are too late, and what is left of them."""

import json
import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from backend.common.errors import RunCancelled, RunNotFound, RunStoring, StorageError
from backend.common.telemetry import RequestRecord, recording
from backend.disk.progress import RunBoard
from tests.factories import KEY, refusing


def only_run(root):
    (shown,) = RunBoard(root).running()
    return shown


def cancelled(root, kind, n_images, work):
    """How a run ended that is cancelled while it does this work."""
    try:
        with RunBoard(root).run(kind, KEY, n_images) as run:
            work(run)
    except RunCancelled as exc:
        return str(exc)
    return "not cancelled"


def left_in(root):
    return sorted(path.name for path in (root / ".runs").iterdir())


def test_run_that_is_cancelled_ends_where_it_next_tells_how_far_it_is(tmp_path):
    after, ids = [], []

    def work(run):
        run.report("extract", 5, 20)
        shown = only_run(tmp_path)
        ids.append(shown["run_id"])
        assert RunBoard(tmp_path).cancel(*ids) == shown
        assert RunBoard(tmp_path).cancel(*ids) == shown, "twice is the same as once"
        run.report("extract", 6, 20)
        after.append("went on")

    with capture_logs() as logged, recording(RequestRecord("request-7")):
        assert "step extract, 6 of 20" in cancelled(tmp_path, "fit", 20, work)
    assert after == []
    assert left_in(tmp_path) == []
    (event,) = (line for line in logged if line["event"] == "run.cancelled")
    assert (event["kind"], event["run_id"], event["request_id"]) == ("fit", *ids, "request-7")
    assert (event["role_id"], event["step"], event["done"], event["total"]) == ("Master1", "extract", 6, 20)


def test_ids_of_runs_differ_and_cancel_no_other_run(tmp_path):
    board = RunBoard(tmp_path)

    def work(run):
        ids = {shown["kind"]: shown["run_id"] for shown in board.running()}
        assert len(set(ids.values())) == 2
        assert {len(run_id) for run_id in ids.values()} == {32}, "122 random bits in hexadecimal"
        board.cancel(ids["infer_dataset"])
        kept.report("extract", 1, 2)
        run.report("score", 1, 3)

    with board.run("fit", KEY, 2) as kept:
        assert "step score, 1 of 3" in cancelled(tmp_path, "infer_dataset", 3, work)
        kept.report("extract", 2, 2)


def test_run_cancelled_after_its_last_report_still_ends_as_cancelled(tmp_path):
    def work(run):
        run.report("score", 3, 3)
        RunBoard(tmp_path).cancel(only_run(tmp_path)["run_id"])

    assert "step score, 3 of 3" in cancelled(tmp_path, "infer_dataset", 3, work)
    assert left_in(tmp_path) == []


def test_run_that_stores_its_result_is_not_cancelled_any_more(tmp_path):
    with RunBoard(tmp_path).run("fit", KEY, 3) as run:
        run.conclude()
        with pytest.raises(
            RunStoring,
            match=r"the fit of role 'Master1', roi 'Pattern' is storing its result "
            ".*/rollback",
        ):
            RunBoard(tmp_path).cancel(only_run(tmp_path)["run_id"])
        run.report("score", 3, 3)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("which", ["", "ended", "never", "*", "..", "../x", "x/y", "\0", "\ud800", ".json"])
def test_run_that_is_not_under_way_cannot_be_cancelled(tmp_path, which):
    with RunBoard(tmp_path).run("fit", KEY, 3):
        ended = only_run(tmp_path)["run_id"]
    with RunBoard(tmp_path).run("fit", KEY, 3) as run:
        with pytest.raises(RunNotFound, match="is not under way: it has ended, or never existed"):
            RunBoard(tmp_path).cancel(ended if which == "ended" else which)
        run.report("extract", 1, 3)


def test_of_cancelling_and_storing_at_the_same_time_exactly_one_wins(tmp_path):
    outcomes = set()
    for _ in range(100):
        said, both = [], threading.Barrier(2)

        def cancel(run_id, said=said, both=both):
            both.wait()
            try:
                RunBoard(tmp_path).cancel(run_id)
                said.append("cancelled")
            except (RunStoring, RunNotFound):
                said.append("too late")

        def work(both=both):
            with RunBoard(tmp_path).run("fit", KEY, 1) as run:
                thread = threading.Thread(target=cancel, args=[only_run(tmp_path)["run_id"]])
                thread.start()
                both.wait()
                try:
                    run.conclude()
                    return "stored"
                finally:
                    thread.join()

        try:
            done = work()
        except RunCancelled:
            done = "stored nothing"
        outcomes.add((done, *said))
        assert left_in(tmp_path) == []
    assert outcomes <= {("stored", "too late"), ("stored nothing", "cancelled")}


def test_files_of_a_cancelled_run_whose_process_died_are_cleared(tmp_path):
    board = RunBoard(tmp_path)
    with board.run("fit", KEY, 1):
        (path,) = (tmp_path / ".runs").glob("*.json")
        board.cancel(path.stem)
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "process_started": 1.0}))
        assert left_in(tmp_path) == [f"{path.stem}.cancelled", path.name]
        assert board.running() == []
        assert left_in(tmp_path) == []
        with pytest.raises(RunNotFound):
            board.cancel(path.stem)


def test_lone_file_of_a_run_is_cleared_an_hour_later(tmp_path):
    with RunBoard(tmp_path).run("fit", KEY, 1):
        lone = tmp_path / ".runs" / "lone.open"
        lone.touch()
        RunBoard(tmp_path).running()
        assert lone.exists(), "its record may come at once"
        for path in (tmp_path / ".runs").iterdir():
            os.utime(path, (0, 0))
        assert len(RunBoard(tmp_path).running()) == 1
        assert not lone.exists()
        assert len(left_in(tmp_path)) == 2, "a run of more than an hour can still be cancelled"


def test_run_of_an_earlier_version_is_listed_without_an_id(tmp_path):
    with RunBoard(tmp_path).run("fit", KEY, 1):
        (path,) = (tmp_path / ".runs").glob("*.json")
        record = json.loads(path.read_text())
        for earlier in ({**record, "run_id": "of another file"}, {k: v for k, v in record.items() if k != "run_id"}):
            path.write_text(json.dumps(earlier))
            assert "run_id" not in only_run(tmp_path)
            with pytest.raises(RunNotFound):
                RunBoard(tmp_path).cancel(path.stem)
        with pytest.raises(RunNotFound):
            RunBoard(tmp_path).cancel("of another file")


def test_run_whose_files_somebody_removed_goes_on(tmp_path):
    with RunBoard(tmp_path).run("fit", KEY, 2) as run:
        for path in (tmp_path / ".runs").iterdir():
            path.unlink()
        run.report("extract", 1, 2)
        run.conclude()
        run.report("score", 2, 2)


def test_run_goes_on_where_a_disk_does_not_say_whether_it_is_cancelled(tmp_path, monkeypatch):
    with RunBoard(tmp_path).run("fit", KEY, 2) as run, monkeypatch.context() as failing:
        refusing(failing, Path, "exists", 5)
        run.report("extract", 1, 2)


def test_board_that_cannot_be_written_says_so_and_the_run_goes_on(tmp_path, monkeypatch):
    with RunBoard(tmp_path).run("fit", KEY, 2) as run:
        with monkeypatch.context() as failing:
            refusing(failing, Path, "replace", 13)
            with pytest.raises(StorageError, match=r"cannot be cancelled \(Permission denied\); check the models"):
                RunBoard(tmp_path).cancel(only_run(tmp_path)["run_id"])
        run.report("extract", 1, 2)
