"""`/`, which is what a person opens first: the console in a browser, the way to the documentation for all others."""

import re
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.common.errors import WeightsError
from backend.service.inspection import InspectionService
from backend.web import console_files

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


PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_browsers_get_the_console_in_every_state_and_without_a_key(method):
    with opened(api_keys=KEY, rate_limit_per_s=1e-6) as client:
        for _ in range(3):
            reply = client.request(method, "/", headers=PAGE)
            assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert (reply.headers["vary"], reply.headers["cache-control"]) == ("Accept, Accept-Encoding", "no-cache")
        assert client.get("/health").json()["status"] != "ok"


def test_all_that_the_page_and_its_modules_load_is_served(tmp_path):
    with opened(root_path="/line-1", api_keys=KEY) as client:
        page = client.get("/line-1/", headers=PAGE).text
        wanted = [urljoin("/line-1/", link) for link in re.findall(r'(?:href|src)="(console/[^"]+)"', page)]
        seen = set()
        while wanted:
            path = wanted.pop()
            if path in seen:
                continue
            seen.add(path)
            reply = client.get(path)
            assert reply.status_code == 200, path
            if path.endswith(".js"):
                assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
                links = re.findall(r'(?:from |^import |import\(|new URL\()"(\.[^"]+\.js)"', reply.text, re.MULTILINE)
                wanted += [urljoin(path, link) for link in links]
    assert {"/line-1/console/main.js", "/line-1/console/console.css", "/line-1/console/screens/line.js"} <= seen


def test_files_of_the_console_are_kept_until_they_change():
    with opened() as client:
        first = client.get("/console/main.js")
        again = client.get("/console/main.js", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert client.get("/console/main.js", headers={"If-None-Match": '"other"'}).content == first.content


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("br;q=1.0, GZIP;q=0.5", "gzip"),
        ("gzip;q=0.000", None),
        ("br", None),
        ("x-gzip-not", None),
        ("identity", None),
    ],
)
def test_files_are_compressed_for_those_who_read_gzip(accepted, encoding):
    with opened() as client:
        reply = client.get("/console/main.js", headers={"Accept-Encoding": accepted})
        assert reply.headers.get("content-encoding") == encoding
        assert reply.headers["vary"] == "Accept-Encoding"
        assert reply.content == console_files()["main.js"]  # as the client has decompressed it
        is_smaller = int(reply.headers["content-length"]) < len(reply.content) / 2
        assert is_smaller == (encoding is not None)


def test_a_compressed_file_and_the_file_itself_have_two_etags():
    with opened() as client:
        etags = [
            client.get("/console/main.js", headers={"Accept-Encoding": accepted}).headers["etag"]
            for accepted in ("gzip", "identity")
        ]
        assert len(set(etags)) == 2
        plain = {"Accept-Encoding": "identity", "If-None-Match": etags[0]}
        assert client.get("/console/main.js", headers=plain).status_code == 200


@pytest.mark.parametrize("path", ["", "index.html", "nothing.js", "%2e%2e/app.py", "__init__.py", "/etc/passwd"])
def test_what_is_no_file_of_the_console_is_an_unknown_path(path):
    with opened() as client:
        reply = client.get(f"/console/{path}")
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


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
