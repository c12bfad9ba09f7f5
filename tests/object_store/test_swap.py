"""A write without an answer may have been done: whoever retries it recognises its own."""

import pytest

from backend.common.errors import StoreUnavailable
from backend.object_store import swap as swapping
from backend.object_store.manifest import Manifest
from backend.object_store.swap import Swapped, swap
from backend.object_store.units import model_unit
from harness.fault_proxy import Fault
from tests.factories import KEY

FIRST = Manifest(model_unit(KEY)).successor({})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(swapping, "_FIRST_WAIT_S", 0.01)


@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_write_that_was_done_and_not_answered_is_recognised(replica, faults, kind):
    one = replica(faults.endpoint)
    faults.every = [Fault(kind, ("PUT",), "manifests/", left=1)]
    done = swap(one.bucket, FIRST, None)
    assert (done.etag, faults.counts["PUT"]) == (one.bucket.get(FIRST.unit.key).etag, 1)


def test_write_that_others_followed_is_recognised_among_those_before(replica, faults):
    """Its answer was lost, and until it is looked for, another replica has changed the same."""
    one, other = replica(faults.endpoint), replica()
    faults.every = [Fault("reset", ("PUT",), "manifests/", left=1)]
    get = one.bucket.get

    def overtaken(key):
        there = get(key)
        if there is not None:
            second = FIRST.successor({})
            swap(other.bucket, second, there.etag)
            one.bucket.get = get
        return get(key)

    one.bucket.get = overtaken
    assert swap(one.bucket, FIRST, None) == Swapped(None)


def test_write_that_was_not_done_is_tried_again(replica, faults):
    one = replica(faults.endpoint)
    faults.every = [Fault("unreachable", ("PUT",), "manifests/", left=2)]
    assert swap(one.bucket, FIRST, None) is not None
    assert faults.counts["PUT"] == 3


def test_manifest_of_somebody_else_stays(replica):
    one = replica()
    theirs = swap(one.bucket, FIRST, None)
    assert swap(one.bucket, Manifest(FIRST.unit).successor({}), None) is None
    assert swap(one.bucket, FIRST.successor({}), '"another"') is None
    assert one.bucket.get(FIRST.unit.key).etag == theirs.etag


@pytest.mark.slow
def test_store_that_says_nothing_leaves_it_unknown(replica, faults):
    one = replica(faults.endpoint)
    faults.every = [Fault("unreachable")]
    with pytest.raises(StoreUnavailable, match="not known whether the change was stored"):
        swap(one.bucket, FIRST, None)


def test_roll_back_to_equal_files_is_another_manifest():
    """Two manifests never have the same bytes, nor ETag: else an older one would pass for the newer."""
    second = FIRST.successor({})
    assert second.successor({}).encode() != FIRST.successor({}).encode()
    assert second.recent == (FIRST.nonce,)
