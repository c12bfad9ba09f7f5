"""What replicas count and keep of inferences: drift, history, and long work that is under way."""

import threading
import time
from datetime import datetime, timedelta

import pytest

from backend.common.errors import RunCancelled, RunNotFound, RunStoring, StorageError, StoreUnavailable
from backend.disk.judgements import JudgementFiles, JudgementQuery
from backend.object_store import bucket, runs
from backend.scores.drift_statistics import NOT_KNOWN, RoiDrift
from backend.service.drift import DriftLog
from harness.fault_proxy import Fault
from tests.factories import IN_RECIPE, KEY, memory_of
from tests.object_store.replicas import judgement


@pytest.mark.slow
def test_scores_of_all_replicas_add_up(replica):
    """Each replica counts for itself, all at once; every part is there in the end."""
    replicas = [replica() for _ in range(3)]
    replicas[0].models.save_memory(KEY, memory_of(1), {})
    replicas[0].calibrate(0.5)
    logs = [DriftLog(one.drift, one.models, 0.1) for one in replicas]

    def inspect(number):
        fitted = replicas[number].models.load(KEY)
        for part in range(5):
            logs[number].record(KEY, fitted, 0.1 + part / 100)
            logs[number].flush()
        logs[number].close()

    threads = [threading.Thread(target=inspect, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fitted = replicas[1].models.load(KEY)
    assert logs[1].status(KEY, fitted).drift.n_parts == 15
    logs[2].reset(KEY, fitted, "production")
    assert logs[1].status(KEY, fitted).drift.n_parts == 0


@pytest.mark.slow
def test_alarm_of_another_replica_is_listed_and_forgotten_with_its_model(replica):
    one, other = replica(), replica()
    one.models.save_memory(KEY, memory_of(1), {})
    one.calibrate(0.5)
    fitted = one.models.load(KEY)
    first, second = DriftLog(one.drift, one.models, 0.1), DriftLog(other.drift, other.models, 0.1)
    for score in [0.2] * 300 + [0.9] * 200:
        first.record(KEY, fitted, score)
    first.close()
    assert [drift.key.roi_id for drift in second.drifting()] == ["Pattern"]
    one.models.save_memory(KEY, memory_of(2), {})
    first.forget(KEY)
    other.catalog._asked_at.clear()
    assert second.drifting() == []


def test_statistics_that_are_changed_meanwhile_are_made_again(replica):
    one, other = replica(), replica()
    path, calls = one.drift.path(KEY), []

    def started(threshold):
        return RoiDrift.starting(KEY, "conditions", threshold, NOT_KNOWN, 1.0)

    def change(drift):
        if not calls:
            other.drift.update(other.drift.path(KEY), lambda _: started(0.7))
        calls.append(drift and drift.threshold)
        return started(0.8)

    one.drift.update(path, change)
    assert calls == [None, 0.7]
    assert other.drift.read(other.drift.path(KEY)).threshold == 0.8


@pytest.mark.slow
def test_history_of_all_replicas_is_told_as_a_folder_tells_it(replica, tmp_path):
    """Batches from two replicas, one of them tried twice: pages, decisions, times and thumbnails are the same."""
    one, other, folder = replica(most=60), replica(most=60), JudgementFiles(tmp_path)
    batches = [[judgement(3 * n + k, "ng" if n % 5 == 0 else "ok") for k in range(3)] for n in range(30)]
    for number, batch in enumerate(batches):
        folder.add(KEY, batch, 60)
        (one, other)[number % 2].judgements.add(KEY, batch, 60)
    one.judgements.add(KEY, batches[-1], 60)
    for query in (
        JudgementQuery(),
        JudgementQuery(limit=7),
        JudgementQuery(before=60, limit=5),
        JudgementQuery(decision="ng"),
        JudgementQuery(since=50.0, until=70.0),
    ):
        expected = folder.list(KEY, query)
        assert one.judgements.list(KEY, query) == expected == other.judgements.list(KEY, query)
    for number in (1, 30, 31, 90, 91):
        assert other.judgements.thumbnail(KEY, number) == folder.thumbnail(KEY, number)
    assert (one.judgements.has(KEY), one.judgements.has(IN_RECIPE)) == (True, False)
    files = one.mirror.manifest(one.judgements._unit(KEY)).files
    assert len(files) < 50, "small segments are joined, old ones go"


def test_a_part_that_is_asked_about_again_is_listed_once_by_all_replicas(replica):
    one, other = replica(), replica()
    one.judgements.add(KEY, [judgement(1, mark="a"), judgement(2), judgement(3, mark="a")], 10)
    other.judgements.add(KEY, [judgement(4, mark="a"), judgement(5, mark="b")], 10)
    one.judgements.add(KEY, [judgement(6, mark="b")], 10)
    other.judgements.add(KEY, [judgement(7)], 10)
    assert [kept.at for kept in one.judgements.list(KEY, JudgementQuery())] == [7.0, 5.0, 2.0, 1.0]


def test_history_waits_while_the_store_is_down(replica, faults, monkeypatch):
    monkeypatch.setattr(bucket, "_FIRST_WAIT_S", 0.01)
    one = replica(faults.endpoint)
    faults.every = [Fault("unreachable")]
    with pytest.raises(StorageError):
        one.judgements.add(KEY, [judgement(1)], 10)
    faults.every = []
    one.judgements.add(KEY, [judgement(1)], 10)
    assert [kept.at for kept in one.judgements.list(KEY, JudgementQuery())] == [1.0]


def test_run_of_one_replica_is_shown_by_another_until_it_ends(replica):
    one, other = replica(), replica()
    with one.runs.run("fit", KEY, 16) as run:
        run.report("extract", 3, 16)
        run._written = run._shown = -100.0
        run.report("extract", 4, 16)
        (shown,) = other.runs.running()
        assert (shown["kind"], shown["roi_id"], shown["step"], shown["done"]) == ("fit", "Pattern", "extract", 4)
        assert not {"host", "pid", "process_started", "state", "beat"} & set(shown)
    assert other.runs.running() == []
    with pytest.raises(RunNotFound):
        other.runs.cancel(shown["run_id"])


def cancelled_by(other, one, then):
    with one.runs.run("fit", KEY, 16) as run:
        run_id = other.runs.running()[0]["run_id"]
        assert other.runs.cancel(run_id)["run_id"] == run_id
        assert other.runs.cancel(run_id)["run_id"] == run_id, "twice is the same as once"
        run._written = run._shown = -100.0
        then(run)


def test_run_that_another_replica_cancels_ends_and_stores_nothing(replica):
    with pytest.raises(RunCancelled, match="at step extract, 1 of 16"):
        cancelled_by(replica(), replica(), lambda run: run.report("extract", 1, 16))


def test_of_cancelling_and_storing_exactly_one_wins(replica):
    one, other = replica(), replica()
    with one.runs.run("fit", KEY, 1) as run:
        run_id = other.runs.running()[0]["run_id"]
        run.conclude()
        with pytest.raises(RunStoring):
            other.runs.cancel(run_id)
    with pytest.raises(RunCancelled):
        cancelled_by(other, one, lambda run: run.conclude())


@pytest.mark.parametrize("kind", ["lost", "reset"])
def test_run_whose_first_write_got_no_answer_is_cancelled_all_the_same(replica, faults, kind):
    """It is in the store, and who cancels it is told that nothing will be stored."""
    one, other = replica(faults.endpoint), replica()
    faults.every = [Fault(kind, ("PUT",), "runs/", left=1)]
    with pytest.raises(RunCancelled):
        cancelled_by(other, one, lambda run: run.conclude())
    assert other.runs.running() == []


def test_run_that_the_store_never_saw_stores_nothing_and_loses_no_answer(replica, faults, monkeypatch):
    """Whether somebody cancelled it, nobody knows: a fit ends by it, and scores of images that were judged stay."""
    monkeypatch.setattr(bucket, "_FIRST_WAIT_S", 0.01)
    one = replica(faults.endpoint)
    faults.every = [Fault("unreachable")]
    with pytest.raises(StoreUnavailable, match="nothing was stored"), one.runs.run("fit", KEY, 1) as run:
        run.conclude()
    with one.runs.run("infer_dataset", KEY, 1) as run:
        run.report("score", 1, 1)


class FiveHoursLate(datetime):
    """The clock of a machine that is wrong."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) - timedelta(hours=5)


@pytest.mark.slow
def test_run_of_a_killed_replica_goes_by_the_clock_of_the_store(replica, monkeypatch):
    """This machine's clock may be wrong by hours: how old a run is, the store's tells."""
    one, other = replica(), replica()
    monkeypatch.setattr(runs, "datetime", FiveHoursLate)
    monkeypatch.setattr(runs, "_BEAT_S", 1000.0)
    monkeypatch.setattr(runs, "_DEAD_AFTER", timedelta(seconds=3))
    with one.runs.run("fit", KEY, 1):
        assert len(other.runs.running()) == 1
        time.sleep(4.2)
        assert other.runs.running() == []


def test_judgement_whose_answer_was_lost_is_kept_once(replica):
    one, others = replica(), replica()
    one.judgements.add(KEY, [judgement(1)], 100)
    for number in range(2, 6):
        others.judgements.add(KEY, [judgement(number)], 100)
    one.judgements.add(KEY, [judgement(1)], 100)
    assert [kept.at for kept in one.judgements.list(KEY, JudgementQuery())] == [5, 4, 3, 2, 1]
