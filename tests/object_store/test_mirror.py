"""Threads of one process that look and change at once: the local files never go back, nor away from who reads."""

import threading
import time

import pytest

from backend.common.errors import StoreUnavailable
from backend.object_store import swap
from backend.object_store.units import model_unit
from harness.fault_proxy import Fault
from tests.factories import IN_RECIPE, KEY, memory_of, same_memory


@pytest.fixture
def late(replica, monkeypatch):
    """A replica of whom one look gets its answer, and is held up before it uses it."""
    one, answered, may_go_on = replica(), threading.Event(), threading.Event()
    one.models.save_memory(KEY, memory_of(1), {})
    one.models.load(KEY)
    get = one.bucket.get_unless

    def held_up(key, etag):
        found = get(key, etag)
        if threading.current_thread().name == "late":
            answered.set()
            assert may_go_on.wait(30)
        return found

    monkeypatch.setattr(one.bucket, "get_unless", held_up)
    return one, answered, may_go_on


def look_late(one, answered):
    looking = threading.Thread(target=one.mirror.look, args=(model_unit(KEY),), kwargs={"now": True}, name="late")
    looking.start()
    assert answered.wait(30)
    return looking


def test_look_that_ends_late_does_not_undo_a_later_one(late, replica):
    """It was answered with the second model; meanwhile the third was found by a look that began after it."""
    one, answered, may_go_on = late
    other = replica()
    other.models.save_memory(KEY, memory_of(2), {})
    looking = look_late(one, answered)
    other.models.save_memory(KEY, memory_of(3), {})
    assert same_memory(one.models.load(KEY), memory_of(3))
    may_go_on.set()
    looking.join()
    with one.mirror.reading():
        assert same_memory(one.models._local.load(KEY), memory_of(3))


def test_look_that_ends_late_does_not_undo_an_own_change(late, replica):
    """It was answered with what another replica had stored just before this one stored something."""
    one, answered, may_go_on = late
    replica().models.save_memory(KEY, memory_of(2), {})
    looking = look_late(one, answered)
    one.models.save_memory(KEY, memory_of(3), {})
    may_go_on.set()
    looking.join()
    with one.mirror.reading():
        assert same_memory(one.models._local.load(KEY), memory_of(3))


def test_what_a_reader_needs_stays_when_somebody_looks_who_does_not(replica):
    """The catalog looks at manifests alone: between a reader's look and its reading, it must not take the bank away."""
    one, other = replica(), replica()
    other.models.save_memory(KEY, memory_of(1), {})
    one.models._served.look(KEY)
    other.models.save_memory(KEY, memory_of(2), {})
    one.catalog.known_rois()
    with one.mirror.reading():
        assert same_memory(one.models._local.load(KEY), memory_of(2))


def test_change_waits_until_what_is_said_to_be_here_is_here(replica, monkeypatch):
    """A look that removes files is held up before it says so, while a change gives these files second names."""
    one, other = replica(), replica()
    one.models.save_memory(KEY, memory_of(1), {})
    one.calibrate(0.5)
    replaced, replace, look_at_all = threading.Event(), one.mirror.copy.replace, one.mirror.look_at_all

    def held_up(gone, come):
        replace(gone, come)
        if threading.current_thread().name == "late":
            replaced.set()
            time.sleep(0.3)

    def overtaken(units, wanted, **how):
        monkeypatch.setattr(one.mirror, "look_at_all", look_at_all)
        other.mirror.change(model_unit(KEY), lambda folder: (folder / "Master1/Pattern/calib.json").unlink())
        threading.Thread(target=one.mirror.look, args=(model_unit(KEY),), kwargs={"now": True}, name="late").start()
        assert replaced.wait(30)

    monkeypatch.setattr(one.mirror.copy, "replace", held_up)
    monkeypatch.setattr(one.mirror, "look_at_all", overtaken)
    one.mirror.change(
        model_unit(KEY), lambda folder: (folder / "Master1/Pattern/x").write_text("x"), [model_unit(IN_RECIPE)]
    )
    assert sorted(one.mirror.manifest(model_unit(KEY)).files)[-1] == "Master1/Pattern/x"


def test_what_fails_leaves_nothing_on_the_disk(replica, faults, monkeypatch):
    """Else each try of a client that retries would take room here, until the process ends."""
    monkeypatch.setattr(swap, "_FIRST_WAIT_S", 0.001)
    one = replica(faults.endpoint)
    one.models.save_memory(KEY, memory_of(1), {})
    incoming = one.mirror.copy.incoming().parent
    faults.every = [Fault("status", ("PUT",), "manifests/", status=403)]
    with pytest.raises(StoreUnavailable):
        one.models.save_memory(KEY, memory_of(2), {})
    assert list(incoming.iterdir()) == []
    faults.every = []
    one.models.save_memory(KEY, memory_of(2), {})
    reader = replica(faults.endpoint)
    entry = one.mirror.manifest(model_unit(KEY)).files["Master1/Pattern/memory.npz"]
    faults.every = [Fault("status", ("GET",), entry.blob_key, status=403)]
    incoming = reader.mirror.copy.incoming().parent
    with pytest.raises(StoreUnavailable):
        reader.models.versions(KEY)
    assert list(incoming.iterdir()) == []
