"""Objects of a bucket: what is asked of the store, and how often."""

from concurrent.futures import ThreadPoolExecutor

import pytest


def test_only_what_is_there_is_listed(replica):
    bucket = replica().bucket
    for key in ("manifests/a/Roi.json", "manifests/a/Roi1.json", "manifests/a/Roi.json.old"):
        bucket.put(key, b"")
    keys = (
        "manifests/a/Roi.json",
        "manifests/a/Ro.json",
        "manifests/a/Roi",
        "manifests/a/Roi.jso",
        "manifests/b/Roi.json",
    )
    assert [key for key in keys if bucket.is_listed(key)] == ["manifests/a/Roi.json"]


@pytest.mark.slow
def test_one_object_is_listed_by_one_request_among_thousands(replica, faults):
    """A ROI without a model of its own is asked about at each inference, however many ROIs lie beside it."""
    bucket = replica(faults.endpoint).bucket
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: bucket.put(f"manifests/a/{number:04d}", b""), range(1100)))
    faults.counts.clear()
    assert [bucket.is_listed(f"manifests/a/{number}") for number in ("0003", "1050", "1100", "x")] == [
        True,
        True,
        False,
        False,
    ]
    assert faults.counts == {"LIST": 4}
