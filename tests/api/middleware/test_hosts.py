"""Which web pages may ask, and under which host names."""

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings

OURS, OTHER = "https://gui.example", "https://other.example"
ALLOW_PRIVATE = "access-control-allow-private-network"


@pytest.fixture
def calling(tmp_path):
    """Makes a client of a service with these settings, which takes every request for work that it can do."""

    def client(**settings):
        app = create_app(Settings(models_dir=tmp_path, **settings))
        app.state.lifecycle.service = object()
        return TestClient(app, raise_server_exceptions=False)

    return client


def preflight(client, origin, **headers):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", **headers}
    return client.options("/infer", headers=asked)


# --- pages of other origins that may call


def test_an_allowed_origin_may_call_a_private_network(calling):
    client = calling(cors_origins=OURS)
    private = {"Access-Control-Request-Private-Network": "true"}
    reply = preflight(client, OURS, **private)
    assert (reply.status_code, reply.headers[ALLOW_PRIVATE]) == (200, "true")
    assert reply.headers["access-control-allow-origin"] == OURS
    assert ALLOW_PRIVATE not in preflight(client, OURS).headers, "nobody asked"
    refused = preflight(client, OTHER, **private)
    assert refused.status_code == 400
    assert not {ALLOW_PRIVATE, "access-control-allow-origin"} & set(refused.headers)


def test_without_origins_nobody_is_told_to_call_a_private_network(calling):
    reply = preflight(calling(), OURS, **{"Access-Control-Request-Private-Network": "true"})
    assert not {ALLOW_PRIVATE, "access-control-allow-origin"} & set(reply.headers)
