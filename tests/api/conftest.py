"""A client of the service, in this process, and an image for it to send."""

import cv2
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore


@pytest.fixture
def client(features, tmp_path):
    settings = Settings(models_dir=tmp_path / "models")
    service = InspectionService(settings, features, ModelStore(settings.models_dir))
    with TestClient(create_app(settings, service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def crop(images):
    return cv2.imencode(".png", images[0])[1].tobytes()
