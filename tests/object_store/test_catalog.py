"""All that there is in a store: one manifest that cannot be read stops no list."""

import pytest
from structlog.testing import capture_logs

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.object_store.transfer import check
from backend.object_store.units import model_unit
from backend.scores.drift_statistics import NOT_KNOWN, RoiDrift
from tests.factories import KEY, calibration_of, memory_of

OTHER = RoiKey("Master1", "Other")


@pytest.fixture(params=["a replica that read it", "a replica that never read it"])
def one(request, replica):
    """A replica of a store with two ROIs, each with a stale calibration; the manifest of one is damaged."""
    writer, one = replica(), replica()
    for key in (KEY, OTHER):
        writer.models.save_memory(key, memory_of(1), {})
        writer.models.save_calibration(key, calibration_of(writer.models.load(key)))
        writer.models.save_memory(key, memory_of(2), {})
    if request.param == "a replica that read it":
        one.catalog.known_rois()
        one.catalog._asked_at.clear()
    writer.bucket.put(model_unit(KEY).key, b"damaged")
    return one


def test_others_are_listed_and_the_damaged_manifest_is_named(one):
    with capture_logs() as logged:
        known = one.catalog.known_rois()
    assert OTHER in [RoiKey(key.role_id, key.roi_id) for key in known.rois]
    (problem,) = known.problems
    assert problem.startswith(f"the manifest of {model_unit(KEY)} in the object store is damaged")
    assert model_unit(KEY).key in problem
    assert check(one.bucket, lambda _: None).problems == [problem]
    assert [entry["event"] for entry in logged] == ["object_store.not_listed"]


def test_others_are_counted_and_who_asks_for_the_damaged_one_is_told(one):
    assert one.models.count_stale() >= 1
    assert one.models.count_fitted() >= 1
    assert one.models.load(OTHER) is not None
    with pytest.raises(StorageError, match="is damaged"):
        one.models.load(KEY)
    with pytest.raises(StorageError, match="is damaged"):
        one.models.save_memory(KEY, memory_of(3), {})


def test_manifest_that_is_brought_back_is_listed_without_a_problem(one, replica):
    content = replica().bucket.get(model_unit(OTHER).key).content
    one.catalog.known_rois()
    one.bucket.put(model_unit(KEY).key, content.replace(b"Other", b"Pattern"))
    known = one.catalog.known_rois()
    assert known.problems == []
    assert [key.roi_id for key in known.rois] == ["Other", "Pattern"]


def test_alarms_are_listed_though_one_manifest_of_statistics_is_damaged(replica):
    writer, one = replica(), replica()
    for key in (KEY, OTHER):
        drift = RoiDrift.starting(key, "conditions", 0.4, NOT_KNOWN, 1.0)
        writer.drift.update(writer.drift.path(key), lambda _, drift=drift: drift)
    assert len(list(one.drift.paths())) == 2
    one.catalog._asked_at.clear()
    writer.bucket.put(writer.drift._unit(writer.drift.path(KEY)).key, b"damaged")
    assert [path.name for path in one.drift.paths()] == [one.drift.path(OTHER).name]
