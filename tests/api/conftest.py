"""Clients of the service, in this process, and an image for them to send."""

from functools import partial

import cv2
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.api.sending import client_without_network


@pytest.fixture
def client(features, tmp_path):
    settings = Settings(models_dir=tmp_path / "models")
    service = InspectionService(settings, features, ModelStore(settings.models_dir))
    with TestClient(create_app(settings, service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def calling(tmp_path):
    """Makes a client of a service with these settings that has no network: it stores images, and infers nothing."""

    return partial(client_without_network, tmp_path / "models")


@pytest.fixture(scope="session")
def crop(images):
    return cv2.imencode(".png", images[0])[1].tobytes()
