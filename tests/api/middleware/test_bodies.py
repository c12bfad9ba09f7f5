"""What happens to the body of a request that is answered without it."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse

from backend.api.middleware import bodies
from backend.api.middleware.bodies import UnreadBody
from backend.app import create_app
from backend.common.config import Settings

PIECE = {"type": "http.request", "body": bytes(1 << 20), "more_body": True}
END = {"type": "http.request", "body": b"{}", "more_body": False}


async def refuse(scope, receive, send):
    await JSONResponse({}, 403)(scope, receive, send)


async def read_and_refuse(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await refuse(scope, receive, send)


def exchange(app, messages, path="/", method="POST", **headers):
    """Status, headers and content of the reply, and how many messages were taken; the last one repeats."""
    sent, taken = [], 0
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def receive():
        nonlocal taken
        taken += 1
        await asyncio.sleep(0)
        if len(messages) >= taken:
            return messages[taken - 1]
        return messages[-1] if messages else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "root_path": ""}
    asyncio.run(app(scope | {"server": ("127.0.0.1", 80), "client": ("10.0.0.1", 1)}, receive, send))
    content = b"".join(message.get("body", b"") for message in sent)
    assert not sent[-1].get("more_body", False)
    got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], got, content, taken


def test_little_of_an_endless_body_is_read_and_the_connection_is_closed():
    """The request is answered before its body was read."""
    status, headers, content, taken = exchange(UnreadBody(refuse), [PIECE], content_length=str(2 << 30))
    assert (status, headers["connection"], content) == (403, "close", b"{}")
    assert taken == 64


def test_a_body_that_ends_is_waited_for():
    messages = [PIECE, PIECE, END]
    assert exchange(UnreadBody(refuse), messages, transfer_encoding="chunked")[3] == 3


def test_a_client_that_stops_sending_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(bodies, "LINGER_S", 0.01)
    assert exchange(UnreadBody(refuse), [], content_length="5")[0] == 403


@pytest.mark.parametrize("headers", [{}, {"content_length": "0"}])
def test_without_a_body_the_connection_stays_open(headers):
    _, got, _, taken = exchange(UnreadBody(refuse), [END], **headers)
    assert ("connection" in got, taken) == (False, 0)


def test_a_body_that_was_read_leaves_the_connection_open():
    _, got, _, taken = exchange(UnreadBody(read_and_refuse), [PIECE, END], content_length="5")
    assert ("connection" in got, taken) == (False, 2)


@pytest.mark.parametrize(
    ("settings", "path", "headers", "status"),
    [
        ({"allowed_hosts": "inspection.example"}, "/infer", {"host": "other.example"}, 400),
        ({"api_keys": "full-key-of-the-line"}, "/infer", {}, 401),
        ({}, "/nowhere", {}, 404),
        ({"max_json_mb": 1}, "/calibrate_ng", {"content_type": "application/json"}, 413),
        ({}, "/calibrate_ng", {"content_type": "multipart/form-data; boundary=b"}, 422),
        ({}, "/infer", {"content_type": "application/json"}, 422),
        ({}, "/infer", {"content_type": "multipart/form-data; boundary=b", "content_encoding": "gzip"}, 415),
    ],
)
def test_every_refusal_closes_the_connection_of_a_body_that_nobody_reads(tmp_path, settings, path, headers, status):
    app = create_app(Settings(models_dir=tmp_path, **settings))
    app.state.lifecycle.service = object()
    got, sent, content, _ = exchange(app, [PIECE], path, content_length=str(2 << 30), **headers)
    assert (got, sent["connection"]) == (status, "close")
    assert set(json.loads(content)) == {"error", "trace", "code"}


def test_so_does_that_of_a_preflight(tmp_path):
    app = create_app(Settings(models_dir=tmp_path, cors_origins="https://gui.example"))
    asked = {"origin": "https://other.example", "access_control_request_method": "POST", "transfer_encoding": "chunked"}
    got, sent, _, _ = exchange(app, [PIECE], "/infer", "OPTIONS", **asked)
    assert (got, sent["connection"]) == (400, "close")


def test_so_does_a_service_that_takes_no_work(tmp_path):
    app = create_app(Settings(models_dir=tmp_path))
    app.state.lifecycle.draining = True
    got, sent, _, _ = exchange(app, [PIECE], "/infer", content_length=str(2 << 30))
    assert (got, sent["connection"]) == (503, "close")
    assert int(sent["retry-after"]) > 0
