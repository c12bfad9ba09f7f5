"""The scale of a recipe in an object store: one for all replicas, whoever is first."""

import threading

import pytest

from backend.common.errors import ScaleLocked, StoreUnavailable
from backend.object_store import swap
from backend.object_store.manifest import BLOBS
from backend.object_store.swap import OutcomeUnknown
from harness.fault_proxy import Fault
from tests.factories import IN_RECIPE, memory_of


def lock(one, scale, stored=lambda: None):
    with one.recipes.locking_scale("line 1", scale):
        stored()


def test_scale_of_the_first_holds_for_all_replicas(replica):
    one, other = replica(), replica()
    assert other.recipes.mm_per_px("line 1") is None
    lock(one, 0.2)
    assert other.recipes.mm_per_px("line 1") == 0.2
    with pytest.raises(ScaleLocked, match="is locked to"):
        lock(other, 0.3)
    lock(other, 0.2)
    other.recipes.check("line 1", 0.2)
    assert other.recipes.mm_per_px("line 2") is None


def test_scale_that_is_settled_takes_no_more_looks(replica, faults):
    one = replica(faults.endpoint)
    lock(one, 0.2)
    faults.counts.clear()
    one.recipes.check("line 1", 0.2)
    lock(one, 0.2)
    assert faults.counts == {}


def test_what_failed_locks_nothing_unless_it_was_stored(replica):
    one, other = replica(), replica()

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lock(one, 0.2, fail)
    assert other.recipes.mm_per_px("line 1") is None
    values = iter((1, 2))
    with pytest.raises(ZeroDivisionError), one.recipes.locking_scale("line 1", 0.2, lambda: next(values)):
        fail()
    assert other.recipes.mm_per_px("line 1") == 0.2


def test_two_that_store_at_once_have_one_scale(replica):
    """One of them fails, and the other has stored something: then the scale holds."""
    one, other, inside, may_go_on = replica(), replica(), threading.Event(), threading.Event()

    def wait_and_fail():
        inside.set()
        assert may_go_on.wait(10)
        raise ZeroDivisionError

    def first():
        with pytest.raises(ZeroDivisionError):
            lock(one, 0.2, wait_and_fail)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(ScaleLocked):
        lock(other, 0.3)
    lock(other, 0.2)
    may_go_on.set()
    thread.join()
    assert (one.recipes.mm_per_px("line 1"), replica().recipes.mm_per_px("line 1")) == (0.2, 0.2)


def test_scale_holds_where_nobody_knows_what_was_stored(replica):
    one, other = replica(), replica()

    def fail():
        raise OutcomeUnknown("no answer; it is not known whether the change was stored")

    with pytest.raises(StoreUnavailable):
        lock(one, 0.2, fail)
    assert other.recipes.mm_per_px("line 1") == 0.2


def test_scale_of_what_the_store_refused_does_not_hold(replica, faults, monkeypatch):
    """It may have been a wrong one, and nothing was stored with it."""
    monkeypatch.setattr(swap, "_FIRST_WAIT_S", 0.001)
    one = replica(faults.endpoint)

    def refused(kind):
        def save():
            faults.every = [Fault("status", ("PUT",), kind, status=403)]
            try:
                one.models.save_memory(IN_RECIPE, memory_of(1), {})
            finally:
                faults.every = []

        with pytest.raises(StoreUnavailable):
            lock(one, 0.2, save)

    refused(BLOBS)
    assert one.recipes.mm_per_px("line 1") is None
    refused("manifests/models/")
    assert one.recipes.mm_per_px("line 1") == 0.2, "nobody knows whether that was stored"
