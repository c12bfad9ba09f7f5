"""Who tries a picture does not count as production."""

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory
from backend.service.calibrate import calibrate
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import unit_rows

IDS = {"role_id": "Master1", "roi_id": "Pattern"}
KEY = RoiKey(**IDS)


@pytest.fixture
def service(features, tmp_path):
    service = InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path))
    service.store.save_memory(KEY, PatchCoreMemory.build(unit_rows(20, 384, 1), features.token_hw, 1.0), {})
    calibrate(service, KEY, [0.4, 0.5], [], mm_per_px=0.2)
    return service


@pytest.fixture
def client(service):
    with TestClient(create_app(service.settings, service)) as client:
        yield client


def send(client, path, **fields):
    png = cv2.imencode(".png", np.zeros((60, 60, 3), np.uint8))[1].tobytes()
    return client.post(path, data={**IDS, "mm_per_px": "0.2", **fields}, files={"image": ("a.png", png, "image/png")})


def n_parts(client, service):
    service.drift.flush()
    return client.get("/drift", params=IDS).json()["n_parts"]


@pytest.mark.parametrize(
    ("path", "fields", "counted"),
    [
        ("/infer", {}, 1),
        ("/infer", {"trial": "false"}, 1),
        ("/infer", {"trial": ""}, 1),
        ("/infer", {"trial": "true"}, 0),
        ("/explain", {}, 0),
        ("/explain", {"trial": "true"}, 0),
    ],
)
def test_only_inferences_that_are_no_trial_count_as_parts(client, service, path, fields, counted):
    reply = send(client, path, **fields)
    assert reply.status_code == 200, reply.text
    assert n_parts(client, service) == counted


def test_a_trial_is_judged_as_every_part(client):
    trial, part = (send(client, "/infer", **fields).json() for fields in ({"trial": "true"}, {}))
    assert {**trial, "request_id": ""} == {**part, "request_id": ""}


def test_a_trial_that_is_neither_true_nor_false_is_refused(client):
    reply = send(client, "/infer", trial="perhaps")
    assert reply.status_code == 422
    assert "trial" in reply.json()["error"]
