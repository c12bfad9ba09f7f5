"""Ray, started once for all tests of a process because that takes seconds, and what tests of fits by workers share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest

from backend.cluster import fit_worker
from backend.cluster import workers as cluster_workers
from backend.cluster.local import local_ray
from backend.common.config import Settings
from backend.network.weights import Weights
from backend.service.inspection import InspectionService
from harness.server import Server, cluster_command, starting
from tests.cluster.fitting import N_IMAGES, OPENED_ONCE, InOneProcess, Objects

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


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Settings:
    models = tmp_path_factory.mktemp("models")
    given: dict[str, Any] = {"input_size": 112, "device": "cpu", "threads": 1, "coreset_rate": 0.1}
    return Settings(models_dir=models, weights=weights.path, **given)


@pytest.fixture(scope="module")
def service(settings: Settings) -> InspectionService:
    return InspectionService.open(settings)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, images: list[Any]) -> Path:
    """A folder of good parts: crops of real images, and a copy of one of them."""
    folder = tmp_path_factory.mktemp("good")
    for number in range(N_IMAGES - 1):
        image = images[number % 2]
        crop = image[20 * number : 20 * number + 160, 15 * number : 15 * number + 160]
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", crop)[1].tobytes())
    (folder / "8.png").write_bytes((folder / "3.png").read_bytes())
    return folder


@pytest.fixture
def workers_share_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_worker, "InspectionService", OPENED_ONCE)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' workers are objects of this process."""
    monkeypatch.setattr(cluster_workers, "connected", lambda: contextlib.nullcontext(InOneProcess()))
    monkeypatch.setattr(cluster_workers, "Workers", Objects)
