"""What stores and networks do: nothing acknowledged is lost, no ROI is judged by another model, and it goes on."""

import random
import threading
import time

import pytest

from backend.common.errors import BackendError, Conflict, DamagedMemory, StoreUnavailable
from backend.object_store import bucket, swap
from backend.object_store.units import model_unit
from harness.fault_proxy import Fault
from tests.factories import IN_RECIPE, KEY, calibration_of, memory_of, same_memory

OUTAGES = [Fault("status", status=503), Fault("status", status=403), Fault("unreachable"), Fault("lost")]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(bucket, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(swap, "_FIRST_WAIT_S", 0.01)


@pytest.fixture
def both(replica, faults):
    """A replica before whom the store may fail, and one before whom it does not; a model is there."""
    one, other = replica(faults.endpoint), replica()
    one.models.save_memory(KEY, memory_of(1), {})
    one.calibrate(0.4)
    assert one.models.load(KEY) is not None
    return one, other


@pytest.mark.parametrize("fault", OUTAGES, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_outage_is_told_and_over_by_itself(both, faults, fault):
    one, other = both
    faults.every = [fault]
    calibration = calibration_of(other.models.load(KEY), 0.7)
    for work in (
        lambda: one.models.load(KEY),
        lambda: one.models.save_memory(KEY, memory_of(2), {}),
        lambda: one.models.save_calibration(KEY, calibration),
    ):
        with pytest.raises(StoreUnavailable):
            work()
    assert one.bucket.silent_s is not None
    faults.every = []
    found = one.models.load(KEY)
    assert (same_memory(found, memory_of(1)), found.calibration.threshold) == (True, 0.4)
    assert one.bucket.silent_s is None


@pytest.mark.slow
def test_outage_within_the_freshness_is_not_noticed_by_inferences(replica, faults):
    writer, one = replica(), replica(faults.endpoint, fresh_s=1.0)
    writer.models.save_memory(KEY, memory_of(1), {})
    one.models.load(KEY)
    faults.every = [Fault("unreachable")]
    assert same_memory(one.models.load(KEY), memory_of(1))
    with pytest.raises(StoreUnavailable):
        one.models.save_memory(KEY, memory_of(2), {})
    time.sleep(1.0)
    with pytest.raises(StoreUnavailable):
        one.models.load(KEY)


def test_silence_that_ends_while_somebody_asks_for_it_is_no_error():
    class Heard(bucket.Bucket):
        told = iter((0.0, None))
        _silent_since = property(lambda self: next(self.told))

    assert Heard.__new__(Heard).silent_s > 0


def test_manifest_out_of_sight_is_no_model_of_somebody_else(both, faults, replica):
    """404 for a manifest that is there: neither "not fitted", nor the default recipe's model instead of the own one."""
    one, other = both
    other.models.save_memory(IN_RECIPE, memory_of(2), {})
    fresh = replica(faults.endpoint)
    faults.every = [Fault("status", ("GET",), model_unit(IN_RECIPE).key, status=404)]
    for reader in (one, fresh):
        with pytest.raises(StoreUnavailable, match=r"says that the manifest of .* does not exist"):
            reader.models.load(IN_RECIPE)
    faults.every = [Fault("status", ("GET",), model_unit(KEY).key, status=404)]
    with pytest.raises(StoreUnavailable):
        one.models.save_memory(KEY, memory_of(3), {})
    faults.every = []
    assert same_memory(fresh.models.load(IN_RECIPE), memory_of(2))
    assert same_memory(one.models.load(KEY), memory_of(1))


def test_blob_out_of_sight_or_with_other_bytes_is_never_served(both, replica, faults):
    one, _ = both
    fresh = replica(faults.endpoint)
    entry = one.mirror.manifest(model_unit(KEY)).files["Master1/Pattern/memory.npz"]
    faults.every = [Fault("status", ("GET",), entry.blob_key, status=404)]
    for work in (lambda: fresh.models.load(KEY), lambda: fresh.models.save_memory(KEY, memory_of(2), {})):
        with pytest.raises(StoreUnavailable, match=f"lists {entry.blob_key}, but says that it does not exist"):
            work()
    faults.every = []
    assert same_memory(fresh.models.load(KEY), memory_of(1))
    one.bucket.put(entry.blob_key, b"other bytes")
    with pytest.raises(DamagedMemory, match="the object store holds other bytes"):
        replica().models.load(KEY)


def test_slow_store_is_waited_for(both, faults):
    one, _ = both
    faults.every = [Fault("slow", ("GET",), seconds=0.3)]
    start = time.monotonic()
    assert same_memory(one.models.load(KEY), memory_of(1))
    assert time.monotonic() - start >= 0.3


def test_listing_that_lags_hides_nothing_from_who_asks_for_a_roi(replica, faults):
    """Listings only say which ROIs there are: what is served, and whether a change may be made, is read by name."""
    faults.listing_lag_s = 60
    one, other = replica(faults.endpoint), replica(faults.endpoint)
    one.models.save_memory(KEY, memory_of(1), {})
    assert same_memory(other.models.load(KEY), memory_of(1))
    other.models.save_memory(KEY, memory_of(2), {})
    assert same_memory(one.models.load(KEY), memory_of(2))
    assert [key.roi_id for key in one.catalog.known_rois().rois] == ["Pattern"], "its own, at once"


def test_store_that_is_full_keeps_what_it_has(both, faults):
    one, other = both
    faults.every = [Fault("status", ("PUT",), status=507)]
    with pytest.raises(StoreUnavailable, match="HTTP 507"):
        one.models.save_memory(KEY, memory_of(2), {})
    assert same_memory(other.models.load(KEY), memory_of(1))


@pytest.mark.slow
def test_no_acknowledged_change_is_lost_whatever_the_store_does(replica, faults):
    """Four replicas change two ROIs, while a sixth of all requests fail in some way.

    Each change that was answered is a generation; those without an answer may be one. What is read is a model that
    somebody wrote, with the calibration that was made for it.
    """
    keys = (KEY, IN_RECIPE)
    replicas = [replica(faults.endpoint) for _ in range(4)]
    for key in keys:
        replicas[0].models.save_memory(key, memory_of(1), {})
    before = [replicas[0].generation(key) for key in keys]
    faults.every = [
        Fault("reset", chance=0.04),
        Fault("lost", chance=0.04),
        Fault("unreachable", chance=0.04),
        Fault("status", status=503, chance=0.04),
        Fault("slow", seconds=0.05, chance=0.04),
    ]
    answered, unknown, wrong = [0, 0], [0, 0], []

    def press(number):
        chance = random.Random(number)
        models = replicas[number].models
        for seed in range(1, 7):
            place = chance.randrange(2)
            try:
                if chance.random() < 0.5:
                    models.save_memory(keys[place], memory_of(1000 * number + seed), {})
                else:
                    found = models.load(keys[place])
                    if found.calibration is not None and found.calibration.memory_id != found.memory_id:
                        wrong.append(found.memory_id)
                    models.save_calibration(keys[place], calibration_of(found, seed / 1000))
                answered[place] += 1
            except Conflict:
                pass
            except StoreUnavailable:
                unknown[place] += 1
            except BackendError as exc:
                wrong.append(exc)

    threads = [threading.Thread(target=press, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults.every = []
    grown = [replicas[0].generation(key) - start for key, start in zip(keys, before, strict=True)]
    assert wrong == []
    assert sum(answered) > 5
    for place in range(2):
        assert answered[place] <= grown[place] <= answered[place] + unknown[place]
    assert len({one.models.load(KEY).memory_id for one in replicas}) == 1
