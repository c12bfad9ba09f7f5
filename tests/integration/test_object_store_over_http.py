"""Two replicas over one object store as clients see them: what one is told the other serves, whatever is killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("obstore", reason="requirements/dev.txt has it")
pytest.importorskip("moto", reason="requirements/dev.txt has it")

from harness.fault_proxy import Fault, Faults, faulty
from harness.object_store import BUCKET, CREDENTIALS, moto_store
from harness.server import Server, serving
from harness.versions import SMALL_NETWORK

ROI = {"role_id": "Master1", "roi_id": "Pattern", "recipe_id": "line 1"}
IN_RECIPE = {**ROI, "mm_per_px": "0.2"}


@pytest.fixture(scope="module")
def faults() -> Iterator[Faults]:
    with moto_store() as endpoint, faulty(endpoint) as faults:
        yield faults


@pytest.fixture(scope="module")
def settings(faults: Faults) -> dict[str, str]:
    url = {"MODELS_URL": f"s3://{BUCKET}/line", "AWS_ENDPOINT_URL": faults.endpoint}
    return {**CREDENTIALS, **url, **SMALL_NETWORK, "LOG_LEVEL": "info", "HISTORY": "10"}


@pytest.fixture(scope="module")
def replicas(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "other")]
    with serving(folder=folders[0], **settings) as one, serving(folder=folders[1], **settings) as other:
        yield one, other


def post(server: Server, path: str, images: dict[str, bytes] | None = None, **texts: Any) -> httpx.Response:
    with server.client() as client:
        if images is None:
            return client.post(path, json=texts)
        name = "image" if path == "/infer" else "images"
        files = [(name, (file, content, "image/png")) for file, content in images.items()]
        return client.post(path, data=texts, files=files)


def test_what_one_replica_is_told_the_other_serves(replicas: tuple[Server, Server], crops: list[bytes]) -> None:
    one, other = replicas
    images = {f"{number}.png": crop for number, crop in enumerate(crops[:3])}
    assert post(one, "/fit_ok", images, **IN_RECIPE).status_code == 200
    score = post(other, "/infer", {"a.png": crops[4]}, **IN_RECIPE).json()["score"]
    calibration = {**ROI, "mm_per_px": 0.2, "ok_scores": [score / 2]}
    assert post(other, "/calibrate_ng", **calibration).status_code == 200
    judged = post(one, "/infer", {"a.png": crops[4]}, **IN_RECIPE).json()
    assert (judged["score"], judged["calibration"], judged["decision"]) == (score, "applied", "ng")
    assert post(one, "/datasets/ok/upload", images, **IN_RECIPE).status_code == 200
    with other.client() as client:
        listed = client.get("/datasets/list", params=ROI).json()
        assert listed["classes"]["ok"]["count"] == 3
        assert client.get("/rois").json()["rois"][0]["threshold"] == judged["threshold"]
        name = listed["classes"]["ok"]["files"][0]
        file = client.get("/datasets/file", params={**ROI, "label": "ok", "filename": name})
        assert file.content in crops
    refused = post(other, "/fit_ok", images, **{**IN_RECIPE, "mm_per_px": "0.3"})
    assert (refused.status_code, refused.json()["code"]) == (409, "scale_locked")
    assert not list(one.models.rglob("*.npz")), "nothing lies in MODELS_DIR"


def test_outage_is_503_and_over_by_itself(replicas: tuple[Server, Server], faults: Faults, crops: list[bytes]) -> None:
    one, _ = replicas
    roi = {"role_id": "Outage", "roi_id": "Pattern", "mm_per_px": "0.2"}
    assert post(one, "/fit_ok", {"a.png": crops[0]}, **roi).status_code == 200
    faults.every = [Fault("unreachable")]
    try:
        for path in ("/fit_ok", "/infer"):
            reply = post(one, path, {"a.png": crops[0]}, **roi)
            assert (reply.status_code, reply.json()["code"]) == (503, "store_unavailable"), reply.text
            assert int(reply.headers["Retry-After"]) > 0
            assert "127.0.0.1" not in reply.text
        with one.client() as client:
            health = client.get("/health").json()
        assert (health["status"], health["models_fresh_s"]) == ("ok", 0)
        assert health["store_silent_s"] > 0
    finally:
        faults.every = []
    assert post(one, "/infer", {"a.png": crops[0]}, **roi).status_code == 200
    with one.client() as client:
        assert "store_silent_s" not in client.get("/health").json()


def test_killed_replica_loses_nothing_and_logs_no_credentials(
    replicas: tuple[Server, Server], settings: dict[str, str], crops: list[bytes], tmp_path: Path
) -> None:
    _, other = replicas
    roi = {"role_id": "Killed", "roi_id": "Pattern", "mm_per_px": "0.2"}
    with serving(folder=tmp_path, **settings) as third:
        assert post(third, "/fit_ok", {"a.png": crops[0], "b.png": crops[1]}, **roi).status_code == 200
        third.process.kill()
        third.process.wait()
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in third.log_text()
    assert post(other, "/infer", {"a.png": crops[0]}, **roi).status_code == 200
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in other.log_text()


def test_store_that_ignores_conditions_is_refused_at_the_start(
    settings: dict[str, str], faults: Faults, tmp_path: Path
) -> None:
    from harness.server import starting

    with faulty(faults.endpoint) as careless:
        careless.ignores_conditions = True
        with starting(folder=tmp_path, **{**settings, "AWS_ENDPOINT_URL": careless.endpoint}) as server:
            health: dict[str, Any] = {}
            while health.get("status") != "failed":
                try:
                    with server.client() as client:
                        health = client.get("/health").json()
                except httpx.TransportError:
                    assert server.process.poll() is None
    assert "ignores If-None-Match" in health["reason"]
