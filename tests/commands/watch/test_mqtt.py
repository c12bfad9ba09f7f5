"""Addresses of brokers; tests/integration has the broker itself."""

import sys

import pytest

from backend.commands.watch.mqtt import Mqtt
from backend.common.errors import InvalidRequest


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://broker/topic", "give an address such as mqtt://"),
        ("mqtt://broker", "give an address such as mqtt://"),
        ("mqtt://broker/", "give an address such as mqtt://"),
        ("mqtt:///topic", "give an address such as mqtt://"),
        ("mqtt://broker:port/topic", "give an address such as mqtt://"),
        ("mqtt://broker:99999/topic", "give an address such as mqtt://"),
        ("mqtt://[::1/topic", "not an address"),
        ("mqtt://broker/topic?qos=2", "give an address such as mqtt://"),
        ("mqtt://name:pass@broker/topic", "leave out name and password"),
        ("mqtt://broker/line/+/verdicts", "which only subscribers may use"),
        ("mqtt://broker/line%23", "which only subscribers may use"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url, said):
    with pytest.raises(InvalidRequest, match=said) as exc:
        Mqtt(url, None, None)
    assert "pass@" not in str(exc.value)


def test_without_paho_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(InvalidRequest, match=r"pip install -r backend/requirements-mqtt\.txt"):
        Mqtt("mqtt://broker/topic", None, None)
