"""Requests whose headers and bodies are odd: what they mean, and what is refused."""

import cv2
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.config import Settings
from backend.service import InspectionService
from backend.storage import ModelStore

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
SCORES = {**IDS, "mm_per_px": 0.2, "ok_scores": [0.5]}


@pytest.fixture
def client(features, tmp_path):
    settings = Settings(models_dir=tmp_path / "models")
    service = InspectionService(settings, features, ModelStore(settings.models_dir))
    with TestClient(create_app(settings, service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def crop(images):
    return cv2.imencode(".png", images[0])[1].tobytes()


def check_refusal(reply, status, words):
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error", "trace"}
    assert words in reply.json()["error"]


@pytest.mark.parametrize("name", ["=?é?q?a?=", "=?utf-9?q?a?=", "=?utf-8?b?a?="])
def test_a_file_name_that_cannot_be_decoded_is_taken_as_it_is(client, crop, name):
    form = (
        "--b\r\nContent-Disposition: form-data; name=role_id\r\n\r\na\r\n"
        "--b\r\nContent-Disposition: form-data; name=roi_id\r\n\r\nb\r\n"
        f'--b\r\nContent-Disposition: form-data; name=images; filename="{name}"\r\n\r\n'
    ).encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    stored = client.post("/datasets/ok/upload", content=form + crop + b"\r\n--b--\r\n", headers=headers)
    assert stored.status_code == 200, stored.text
    meta = client.get("/datasets/meta", params={"role_id": "a", "roi_id": "b", "label": "ok", "filename": name})
    assert meta.json()["filename"] == name


def test_a_recipe_of_more_than_1000_characters_is_refused_wherever_it_is_named(client, tmp_path):
    long, longest = "R" * 1001, "R" * 1000
    check_refusal(client.post("/calibrate_ng", json={**SCORES, "recipe_id": long}), 422, "recipe_id")
    for name in (long, "R" * 30_000):
        check_refusal(client.post("/calibrate_ng", json=SCORES, headers={"X-Recipe-Id": name}), 422, "recipe_id")
    assert not (tmp_path / "models").exists()
    assert client.post("/calibrate_ng", json=SCORES, headers={"X-Recipe-Id": longest}).status_code == 200
    assert client.get("/health", headers={"X-Recipe-Id": "R" * 30_000}).status_code == 200
