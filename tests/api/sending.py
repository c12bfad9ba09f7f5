"""Requests of plain and of odd clients, and what refusals look like."""

from types import SimpleNamespace

from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import encoded, smooth_parts

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
PARTS = [encoded(part) for part in smooth_parts(3)]
SCORES = {**IDS, "mm_per_px": 0.2, "ok_scores": [0.5]}


def client_without_network(models_dir, base_url="http://testserver", **settings):
    """A client of a service that stores images and calibrations, and infers nothing."""
    settings = Settings(models_dir=models_dir, **settings)
    features = SimpleNamespace(runtime=SimpleNamespace(batch=1, forward=None))
    service = InspectionService(settings, features, ModelStore(models_dir))
    return TestClient(create_app(settings, service), base_url, raise_server_exceptions=False)


def infer(client, content=PARTS[0], **more):
    reply = client.post("/infer", data={**IDS, "mm_per_px": 0.2, **more}, files={"image": ("a.png", content)})
    assert reply.status_code == 200, reply.text
    return reply.json()


def listed(client, **query):
    reply = client.get("/history", params={**IDS, **query})
    assert reply.status_code == 200, reply.text
    return reply.json()


def check_refusal(reply, status, words):
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error", "trace", "code"}
    assert words in reply.json()["error"]


def send_raw(client, content, content_type="application/json", path="/calibrate_ng"):
    """In pieces, without a length, as clients send it."""
    pieces = (content[start : start + 50_000] for start in range(0, max(1, len(content)), 50_000))
    return client.post(path, content=pieces, headers={"Content-Type": content_type} if content_type else {})
