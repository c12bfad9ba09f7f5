"""Keys and rates: who is let in, how often, and that refusals put off nobody."""

import asyncio
import base64
import json
from types import SimpleNamespace

import pytest
import structlog

from backend.api.api_keys import ApiKeys
from backend.api.middleware import access
from backend.api.middleware.access import Gate, RateLimit
from backend.common.config import Settings
from backend.common.errors import TooManyRequests

FULL, INFER, WRONG = "full-key-of-the-line", "infer-key-of-the-line", "nobody-knows-this-key"


@pytest.fixture
def clock():
    """Time that passes only when told to."""
    return SimpleNamespace(seconds=1000.0)


def limit(clock, per_s, **others):
    return RateLimit(per_s, lambda: clock.seconds, **others)


def admitted(rate_limit, client, n=1000):
    """How many requests in a row get through, and how long to wait for the next one."""
    for count in range(n):
        try:
            rate_limit.take(client)
        except TooManyRequests as exc:
            return count, exc.retry_after_s
    return n, 0


# --- requests per second


@pytest.mark.parametrize(
    ("per_s", "burst", "wait_s"), [(0.1, 1, 10), (0.5, 2, 1), (1, 5, 1), (2, 10, 1), (2.5, 12, 1), (10, 50, 1)]
)
def test_a_client_may_send_five_seconds_worth_at_once_and_then_its_rate(clock, per_s, burst, wait_s):
    rate_limit = limit(clock, per_s)
    assert admitted(rate_limit, "a") == (burst, wait_s)
    for _ in range(20):
        clock.seconds += 1 / per_s
        assert admitted(rate_limit, "a")[0] == 1
    clock.seconds += 3600
    assert admitted(rate_limit, "a")[0] == burst


def test_who_comes_back_when_told_to_is_admitted(clock):
    rate_limit = limit(clock, 0.3)
    for _ in range(10):
        _, wait_s = admitted(rate_limit, "a")
        clock.seconds += wait_s
        rate_limit.take("a")


def test_over_any_time_no_more_than_the_rate_and_one_burst_are_admitted(clock):
    rate_limit = limit(clock, 3)
    n_admitted = 0
    for _ in range(1000):  # 100 requests per second for 10 s
        clock.seconds += 0.01
        n_admitted += admitted(rate_limit, "a", 1)[0]
    assert n_admitted == 15 + 30 - 1


def test_refused_requests_do_not_put_off_the_next_one(clock):
    rate_limit = limit(clock, 1)
    admitted(rate_limit, "a")
    for _ in range(1000):
        assert admitted(rate_limit, "a") == (0, 1)
    clock.seconds += 1
    assert admitted(rate_limit, "a")[0] == 1


def test_clients_do_not_share_their_limits(clock):
    rate_limit = limit(clock, 1)
    assert [admitted(rate_limit, client)[0] for client in ("a", "b", b"a", "b")] == [5, 5, 5, 0]


def test_only_the_clients_seen_last_are_remembered(clock):
    rate_limit = limit(clock, 1, max_clients=3)
    for client in "abc":
        admitted(rate_limit, client)
    assert admitted(rate_limit, "a")[0] == 0
    admitted(rate_limit, "d")
    assert [admitted(rate_limit, client)[0] for client in "acd"] == [0, 0, 0]
    assert admitted(rate_limit, "b")[0] == 5, "the longest unseen one is forgotten"
    for number in range(20_000):
        admitted(rate_limit, str(number), 1)
    assert len(rate_limit._whole_at) == 3
    assert access._MAX_CLIENTS == 10_000


# --- the gate


class Caller:
    """Sends requests through a gate, and keeps what comes out."""

    def __init__(self, rate_limit=None, **settings):
        self.reached = []
        self.gate = Gate(self._app, ApiKeys.of(Settings(**settings)), rate_limit, with_trace=True)
        self.body = [{"type": "http.request", "body": b"", "more_body": False}]
        self.taken = 0

    async def _app(self, scope, receive, send):
        self.reached.append(scope)

    def __call__(self, method="GET", path="/runs", *, root_path="", server="127.0.0.1", client="10.0.0.1", **headers):
        sent = []
        raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": raw}
        scope |= {"server": (server, 80), "client": (client, 1)}

        async def receive():
            self.taken += 1
            return self.body[0] if len(self.body) == 1 else self.body.pop(0)

        async def send(message):
            sent.append(message)

        before = len(self.reached)
        asyncio.run(self.gate(scope, receive, send))
        if len(self.reached) > before:
            return 200, {}, {}
        content = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, content

    def status(self, *args, **headers):
        return self(*args, **headers)[0]


@pytest.fixture
def keyed():
    return Caller(api_keys=FULL, infer_keys=INFER)


def test_without_keys_everybody_may_do_everything():
    caller = Caller()
    assert caller.status("POST", "/fit_ok") == 200
    assert caller.status("GET", "/runs", x_api_key=WRONG) == 200
    assert [scope["state"]["known"] for scope in caller.reached] == [True, True]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": WRONG},
        {"x_api_key": ""},
        {"x_api_key": FULL[:-1]},
        {"x_api_key": "ä\xff"},
        {"authorization": FULL},
        {"authorization": f"Basic {FULL}"},
        {"authorization": "Basic " + base64.b64encode(f"user:{FULL}".encode()).decode()},
        {"authorization": f"Bearer {WRONG}"},
        {"authorization": "Bearer"},
        {"authorization": ""},
        {"cookie": f"x-api-key={FULL}"},
        {"x_api_key": WRONG, "authorization": f"Bearer {FULL}"},
    ],
    ids=str,
)
def test_request_without_a_known_key_is_unauthorized_whatever_it_asks_for(keyed, headers):
    for method, path in [("GET", "/runs"), ("POST", "/infer"), ("DELETE", "/datasets/clear"), ("GET", "/nowhere")]:
        status, sent, content = keyed(method, path, **headers)
        assert (status, sent["www-authenticate"]) == (401, "Bearer")
        assert set(json.loads(content)) == {"error", "trace", "code"}
        assert b"Unauthorized" in content
        assert FULL.encode() not in content
    assert keyed.reached == []


@pytest.mark.parametrize(
    "headers", [{"x_api_key": FULL}, {"authorization": f"Bearer {FULL}"}, {"authorization": f"bearer  {FULL}"}]
)
def test_a_full_key_may_do_everything(keyed, headers):
    for method, path in [("GET", "/runs"), ("POST", "/fit_ok"), ("DELETE", "/datasets/clear"), ("PUT", "/nowhere")]:
        assert keyed.status(method, path, **headers) == 200


def test_an_infer_key_may_read_and_infer_and_nothing_else(keyed):
    may = [("GET", path) for path in ("/state", "/versions", "/datasets/file", "/metrics", "/docs", "/nowhere")]
    may += [("HEAD", "/health"), ("POST", "/infer"), ("POST", "/infer_dataset"), ("OPTIONS", "/fit_ok")]
    for method, path in may:
        assert keyed.status(method, path, x_api_key=INFER) == 200
    may_not = [
        ("POST", path)
        for path in ("/fit_ok", "/calibrate_ng", "/rollback", "/datasets/ok/upload", "/infer/", "//infer", "/x")
    ]
    may_not += [("DELETE", "/datasets/file"), ("PUT", "/infer"), ("get", "/runs"), ("PATCH", "/state")]
    for method, path in may_not:
        status, sent, content = keyed(method, path, x_api_key=INFER)
        assert (status, "www-authenticate" in sent) == (403, False)
        assert json.loads(content)["error"].startswith(f"{method} {path} needs a full API key")


def test_health_and_options_need_no_key_and_say_who_is_known(keyed):
    assert keyed.status("GET", "/health") == keyed.status("HEAD", "/health", x_api_key=WRONG) == 200
    assert keyed.status("OPTIONS", "/fit_ok") == 200
    assert keyed.status("GET", "/health", x_api_key=INFER) == 200
    assert [scope["state"]["known"] for scope in keyed.reached] == [False, False, False, True]
    for method, path in [("POST", "/health"), ("GET", "/health/"), ("GET", "/healthy"), ("GET", "//health")]:
        assert keyed.status(method, path) == 401


def test_below_a_root_path_the_same_paths_are_open(keyed):
    assert keyed.status("GET", "/api/health", root_path="/api") == 200
    assert keyed.status("GET", "/api/runs", root_path="/api") == 401
    assert keyed.status("POST", "/api/infer", root_path="/api", x_api_key=INFER) == 200
    assert keyed.status("POST", "/api/fit_ok", root_path="/api", x_api_key=INFER) == 403


def test_browser_is_asked_for_a_key_at_documentation_pages_only(keyed):
    """Pages of the documentation take a key as a basic password. All other paths ask for a bearer key."""

    def basic(password):
        return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()

    for path in ("/docs", "/redoc", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
        assert keyed(path=path)[1]["www-authenticate"].startswith("Basic ")
        assert keyed.status(path=path, authorization=basic(INFER)) == 200
        for wrong in (basic(WRONG), "Basic", "Basic !", "Basic " + FULL):
            assert keyed.status(path=path, authorization=wrong) == 401
    for method, path in [("POST", "/infer"), ("GET", "/runs"), ("POST", "/docs"), ("GET", "/static-offline-docs")]:
        assert keyed.status(method, path, authorization=basic(FULL)) == 401
        assert keyed(method, path)[1]["www-authenticate"] == "Bearer"


def test_an_upload_is_refused_before_it_is_read(keyed):
    status, _, content = keyed("POST", "/fit_ok", content_length=str(2 << 30))
    assert status == 401
    assert json.loads(content)["error"]
    assert keyed.taken == 0


def test_rate_is_counted_by_key_else_by_address_and_health_is_exempt(clock):
    caller = Caller(limit(clock, 1), api_keys=FULL, infer_keys=INFER)
    statuses = [caller.status(x_api_key=FULL, client=f"10.0.0.{number}") for number in range(6)]
    assert statuses == [200] * 5 + [429], "one key at many addresses is one client"
    assert caller.status(x_api_key=INFER) == 200
    assert [caller.status(x_api_key=WRONG + str(number)) for number in range(6)] == [401] * 5 + [429]
    assert caller.status(client="10.0.0.2") == 401
    assert {caller.status("GET", "/health") for _ in range(100)} == {200}
    status, sent, content = caller("POST", "/infer", x_api_key=FULL)
    assert (status, sent["retry-after"]) == (429, "1")
    assert "RATE_LIMIT_PER_S" in json.loads(content)["error"]


def test_service_without_keys_warns_once_when_reached_from_elsewhere(keyed):
    with structlog.testing.capture_logs() as logs:
        caller = Caller()
        for address in ("127.0.0.1", "::1", "10.1.2.3", "10.1.2.3", "127.0.0.1", "10.1.2.4"):
            caller.status(server=address)
        keyed.status(server="10.1.2.3")
    warnings = [line for line in logs if line["event"] == "access.open"]
    assert [(line["log_level"], line["address"]) for line in warnings] == [("warning", "10.1.2.3")]
