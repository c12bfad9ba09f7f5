"""Requests as odd clients send them, and what their refusals look like."""

from types import SimpleNamespace

from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
SCORES = {**IDS, "mm_per_px": 0.2, "ok_scores": [0.5]}


def client_without_network(models_dir, base_url="http://testserver", **settings):
    """A client of a service that stores images and calibrations, and infers nothing."""
    settings = Settings(models_dir=models_dir, **settings)
    features = SimpleNamespace(runtime=SimpleNamespace(batch=1, forward=None))
    service = InspectionService(settings, features, ModelStore(models_dir))
    return TestClient(create_app(settings, service), base_url, raise_server_exceptions=False)


def check_refusal(reply, status, words):
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error", "trace", "code"}
    assert words in reply.json()["error"]


def send_raw(client, content, content_type="application/json", path="/calibrate_ng"):
    """In pieces, without a length, as clients send it."""
    pieces = (content[start : start + 50_000] for start in range(0, max(1, len(content)), 50_000))
    return client.post(path, content=pieces, headers={"Content-Type": content_type} if content_type else {})
