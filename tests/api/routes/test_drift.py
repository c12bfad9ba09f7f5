"""What the endpoints tell about drift, and who may reset it."""

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory
from backend.service.calibrate import calibrate as calibrate_scores
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.roll_back import roll_back
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import unit_rows

KEY = RoiKey("Master1", "Pattern")
IDS = {"role_id": "Master1", "roi_id": "Pattern"}
UNKNOWN = (
    "the OK scores are unknown, or come from images of the fit: calibrate with good parts that were not in the fit, "
    "or send "
    "reference=production"
)
FULL, LINE = "full-key-of-the-engineer", "key-that-may-only-infer"


def scores(seed, n, mean=0.45):
    return np.random.default_rng(seed).normal(mean, 0.03, n).tolist()


@pytest.fixture
def service(features, tmp_path):
    settings = Settings(models_dir=tmp_path, api_keys=FULL, infer_keys=LINE, drift_reject_rate=0.2)
    service = InspectionService(settings, features, ModelStore(tmp_path))
    service.store.save_memory(KEY, PatchCoreMemory.build(unit_rows(20, 384, 1), features.token_hw, 1.0), {})
    return service


@pytest.fixture
def client(service):
    with TestClient(create_app(service.settings, service), headers={"X-API-Key": FULL}) as client:
        yield client


def inspect(service, parts):
    """As `/infer` does once it has a score."""
    fitted = service.fitted(KEY)
    for score in parts:
        service.drift.record(KEY, fitted, score)
    service.drift.flush()


def calibrate(service, ok_scores):
    calibrate_scores(service, KEY, ok_scores, [0.75], mm_per_px=0.2)


def test_drift_route_tells_what_is_known_from_first_request_to_reset(client, service):
    """The verdict goes from none to ok to drift, and a reset begins anew with the OK scores or without them."""
    before = client.get("/drift", params=IDS).json()
    assert (before["verdict"], before["n_parts"]) == ("none", 0)
    ok = scores(0, 100)
    calibrate(service, ok)
    inspect(service, [*scores(1, 60), 0.9])
    fine = client.get("/drift", params=IDS).json()
    assert (fine["verdict"], fine["n_parts"], fine["n_rejected"]) == ("ok", 61, 1)
    assert fine["tolerated_reject_rate"] == pytest.approx(
        1 - 0.8 * (1 - binomtest(0, 100).proportion_ci(0.98, "exact").high)
    )
    assert fine["alarm_at"] == 1_000_000
    assert fine["evidence"] < 1000
    assert fine["recent"]["mean"] == pytest.approx(np.mean([*scores(1, 60), 0.9]), abs=1e-5)
    assert fine["recent"]["reject_rate"] == pytest.approx(1 / 61)
    assert fine["reference"]["n"] == 100
    reference = [fine["reference"][name] for name in ("p5", "p50", "p95")]
    assert reference == pytest.approx(np.percentile(ok, (5, 50, 95)), abs=1e-12)
    assert not {"direction", "since_utc", "since_part"} & fine.keys()

    inspect(service, scores(2, 60, mean=0.52))
    drifted = client.get("/drift", params=IDS).json()
    assert (drifted["verdict"], drifted["direction"]) == ("drift", "higher")
    assert 61 < drifted["since_part"] <= 121
    assert drifted["since_utc"] <= drifted["last_at_utc"]
    assert drifted["evidence"] >= drifted["alarm_at"]
    assert "score higher than those of the calibration" in drifted["reason"]
    (listed,) = client.get("/drift/rois").json()["rois"]
    assert {**listed, "request_id": drifted["request_id"]} == drifted

    reply = client.post("/drift/reset", json=IDS)
    assert reply.status_code == 200
    assert (reply.json()["verdict"], reply.json()["n_parts"], reply.json()["reference"]["n"]) == ("ok", 0, 100)
    assert client.get("/drift/rois").json()["rois"] == []
    reply = client.post("/drift/reset", json={**IDS, "reference": "production"})
    assert reply.json()["verdict"] == "collecting"
    assert "reference" not in reply.json()


def test_defects_of_the_next_calibration_are_drift_until_it_comes(client, service):
    """Defective images that are inferred for the next calibration count as a drift of rejects meanwhile."""
    calibrate(service, scores(0, 100))
    inspect(service, [0.9] * 20)
    assert client.get("/drift", params=IDS).json()["direction"] == "rejects"
    calibrate(service, scores(1, 100))
    assert client.get("/drift", params=IDS).json()["verdict"] == "ok"
    assert client.get("/drift/rois").json()["rois"] == []


def test_health_and_metrics_count_the_rois_that_drift(client, service):
    calibrate(service, scores(0, 100))
    before = _metric(client, 'drift_detected_total{direction="rejects"}')
    inspect(service, [0.9] * 30)
    assert _metric(client, "drifting_rois") == 1
    assert _metric(client, 'drift_detected_total{direction="rejects"}') == before + 1
    with TestClient(create_app(service.settings, service), headers={"X-API-Key": FULL}) as another:
        assert another.get("/health").json()["drifting_rois"] == 1
    stranger = TestClient(create_app(service.settings, service)).get("/health").json()
    assert "drifting_rois" not in stranger


def _metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


def test_a_key_for_inferences_may_look_and_not_reset(client):
    line = {"X-API-Key": LINE}
    assert client.get("/drift", params=IDS, headers=line).status_code == 200
    assert client.get("/drift/rois", headers=line).status_code == 200
    assert client.post("/drift/reset", json=IDS, headers=line).status_code == 403
    assert client.get("/drift/rois", headers={"X-API-Key": ""}).status_code == 401


def test_a_damaged_statistics_file_is_no_error(client, service):
    calibrate(service, scores(0, 100))
    (file,) = (service.settings.models_dir / ".drift").glob("*/*.json")
    file.write_bytes(b'{"n_parts": NaN')
    assert client.get("/drift", params=IDS).json()["verdict"] == "collecting"
    assert client.get("/drift/rois").json()["rois"] == []
    reply = client.post("/drift/reset", json=IDS)
    assert (reply.status_code, reply.json()["error"]) == (409, UNKNOWN)
    assert client.post("/drift/reset", json={**IDS, "reference": "production"}).status_code == 200


def test_reset_to_unknown_ok_scores_is_refused_and_changes_nothing(client, service):
    """The OK scores of a rolled-back calibration are not known. A reset to those of production still works."""
    assert client.post("/drift/reset", json=IDS).json()["verdict"] == "none", "without a calibration nothing compares"
    calibrate(service, scores(0, 100))
    calibrate(service, scores(1, 100, mean=0.47))
    roll_back(service, KEY)  # to the calibration before, whose scores nobody kept
    inspect(service, [0.9] * 30)
    assert client.get("/drift", params=IDS).json()["verdict"] == "drift"
    reply = client.post("/drift/reset", json=IDS)
    assert (reply.status_code, reply.json()["error"]) == (409, UNKNOWN)
    assert client.get("/drift", params=IDS).json()["verdict"] == "drift", "nothing was changed"
    assert client.post("/drift/reset", json={**IDS, "reference": "production"}).json()["verdict"] == "collecting"


def test_what_cannot_be_reset_is_said(client):
    unknown = {"role_id": "Master1", "roi_id": "Unknown"}
    assert client.get("/drift", params=unknown).json()["verdict"] == "none"
    assert client.post("/drift/reset", json=unknown).status_code == 400
    assert client.post("/drift/reset", json={**IDS, "reference": "yesterday"}).status_code == 422


def test_only_inferences_over_http_are_production(features, tmp_path, images, monkeypatch):
    monkeypatch.setattr(features, "extract", lambda *_: (unit_rows(64, 384, 2), features.token_hw))
    service = InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path))
    service.store.save_memory(KEY, PatchCoreMemory.build(unit_rows(20, 384, 1), features.token_hw, 1.0), {})
    content = cv2.imencode(".png", images[0])[1].tobytes()
    infer(service, KEY, NamedImage("1.png", lambda: content), Scoring(0.2))
    with TestClient(create_app(service.settings, service)) as client:
        fields = {**IDS, "mm_per_px": "0.2"}
        client.post("/infer", data=fields, files={"image": ("1.png", content, "image/png")}).raise_for_status()
        client.post("/datasets/ok/upload", data=IDS, files={"images": ("1.png", content, "image/png")})
        body = {**IDS, "default_mm_per_px": 0.2, "require_ng": False}
        assert client.post("/infer_dataset", json=body).json()["n_errors"] == 0
    assert service.drift.status(KEY, service.fitted(KEY)).drift.n_parts == 1, "added when the service ended"
