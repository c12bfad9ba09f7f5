"""What is told of a service that runs."""

from starlette.testclient import TestClient

from backend.app import create_app


def test_a_probe_may_ask_for_the_head_alone(service):
    with TestClient(create_app(service.settings, service)) as client:
        for path in ("/health", "/ready"):
            reply = client.head(path)
            assert (reply.status_code, reply.content) == (200, b"")
