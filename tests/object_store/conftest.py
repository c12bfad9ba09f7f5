"""An object store on this machine, in this process; places in it for replicas, and a proxy that lets it fail."""

import itertools
import uuid

import pytest

pytest.importorskip("obstore", reason="requirements/dev.txt has it")
pytest.importorskip("moto", reason="requirements/dev.txt has it")

from harness.fault_proxy import faulty
from harness.object_store import BUCKET, CREDENTIALS, moto_store
from tests.object_store.replicas import Replica


@pytest.fixture(scope="session")
def endpoint():
    with moto_store() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def credentials(monkeypatch, endpoint, tmp_path_factory):
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def places(tmp_path, endpoint):
    """Opens places, each a function that opens what a replica has there."""
    opened, numbers = [], itertools.count()

    def place():
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"

        def opening(endpoint=endpoint, **settings) -> Replica:
            folder = tmp_path / f"replica-{next(numbers)}"
            folder.mkdir()
            opened.append(Replica(url, folder, endpoint, **settings))
            return opened[-1]

        return opening

    yield place
    for one in opened:
        one.close()


@pytest.fixture
def replica(places):
    """Opens what a replica has; all of a test share one place."""
    return places()


@pytest.fixture
def faults(endpoint):
    with faulty(endpoint) as faults:
        yield faults
