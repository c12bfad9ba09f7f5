"""The start looks whether a store keeps to conditions, and refuses one that does not."""

import pytest

from backend.common.errors import ConfigError, StoreUnavailable
from backend.object_store.bucket import PROBES
from backend.object_store.probe import probe
from harness.fault_proxy import Fault


def test_store_with_conditions_passes_and_nothing_is_left(replica):
    one = replica()
    probe(one.bucket)
    assert list(one.bucket.list(PROBES.rstrip("/"))) == []


def test_store_that_ignores_conditions_is_refused(replica, faults):
    faults.ignores_conditions = True
    with pytest.raises(ConfigError, match="ignores If-None-Match: \\* on a write, so that changes of two replicas"):
        probe(replica(faults.endpoint).bucket)


def test_store_that_does_not_list_what_it_has_is_refused(replica, faults):
    faults.listing_lag_s = 60
    with pytest.raises(ConfigError, match="does not list what was just written"):
        probe(replica(faults.endpoint).bucket)


def test_store_that_refuses_what_it_should_write_is_refused(replica, faults):
    faults.every = [Fault("status", ("PUT",), PROBES, status=412)]
    with pytest.raises(ConfigError, match="refuses a write though its condition holds"):
        probe(replica(faults.endpoint).bucket)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("status", status=403), "refuses the credentials: HTTP 403); use other credentials"),
        (Fault("status", status=403, code="RequestTimeTooSkewed"), "the clock of this machine differs"),
        (Fault("status", status=404, code="NoSuchBucket"), "the bucket does not exist); make it"),
        (Fault("status", status=503), "HTTP 503); nothing was lost: retry"),
        (Fault("unreachable"), "no answer"),
    ],
)
def test_store_that_cannot_be_used_says_why_without_its_address(replica, faults, fault, words):
    faults.every = [fault]
    with pytest.raises(StoreUnavailable) as refused:
        probe(replica(faults.endpoint).bucket)
    assert words in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
