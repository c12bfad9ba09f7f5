"""Ray, once for all tests of a process: it takes seconds to start."""

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from backend.cluster.local import local_ray
from backend.network.weights import Weights
from harness.server import Server, cluster_command, starting

# As the contract's steps want it, and quick; a queue that is soon full.
SETTINGS = {
    "DEVICE": "cpu",
    "INPUT_SIZE": "112",
    "CORESET_RATE": "0.1",
    "MIN_OK_SAMPLES": "3",
    "KEEP_VERSIONS": "4",
    "THREADS": "1",
    "MAX_QUEUE": "2",
}
_START_S = 400  # ten processes of Ray, on a machine that may be busy


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Server]:
    """Two replicas behind Ray's proxy, over one models folder."""
    folder = tmp_path_factory.mktemp("cluster")
    with starting(cluster_command, folder, as_set=False, WEIGHTS=str(weights.path), **SETTINGS) as server:
        server.wait_for("/health", _START_S)
        started = processes_of(server)
        yield server
        server.stop()
        assert [process for process in started if process.is_running()] == [], "all that was started has ended"


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """Ray in processes of this one's, with two cores."""
    with local_ray(2) as connected:
        yield connected


def processes_of(server: Server) -> list[psutil.Process]:
    """The command and all that it started."""
    command = psutil.Process(server.pid)
    return [command, *command.children(recursive=True)]
