"""Kept judgements as files: bounded, whole after every death, and one sequence for all processes."""

import multiprocessing
import os
import signal
import sqlite3
import time

import pytest

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk import judgements
from backend.disk.judgements import Judgement, JudgementFiles, JudgementQuery, NewJudgement
from tests.factories import KEY, snapshot

OTHER = RoiKey("Master1", "Other")
CONTEXT = multiprocessing.get_context("spawn")  # this process has threads, which a fork would lose


def judgement(at, score=0.5, decision="ok"):
    threshold = None if decision is None else 0.6
    return Judgement(float(at), score, threshold, decision, 0.2, "9f86", f"request {at}")


def several(*times, **more):
    return [NewJudgement(judgement(at, **more), b"picture %d" % at) for at in times]


def marked(marks):
    """Judgements with marks, by their times."""
    return [NewJudgement(judgement(at), b"picture %d" % at, mark) for at, mark in marks.items()]


def times(files, key=KEY, **query):
    return [kept.at for kept in files.list(key, JudgementQuery(**query))]


def test_nothing_is_kept_before_the_first_and_asking_makes_no_file(tmp_path):
    files = JudgementFiles(tmp_path)
    assert files.list(KEY, JudgementQuery()) == []
    assert files.thumbnail(KEY, 1) is None
    assert list(tmp_path.iterdir()) == []


def test_judgements_with_the_same_mark_are_kept_once_while_the_first_stays(tmp_path):
    files = JudgementFiles(tmp_path)
    files.add(KEY, marked({1: "a", 2: "a", 3: None, 4: "b"}), 3)
    files.add(KEY, marked({5: "b", 6: None}), 3)
    assert times(files) == [6, 4, 3]
    files.add(KEY, marked({7: "a"}), 3)
    assert times(files) == [7, 6, 4]


def test_a_history_of_an_earlier_version_goes_on(tmp_path):
    files = JudgementFiles(tmp_path)
    files.add(KEY, several(1), 5)
    with sqlite3.connect(files.path(KEY)) as database:
        database.execute("DROP TABLE marks")
    files.add(KEY, marked({2: "a", 3: "a"}), 5)
    assert times(files) == [2, 1]


def test_judgements_come_back_as_they_were_newest_first(tmp_path):
    files = JudgementFiles(tmp_path)
    files.add(KEY, several(1, 2), 10)
    files.add(KEY, several(3, decision=None), 10)
    files.add(OTHER, several(9, decision="ng"), 10)
    found = JudgementFiles(tmp_path).list(KEY, JudgementQuery())
    assert [kept.number for kept in found] == [3, 2, 1]
    last = judgement(3, decision=None)
    assert {name: getattr(found[0], name) for name in vars(last)} == vars(last)
    assert [files.thumbnail(KEY, number) for number in (1, 3, 4)] == [b"picture 1", b"picture 3", None]
    assert times(files, OTHER) == [9]


def test_only_the_last_are_kept_and_numbers_go_on(tmp_path):
    files = JudgementFiles(tmp_path)
    for at in range(25):
        files.add(KEY, several(at), 10)
    assert times(files) == list(range(24, 14, -1))
    files.add(KEY, several(*range(25, 60)), 10)
    assert times(files) == list(range(59, 49, -1))
    files.add(KEY, several(60), 3)
    kept = files.list(KEY, JudgementQuery())
    assert [one.at for one in kept] == [60, 59, 58]
    assert kept[0].number > kept[1].number > 25, "the numbers of those that went are not used again"


def test_a_clock_that_was_set_back_loses_no_new_judgement(tmp_path):
    files = JudgementFiles(tmp_path)
    files.add(KEY, several(1000, 1001, 1002), 3)
    files.add(KEY, several(5, 6), 3)
    assert times(files) == [6, 5, 1002]


def test_pages_and_filters_give_each_judgement_once(tmp_path):
    files = JudgementFiles(tmp_path)
    for at in range(12):
        files.add(KEY, several(at, decision="ng" if at % 3 == 0 else "ok"), 100)
    assert times(files, decision="ng") == [9, 6, 3, 0]
    assert times(files, since=3.0, until=6.0) == [5, 4, 3]
    seen, before = [], None
    while page := files.list(KEY, JudgementQuery(before=before, limit=5)):
        seen += [kept.at for kept in page]
        before = page[-1].number
    assert seen == list(range(11, -1, -1))
    first_ng = files.list(KEY, JudgementQuery(decision="ng", limit=1))[0].number
    assert times(files, decision="ng", before=first_ng, limit=2) == [6, 3]


def test_the_file_stops_growing_once_it_is_full(tmp_path):
    files, sizes = JudgementFiles(tmp_path), []
    for round_ in range(6):
        files.add(KEY, [NewJudgement(judgement(at), bytes(10_000)) for at in range(round_ * 50, round_ * 50 + 50)], 50)
        sizes.append(files.path(KEY).stat().st_size)
    assert sizes[0] > 500_000
    assert sizes[-1] == sizes[2] < 2.2 * sizes[0]


@pytest.mark.parametrize("content", [b"no database at all, but some text of more than a hundred bytes" * 40, None])
def test_a_damaged_file_is_set_aside_and_another_one_begun(tmp_path, content):
    files = JudgementFiles(tmp_path)
    files.add(KEY, [NewJudgement(judgement(at), bytes(5000)) for at in range(20)], 100)
    path = files.path(KEY)
    whole = path.read_bytes()
    path.write_bytes(content or whole[:100] + b"\xff" * 20_000 + whole[20_100:])
    with pytest.raises(StorageError, match="history"):
        files.list(KEY, JudgementQuery())
    files.add(KEY, several(7), 100)
    assert times(files) == [7]
    assert path.with_name(f"{path.name}.damaged").is_file()


def test_an_empty_file_of_a_process_that_died_early_is_none(tmp_path):
    files = JudgementFiles(tmp_path)
    files.path(KEY).parent.mkdir()
    files.path(KEY).touch()
    assert files.list(KEY, JudgementQuery()) == []
    assert files.thumbnail(KEY, 1) is None
    files.add(KEY, several(1), 5)
    assert times(files) == [1]


def test_what_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    files = JudgementFiles(tmp_path)
    files.add(KEY, several(1, 2), 5)
    before = snapshot(tmp_path)
    size = files.path(KEY).stat().st_size
    connect = sqlite3.connect

    def on_a_full_disk(*arguments, **options):
        database = connect(*arguments, **options)
        database.execute(f"PRAGMA max_page_count = {size // 4096}")  # as SQLite meets a full disk: SQLITE_FULL
        return database

    monkeypatch.setattr(judgements.sqlite3, "connect", on_a_full_disk)
    with pytest.raises(StorageError, match="full"):
        files.add(KEY, [NewJudgement(judgement(3), bytes(100_000))], 5)
    monkeypatch.undo()
    assert {name: content for name, (content, _) in snapshot(tmp_path).items()} == {
        name: content for name, (content, _) in before.items()
    }
    assert times(files) == [2, 1]


def test_of_many_rois_those_inspected_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(judgements, "_MAX_FILES", 3)
    files = JudgementFiles(tmp_path)
    keys = [RoiKey("Master1", f"{number}") for number in range(5)]
    for number, key in enumerate(keys):
        files.add(key, several(number), 5)
        os.utime(files.path(key), (number, number))
    assert [times(files, key) for key in keys] == [[], [], [2], [3], [4]]


def _add_many(root, first, n):
    files = JudgementFiles(root)
    for at in range(first, first + n):
        files.add(KEY, several(at), 1000)


@pytest.mark.slow
def test_judgements_of_several_processes_add_up_exactly(tmp_path):
    processes = [CONTEXT.Process(target=_add_many, args=(tmp_path, 1000 * number, 15)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    files = JudgementFiles(tmp_path)
    found = files.list(KEY, JudgementQuery(limit=1000))
    assert sorted(kept.at for kept in found) == [1000 * number + n for number in range(3) for n in range(15)]
    assert [kept.number for kept in found] == list(range(45, 0, -1))


def _add_until_killed(root):
    files, at = JudgementFiles(root), 0
    while True:
        files.add(KEY, [NewJudgement(judgement(at + n), b"%d" % (at + n) * 5000) for n in range(5)], 20)
        at += 5


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills")
def test_a_process_that_is_killed_while_it_writes_leaves_whole_judgements(tmp_path):
    for round_ in range(6):
        root = tmp_path / str(round_)
        process = CONTEXT.Process(target=_add_until_killed, args=(root,))
        process.start()
        files = JudgementFiles(root)
        while not files.path(KEY).exists() and process.is_alive():
            time.sleep(0.001)
        time.sleep(0.05 + 0.017 * round_)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = files.list(KEY, JudgementQuery(limit=1000))
        assert len(found) % 5 == 0, "all that were added at once, or none"
        for kept in found:
            assert files.thumbnail(KEY, kept.number) == b"%d" % kept.at * 5000
        with sqlite3.connect(files.path(KEY)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        files.add(KEY, several(10**6), 1000)
        assert times(files, limit=1) == [10**6]
