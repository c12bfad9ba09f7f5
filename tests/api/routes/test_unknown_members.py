"""Members that an endpoint does not know: refused where they would change a model, named elsewhere."""

import cv2
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.service.fit import fit
from backend.utils import NamedImage
from tests.factories import KEY

IDS = {"role_id": KEY.role_id, "roi_id": KEY.roi_id}


@pytest.fixture
def client(service, images):
    png = cv2.imencode(".png", cv2.resize(images[0], (80, 60)))[1].tobytes()
    fit(service, KEY, [NamedImage("1.png", lambda: png)], mm_per_px=0.2)
    with TestClient(create_app(Settings(models_dir=service.settings.models_dir), service)) as client:
        yield client, png


@pytest.mark.parametrize(
    ("path", "body"), [("/rollback", {"verzion": 1}), ("/drift/reset", {"referenze": "production"})]
)
def test_misspelt_member_of_a_change_is_refused_with_the_name_meant(client, path, body):
    reply = client[0].post(path, json={**IDS, **body})
    assert reply.status_code == 422
    (name,) = body
    meant = {"verzion": "version", "referenze": "reference"}[name]
    assert reply.json()["error"] == f"unknown and without effect: '{name}' (did you mean {meant}?)"


def test_members_that_clients_send_are_no_reason_to_refuse_a_rollback(client):
    reply = client[0].post("/rollback", json={**IDS, "model_key": KEY.roi_id, "mm_per_px": 0.2})
    assert "unknown" not in reply.json()["error"]


def test_misspelt_field_of_explain_and_infer_dataset_is_named(client):
    http, png = client
    explained = http.post(
        "/explain", data={**IDS, "mm_per_px": "0.2", "trail": "true"}, files={"image": ("1.png", png)}
    )
    assert "'trail' (did you mean trial?)" in explained.json()["warning"]
    judged = http.post("/infer_dataset", json={**IDS, "labelz": ["ok"], "default_mm_per_px": 0.2})
    assert "'labelz' (did you mean labels?)" in judged.json()["warning"]
    assert "warning" not in http.post("/infer_dataset", json={**IDS, "default_mm_per_px": 0.2}).json()
