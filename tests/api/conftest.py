"""Clients of the service, in this process, and an image for them to send."""

from functools import partial

import cv2
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.api.sending import client_without_network


@pytest.fixture(scope="session", autouse=True)
def _one_event_loop():
    """For all clients that start no service of their own: each request of them would else start a thread and a loop."""
    with start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patched:
        patched.setattr(TestClient, "portal", portal)
        yield


@pytest.fixture(scope="session")
def features(small_features):
    """What HTTP says does not depend on how good scores are."""
    return small_features


@pytest.fixture
def client(features, block_features, tmp_path):
    settings = Settings(models_dir=tmp_path / "models")
    service = InspectionService(settings, features, ModelStore(settings.models_dir), recommended=block_features)
    with TestClient(create_app(settings, service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def calling(tmp_path):
    """Makes a client of a service with these settings that has no network: it stores images, and infers nothing."""

    return partial(client_without_network, tmp_path / "models")


@pytest.fixture(scope="session")
def crop(images):
    return cv2.imencode(".png", images[0])[1].tobytes()
