"""`/`, which is what a person opens first."""

from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.common.errors import WeightsError
from backend.service.inspection import InspectionService

KEY = "a-key-of-sixteen-or-more"


def opened(root_path="", **settings):
    """A client of an application that loads no network, and follows no redirect."""
    app = create_app(Settings(**settings))
    return TestClient(app, root_path=root_path, follow_redirects=False, base_url="http://inspection")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    def fail(_settings):
        raise WeightsError("no weights")

    monkeypatch.setattr(InspectionService, "open", fail)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_start_page_leads_to_the_documentation_in_every_state(method):
    with opened() as client:
        reply = client.request(method, "/")
        assert (reply.status_code, reply.content) == (307, b"")
        assert reply.headers["cache-control"] == "no-store", "it may lead elsewhere one day"
        page = client.get(urljoin("http://inspection/", reply.headers["location"]))
        assert (page.status_code, page.url.path) == (200, "/docs")


def test_below_a_root_path_the_start_page_leads_to_the_documentation_there():
    with opened(root_path="/line-1") as client:
        location = client.get("/line-1/").headers["location"]
        assert urljoin("http://inspection/line-1/", location) == "http://inspection/line-1/docs"
        assert client.get("/line-1/docs").status_code == 200


def test_where_there_are_keys_the_start_page_asks_for_one_as_the_docs_do():
    with opened(api_keys=KEY) as client:
        refused = client.get("/")
        assert (refused.status_code, set(refused.json())) == (401, {"error", "trace", "code"})
        assert refused.headers["www-authenticate"].startswith("Basic "), "so a browser can ask"
        assert client.get("/", auth=("anybody", KEY)).status_code == 307


def test_what_the_start_page_does_not_serve_is_refused_as_elsewhere():
    with opened() as client:
        reply = client.post("/")
        assert (reply.status_code, set(reply.json())) == (405, {"error", "trace", "code"})
        assert reply.headers["allow"] == "GET, HEAD"
        assert client.options("/").status_code == 204
        assert "/" not in client.get("/openapi.json").json()["paths"]
