"""What `/health` says of what the caller may do, and how much at once."""

import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from tests.factories import service_with

FULL, INFER = "full-key-of-the-line", "infer-key-of-the-line"
MINIMAL = {"status", "device", "model", "version", "recipe_id", "request_id"}
KNOWN = {"runtime", "precision", "input_size", "token_shape", "weights_sha256", "stale_calibrations", "drifting_rois"}


@pytest.fixture
def health(small_features, tmp_path):
    """The health of a service with some settings, as a caller with some headers sees it."""

    def ask(headers=None, **settings):
        service = service_with(small_features, tmp_path, **settings)
        client = TestClient(create_app(service.settings, service))
        return client.get("/health", headers=headers or {}).json()

    return ask


def test_without_keys_everybody_may_do_everything(health):
    body = health()
    assert body["access"] == "full"
    assert body.keys() == MINIMAL | KNOWN | {"access", "limits"}


def test_each_key_is_told_what_it_may_do_and_strangers_nothing(health):
    keys = {"api_keys": FULL, "infer_keys": INFER}
    assert health({"X-API-Key": FULL}, **keys)["access"] == "full"
    assert health({"Authorization": f"Bearer {INFER}"}, **keys)["access"] == "infer"
    for headers in ({}, {"X-API-Key": "nobody-knows-this-key"}):
        assert health(headers, **keys).keys() == MINIMAL


def test_limits_are_those_of_the_settings(health):
    settings = {"max_file_mb": 3.5, "max_files": 17, "max_pixels": 1234, "rate_limit_per_s": 100, "min_ok_samples": 5}
    limits = health(**settings)["limits"]
    assert {name: limits[name] for name in settings} == settings
    defaults = Settings()
    rest = limits.keys() - settings.keys() - {"max_layout_bytes", "max_picture_bytes", "max_pictures"}
    assert {name: limits[name] for name in rest} == {name: getattr(defaults, name) for name in rest}
    assert {"max_request_mb", "max_json_mb", "max_queue", "max_fits"} <= rest
    assert (limits["max_layout_bytes"], limits["max_picture_bytes"], limits["max_pictures"]) == (2**20, 2**22, 256)
    assert all(type(limits[name]) is int for name in ("max_files", "max_pixels", "max_pictures"))


@pytest.mark.parametrize("setting", ["max_json_mb", "max_request_mb"])
def test_the_limit_of_a_layout_is_the_one_that_is_applied(small_features, tmp_path, setting):
    service = service_with(small_features, tmp_path, **{setting: 0.001})
    client = TestClient(create_app(service.settings, service))
    most = client.get("/health").json()["limits"]["max_layout_bytes"]
    layout = b'{"a":"' + b"x" * (most - 8) + b'"}'
    json = {"Content-Type": "application/json"}
    assert client.put("/layout", content=layout, headers={**json, "If-None-Match": "*"}).status_code == 200
    assert client.put("/layout", content=b" " + layout, headers={**json, "If-Match": "*"}).status_code == 413


def test_a_service_that_is_starting_tells_access_and_limits_too(tmp_path):
    client = TestClient(create_app(Settings(models_dir=tmp_path, infer_keys=INFER)))
    body = client.get("/health", headers={"X-API-Key": INFER}).json()
    assert (body["status"], body["access"], body["limits"]["max_files"]) == ("starting", "infer", 1000)
