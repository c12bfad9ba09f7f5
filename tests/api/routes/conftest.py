"""A service over HTTP with a ROI that has a model."""

import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from tests.api.sending import IDS, PARTS
from tests.factories import service_with


@pytest.fixture
def inspecting(small_features, tmp_path):
    """Makes a client of a service with these settings, with a ROI that is fitted and calibrated to reject all parts."""

    def make(**settings):
        service = service_with(small_features, tmp_path, **settings)
        client = TestClient(create_app(service.settings, service), raise_server_exceptions=False)
        files = [("images", ("a.png", part)) for part in PARTS]
        assert client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2}, files=files).status_code == 200
        return client, service

    return make
