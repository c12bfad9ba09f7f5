"""Which web pages may ask, and under which host names."""

import asyncio

import pytest

OURS, OTHER = "https://gui.example", "https://other.example"
ALLOW_PRIVATE = "access-control-allow-private-network"


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


# --- changes that pages of other origins ask for


def post(client, method="POST", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.request(method, "/nowhere", content=b"a form", headers=named)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": OTHER},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://testserver:3000"},
        {"Origin": "http://testserver.evil.example"},
        {"Origin": "testserver"},
        {"Origin": OTHER, "Sec_Fetch_Site": "same-site"},
        {"Origin": "http://testserver", "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Origin": "null", "Host": ""},
        {"Origin": "https://", "Host": ""},
    ],
    ids=str,
)
def test_a_change_that_a_foreign_page_asks_for_is_refused(calling, headers):
    client = calling()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        reply = post(client, method, **headers)
        assert (reply.status_code, reply.json()["code"]) == (403, "origin_not_allowed")
        assert "CORS_ORIGINS" in reply.json()["error"]
        assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://testserver"},
        {"Origin": "http://TestServer:80"},
        {"Origin": "https://testserver"},  # a proxy took the TLS off
        {"Origin": "https://inspection.example", "Host": "inspection.example:443"},
        {"Origin": "http://[::1]:8000", "Host": "[::1]:8000"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "null", "Sec_Fetch_Site": "same-origin"},  # a form of a page that sends no referrer
        {"Origin": "https://inspection.example", "Sec_Fetch_Site": "same-origin"},  # a proxy put another host in
    ],
    ids=str,
)
def test_own_pages_and_other_clients_may_change(calling, headers):
    assert post(calling(), **headers).status_code == 404, "it went on to the routes"


def test_foreign_pages_may_ask_what_changes_nothing(calling):
    client, foreign = calling(), {"Origin": OTHER, "Sec-Fetch-Site": "cross-site"}
    assert client.get("/ready", headers=foreign).status_code == 200
    assert client.options("/infer", headers=foreign).status_code == 204


def test_origins_that_are_allowed_may_change(calling):
    one, all_of_them = calling(cors_origins=OURS), calling(cors_origins="*")
    assert post(one, Origin=OURS, Sec_Fetch_Site="cross-site").status_code == 404
    assert post(one, Origin=OTHER, Sec_Fetch_Site="cross-site").status_code == 403
    assert post(all_of_them, Origin=OTHER, Sec_Fetch_Site="cross-site").status_code == 404
    assert post(all_of_them, Origin="null").status_code == 404


def test_the_trace_of_the_refusal_follows_its_setting(calling):
    assert post(calling(), Origin=OTHER).json()["trace"].endswith("must forward the Host header\n")
    assert post(calling(trace=False), Origin=OTHER).json()["trace"] == ""


def test_a_long_origin_is_told_shortly(calling):
    error = post(calling(), Origin=b"https://" + "é".encode() * 5000).json()["error"]
    assert error.isascii()
    assert len(error) < 700


# --- host names


LOOPBACK = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:1", 200),
        ("localhost", 200),
        ("LocalHost:8000", 200),
        ("localhost.:8000", 200),
        ("gui.localhost:8000", 200),
        ("[::1]:8000", 200),
        ("[::ffff:127.0.0.1]", 200),
        ("", 200),
        ("factory.example", 400),
        ("rebound.evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("notlocalhost", 400),
        ("0.0.0.0:8000", 400),
        ("10.0.0.7", 400),
        ("[::2]", 400),
        ("/run/roi.sock", 400),
        ("[", 400),
    ],
)
def test_over_loopback_only_loopback_names_are_served(calling, host, status):
    client = calling(base_url=LOOPBACK)
    reply = client.get("/ready", headers={"Host": host})
    assert reply.status_code == status
    if status == 400:
        assert reply.json()["code"] == "wrong_host"
        assert repr(host) in reply.json()["error"]
        assert "set ALLOWED_HOSTS" in reply.json()["error"]
        assert reply.headers["x-request-id"]


def test_a_request_without_host_is_served_over_loopback(calling):
    app = calling().app
    assert asyncio.run(status_of(app, ("127.0.0.1", 8000))) == 200


@pytest.mark.parametrize("server", [("10.0.0.7", 8000), ("/run/roi.sock", None), None], ids=str)
def test_addresses_that_others_reach_and_sockets_serve_any_name(calling, server):
    app = calling().app
    assert asyncio.run(status_of(app, server, (b"host", b"factory.example"))) == 200
    assert asyncio.run(status_of(app, ("127.0.0.1", 8000), (b"host", b"factory.example"))) == 400


async def status_of(app, server, *headers):
    """Status of ``GET /ready`` that arrives at `server`."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/ready", "query_string": b"", "root_path": ""}
    await app({**scope, "headers": list(headers), "server": server, "client": ("10.0.0.1", 1)}, receive, send)
    return sent[0]["status"]


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"allowed_hosts": "*"}], ids=str)
def test_a_service_for_others_serves_any_name_over_loopback_too(calling, settings):
    reply = calling(base_url=LOOPBACK, **settings).get("/ready", headers={"Host": "inspection-pc:8000"})
    assert reply.status_code == 200


def test_hosts_that_are_set_are_served_over_loopback_and_no_others(calling):
    client = calling(base_url=LOOPBACK, allowed_hosts="factory.example")
    assert client.get("/ready", headers={"Host": "factory.example"}).status_code == 200
    assert client.get("/ready").status_code == 400
