"""Keys, rates, hosts and headers as clients meet them: real servers, and everything they wrote to their logs."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET
from urllib.parse import urlencode

import psutil
import pytest

from backend.network.weights import Weights
from harness.gui import FIT, HEAD_INFERENCE, HEALTH, Gui, Head, Reply, image_parts, multipart_body
from harness.server import ROOT, Server, free_port, gunicorn_command, serve_command, uvicorn_command
from tests.integration.conftest import SIDE, running

FULL, INFER, FILED = "full-key-of-the-line", "infer-key-of-the-line", "full-key-of-the-file"
WRONG = "nobody-knows-this-key"
MINIMAL = {"status", "device", "model", "version", "request_id", "recipe_id"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Server]:
    """A service with keys of every source and origin, traces on."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(f"# the line's\n{FILED}\n")
    settings = {"API_KEYS": FULL, "INFER_KEYS": INFER, "API_KEYS_FILE": str(folder / "keys"), "TRACE": "true"}
    settings |= {"CORS_ORIGINS": "https://gui.example", "LOG_LEVEL": "debug"}
    with running(uvicorn_command, folder, weights, **settings) as server:
        yield server


def with_key(server: Server, key: str, header: str = "X-API-Key") -> Gui:
    return Gui(server.gui.host, server.gui.port, {header: key})


def check_refusal(reply: Reply, status: int) -> None:
    assert reply.status == status, reply.content
    assert set(reply.json) == {"error", "trace", "code"}
    assert re.fullmatch(r'(  File "backend/.+", line \d+, in .+\n    .+\n)+\w+: .+\n', reply.json["trace"])
    assert str(ROOT) not in reply.content.decode()
    assert reply.headers["x-request-id"]
    assert ("www-authenticate" in reply.headers) == (status == 401)


def test_a_client_with_a_key_works_as_it_does_without_keys(keyed: Server, crops: list[bytes]) -> None:
    for number, headers in enumerate(
        [
            {"X-API-Key": FULL},
            {"Authorization": f"Bearer {FULL}"},
            {"x-api-key": FILED},
            {"authorization": f"bearer {FILED}"},
        ]
    ):
        gui = Head(keyed.gui.host, keyed.gui.port, headers)
        roi = f"Roi{number}"
        assert gui.fit("Keyed", roi, crops[:1]).read(FIT)["token_shape"] == [SIDE, SIDE]
        score = gui.infer("Keyed", roi, crops[1]).read(HEAD_INFERENCE)["score"]
        assert gui.calibrate("Keyed", roi, [score], None).status == 200
        assert gui.infer("Keyed", roi, crops[2]).read(HEAD_INFERENCE)["decision"] in ("ok", "ng")
        assert gui.upload("Keyed", roi, "ok", crops[:1]).status == 200


def test_an_infer_key_infers_and_reads_and_changes_nothing(keyed: Server, crops: list[bytes]) -> None:
    assert with_key(keyed, FULL).fit("Keyed", "Infer", crops[:1]).status == 200
    gui = with_key(keyed, INFER)
    stored = contents(keyed.models)
    assert gui.infer("Keyed", "Infer", crops[1]).status == 200
    for path in ("/state", "/manifest", "/datasets/list"):
        assert gui.get(f"{path}?role_id=Keyed&roi_id=Infer").status == 200
    for path in ("/runs", "/metrics", "/docs", "/openapi.json"):
        assert gui.get(path).status == 200
    assert gui.get("/nowhere").status == 404
    query = "?role_id=Keyed&roi_id=Infer&label=ok"
    for reply in (
        gui.fit("Keyed", "Infer", crops[:1]),
        gui.calibrate("Keyed", "Infer", [0.1], None),
        gui.multipart("/datasets/ok/upload", image_parts(crops[:1])),
        gui.chunked_json("/calibrate_dataset", "{}"),
        gui.send("DELETE", f"/datasets/clear{query}"),
        gui.send("DELETE", f"/datasets/file{query}&filename=a.png"),
        gui.send("POST", "/nowhere", b""),
    ):
        check_refusal(reply, 403)
    assert stored == contents(keyed.models)


def contents(models: Path) -> dict[Path, bytes]:
    """Every file but the statistics of production, which inferences add to, and those of other tests a moment later."""
    files = (path for path in models.rglob("*") if path.is_file() and ".drift" not in path.parts)
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "path", ["/runs", "/metrics", "/state", "/docs", "/openapi.json", "/nowhere", "/datasets/file"]
)
def test_without_a_known_key_every_path_is_unauthorized(keyed: Server, crops: list[bytes], path: str) -> None:
    for gui in (keyed.gui, with_key(keyed, WRONG), with_key(keyed, f"Bearer {WRONG}", "Authorization")):
        check_refusal(gui.get(path), 401)
        check_refusal(gui.multipart("/fit_ok", image_parts(crops[:1])), 401)
        check_refusal(gui.chunked_json("/calibrate_ng", '{"role_id":"a"}'), 401)


def test_health_without_a_key_tells_no_more_than_clients_read(keyed: Server) -> None:
    for gui in (keyed.gui, with_key(keyed, WRONG)):
        reply = Head(gui.host, gui.port, gui.headers).get("/health")
        assert reply.status == 200
        assert set(reply.json) == MINIMAL
        read = reply.read(HEALTH)
        assert (read["status"], read["recipe_id"]) == ("ok", "my layout 1")
    known = with_key(keyed, INFER).get("/health").json
    assert set(known) > MINIMAL
    assert len(known["weights_sha256"]) == 64
    assert keyed.gui.send("HEAD", "/health").status == 200
    assert keyed.gui.send("HEAD", "/health").content == b""


def test_a_head_request_without_a_key_is_refused_without_a_body(keyed: Server) -> None:
    reply = keyed.gui.send("HEAD", "/runs")
    assert (reply.status, reply.content, reply.headers["www-authenticate"]) == (401, b"", "Bearer")


def test_probes_and_preflights_need_no_key(keyed: Server) -> None:
    assert [keyed.gui.send("OPTIONS", path).status for path in ("/fit_ok", "/infer", "/nowhere")] == [204, 204, 404]
    asked = {
        "Origin": "https://gui.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,x-recipe-id",
    }
    preflight = keyed.gui.send("OPTIONS", "/infer", headers=asked)
    assert preflight.status == 200
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    refused = keyed.gui.send("POST", "/infer", b"", {"Origin": "https://gui.example"})
    check_refusal(refused, 401)
    assert refused.headers["access-control-allow-origin"] == "https://gui.example", "a page may read why"
    assert keyed.gui.send("OPTIONS", "/infer", headers={**asked, "Origin": "https://other.example"}).status == 400


@pytest.mark.parametrize("command", [uvicorn_command, gunicorn_command])
def test_an_upload_without_a_key_is_answered_at_once_and_not_read(
    tmp_path: Path, weights: Weights, crops: list[bytes], command: object
) -> None:
    with running(command, tmp_path, weights, API_KEYS=FULL) as server:
        connection = http.client.HTTPConnection(server.gui.host, server.gui.port, timeout=30)
        connection.putrequest("POST", "/fit_ok")
        connection.putheader("Content-Length", str(2 << 30))
        connection.endheaders(b"the first bytes")
        start = time.monotonic()
        response = connection.getresponse()
        content = response.read()
        assert time.monotonic() - start < 2
        assert (response.status, response.getheader("Connection")) == (401, "close")
        assert b"X-API-Key" in content
        # The client goes on sending: the rest is not taken.
        assert connection.sock is None or send_until_closed(connection.sock) < 200 << 20
        whole, headers = multipart_body(image_parts(crops[:2] * 20))
        check_refusal(server.gui.send("POST", "/fit_ok", whole, headers), 401)  # sent to its end, then read


def send_until_closed(sock: socket.socket) -> int:
    sent = 0
    try:
        while sent < 2 << 30:
            sent += sock.send(bytes(1 << 20))
    except OSError:
        return sent
    return sent


def test_no_key_is_in_the_log_a_reply_or_the_metrics_after_any_request(keyed: Server, crops: list[bytes]) -> None:
    replies = []
    malformed = [f"{FULL} {WRONG}", f"{FULL},", FULL + "\t", FULL.upper(), "é" + FULL, '"' + FULL + '"', FULL[::-1]]
    for key in [FULL, INFER, FILED, WRONG, *malformed]:
        for header in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {key}"}):
            gui = Gui(keyed.gui.host, keyed.gui.port, {name: text.encode("latin-1") for name, text in header.items()})
            replies += [gui.get(f"{path}?{urlencode({'api_key': key})}") for path in ("/health", "/runs", "/nowhere")]
            replies.append(gui.multipart("/fit_ok", image_parts([b"no image"])))
            replies.append(gui.send("POST", "/infer", b"--x", {"Content-Type": "multipart/form-data; boundary=x"}))
    with socket.create_connection((keyed.gui.host, keyed.gui.port)) as raw:  # what is no HTTP
        raw.sendall(f"GET / HTTP/1.1\r\nX-API-Key {FULL}\r\n\x00\r\n\r\n".encode())
        replies.append(Reply(400, {}, raw.recv(1000)))
    metrics = with_key(keyed, FULL).get("/metrics")
    time.sleep(0.5)  # the last lines follow the replies
    written = keyed.log_file.read_text() + "".join(f"{reply.headers}{reply.content!r}" for reply in [*replies, metrics])
    assert written.count("Unauthorized") > 10
    for key in (FULL, INFER, FILED, WRONG):
        for part in (key, key.upper(), key[::-1], key[:16]):
            assert part not in written
    assert str(keyed.models) not in written
    assert str(ROOT) not in written


def test_the_document_names_the_keys_only_where_there_are_some(keyed: Server, gui: Gui) -> None:
    document = with_key(keyed, INFER).get("/openapi.json").json
    assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {"apiKey", "http"}
    assert document["security"] == [{"X-API-Key": []}, {"Bearer": []}]
    assert {} in document["paths"]["/health"]["get"]["security"]
    without = gui.get("/openapi.json").json
    assert "securitySchemes" not in without["components"]
    assert "security" not in without


def test_the_refusals_of_the_document_are_what_the_service_says(keyed: Server) -> None:
    operations = with_key(keyed, FULL).get("/openapi.json").json["paths"]

    def said(method: str, path: str, status: int) -> list[str]:
        replies = operations[path][method]["responses"]
        examples = replies[str(status)]["content"]["application/json"]["examples"]
        return [example["value"]["error"] for example in examples.values()]

    assert keyed.gui.get("/runs").json["error"] in said("get", "/runs", 401)
    assert with_key(keyed, INFER).send("POST", "/fit_ok", b"").json["error"] in said("post", "/fit_ok", 403)
    for path, methods in operations.items():
        for method, operation in methods.items():
            may_be_refused = {"401", "429"} if path not in ("/health", "/ready") else set()
            if method not in ("get", "head") or path.startswith("/history"):
                may_be_refused |= {"403"}
            assert {"401", "403", "429"} & set(operation["responses"]) == may_be_refused, (method, path)


def test_a_client_that_sends_too_much_is_told_when_to_come_back(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    with running(uvicorn_command, tmp_path, weights, RATE_LIMIT_PER_S="1") as server:
        replies = [server.gui.get("/runs") for _ in range(8)]
        refused = [reply for reply in replies if reply.status == 429]
        assert len(refused) in (2, 3)
        for reply in refused:
            check_refusal(reply, 429)
        upload = server.gui.fit("A", "B", crops[:2])
        check_refusal(upload, 429)
        assert {server.gui.get("/health").status for _ in range(30)} == {200}
        time.sleep(int(refused[0].headers["retry-after"]) + 0.1)
        assert server.gui.get("/runs").status == 200


def test_other_hosts_than_the_allowed_ones_are_refused(tmp_path: Path, weights: Weights) -> None:
    with running(uvicorn_command, tmp_path, weights, ALLOWED_HOSTS="127.0.0.1, *.line.example") as server:
        for host, status in {
            "127.0.0.1": 200,
            "127.0.0.1:8000": 200,
            "gui.line.example": 200,
            "GUI.line.example:80": 200,
            "line.example": 400,
            "evil.example": 400,
            "line.example.evil.example": 400,
            "a b": 400,
            "": 400,
        }.items():
            reply = server.gui.send("GET", "/health", headers={"Host": host})
            assert reply.status == status, host
            if status == 400:
                assert set(reply.json) == {"error", "trace", "code"}
                assert "ALLOWED_HOSTS" in reply.json["error"]
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert reply.headers["x-request-id"]


def test_every_reply_carries_security_headers(gui: Gui, keyed: Server) -> None:
    replies = [gui.get("/health"), gui.get("/nowhere"), gui.get("/infer"), gui.send("POST", "/infer", b"")]
    replies += [gui.get("/metrics"), keyed.gui.get("/runs"), gui.send("OPTIONS", "/infer")]
    pages = [gui.get("/docs"), gui.get("/redoc"), gui.get("/static-offline-docs/swagger-ui-bundle.js")]
    for reply in [*replies, *pages]:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert {reply.headers["cache-control"] for reply in replies} == {"no-store"}
    assert not any("access-control-allow-origin" in reply.headers for reply in replies), "CORS is closed"


def test_documentation_pages_load_what_they_name_only_from_the_service(gui: Gui) -> None:
    """The pages /docs and /redoc name only files of the service; their content security policy allows nothing else."""
    for path in ("/docs", "/redoc"):
        page = gui.get(path)
        named = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())
        assert len(named) >= 2
        assert all(gui.get(address).status == 200 for address in named if address.startswith("/static-offline-docs/"))
        assert all(address.startswith("/") for address in named)
        policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert policy["script-src"] == policy["style-src"] == "'self' 'unsafe-inline'"
        assert "https:" not in page.headers["content-security-policy"]


def open_lines(server: Server) -> list[str]:
    lines = server.log_file.read_text().splitlines()
    return [line for line in lines if "access.open" in line and "warning" in line.lower()]


def bound_to_all(port: int) -> list[str]:
    return [word.replace("127.0.0.1", "0.0.0.0") for word in uvicorn_command(port)]


def gunicorn_bound_to_all(port: int) -> list[str]:
    return [word.replace("127.0.0.1", "0.0.0.0") for word in gunicorn_command(port)]


@pytest.mark.parametrize(
    ("command", "host"),
    [(serve_command, "0.0.0.0"), pytest.param(gunicorn_bound_to_all, "127.0.0.1", marks=pytest.mark.long)],
    ids=["serve", "gunicorn"],
)
def test_a_start_that_others_can_reach_without_a_key_says_so(
    tmp_path: Path, weights: Weights, command: object, host: str
) -> None:
    with running(command, tmp_path, weights, HOST=host) as server:
        assert len(open_lines(server)) == 1
        assert "API_KEYS" in open_lines(server)[0]
    (tmp_path / "keyed").mkdir()
    with running(command, tmp_path / "keyed", weights, HOST=host, API_KEYS=FULL) as server:
        assert open_lines(server) == []


def test_a_start_on_loopback_says_nothing_of_keys(server: Server) -> None:
    assert "access.open" not in server.log_file.read_text()


def test_open_service_says_so_once_at_the_first_request_from_elsewhere(tmp_path: Path, weights: Weights) -> None:
    """Under any server, a service without keys logs once that it is open, at the first request from elsewhere."""
    addresses = [each.address for of_one in psutil.net_if_addrs().values() for each in of_one if each.family == AF_INET]
    own = next(address for address in addresses if not address.startswith("127."))
    with running(bound_to_all, tmp_path, weights) as server:
        assert open_lines(server) == []
        for _ in range(3):
            assert Gui(own, server.gui.port).get("/health").status == 200
        assert len(open_lines(server)) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["backend", "serve"],
        ["uvicorn", "backend.app:app", "--port", "0"],
        ["gunicorn", "-k", "uvicorn.workers.UvicornWorker", "backend.app:app", "-b"],
    ],
    ids=["serve", "uvicorn", "gunicorn"],
)
def test_a_key_that_cannot_be_used_stops_the_start_without_showing_it(command: list[str]) -> None:
    bind = [f"127.0.0.1:{free_port()}"] if command[-1] == "-b" else []
    stopped = subprocess.run(
        [sys.executable, "-m", *command, *bind],
        cwd=ROOT,
        env={**os.environ, "PORT": "0", "API_KEYS": f"{FULL},too-short"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert stopped.returncode != 0
    assert "API_KEYS: a key is 16 to 512 characters" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not any(key in stopped.stdout + stopped.stderr for key in (FULL, "too-short"))
