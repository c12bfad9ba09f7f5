"""What Ray's proxy says by itself has the shape of every error; what the service says passes as it is."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from backend.cluster.proxy_errors import JsonErrors, middlewares


def reply_of(app, path="/infer", method="GET"):
    """Status, headers as a list, and body of what the middleware makes of an application's reply."""
    sent = []

    async def receive():
        await asyncio.Event().wait()  # the client stays

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    asyncio.run(JsonErrors(app)(scope, receive, send))
    start, *bodies = sent
    headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return start["status"], headers, b"".join(message["body"] for message in bodies)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "not deployed on this cluster yet"),
        (503, "no replica accepts the request"),
        (500, "ended before it replied"),
        (408, "ended before it replied"),
    ],
)
def test_plain_errors_become_503_in_the_shape_of_every_error(status, said):
    headers = {"x-request-id": "part-7"}
    got, named, body = reply_of(PlainTextResponse("Traceback: /srv/secret", status, headers))
    reply = json.loads(body)
    assert (got, set(reply), reply["code"]) == (503, {"error", "trace", "code"}, "not_ready")
    assert said in reply["error"]
    assert reply["trace"] == ""
    assert dict(named) == {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "retry-after": "5",
        "x-request-id": "part-7",
    }


def test_plain_error_in_pieces_and_one_without_an_id_are_replaced_whole():
    async def pieces():
        yield b"one"
        yield b"two"

    status, headers, body = reply_of(StreamingResponse(pieces(), 500, media_type="text/plain"))
    assert (status, "x-request-id" in dict(headers)) == (503, False)
    assert json.loads(body)["code"] == "not_ready"
    assert reply_of(PlainTextResponse("no", 500), method="HEAD")[2] == b""


def test_proxy_that_fails_answers_in_the_same_shape_unless_it_has_begun():
    async def fails(_scope, _receive, _send):
        raise KeyError("the replica")

    async def fails_late(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("the replica")

    async def says_nothing(_scope, _receive, _send):
        return

    for proxy in (fails, says_nothing):
        status, headers, body = reply_of(proxy)
        assert (status, dict(headers)["retry-after"], json.loads(body)["code"]) == (503, "5", "not_ready")
    with pytest.raises(KeyError):
        reply_of(fails_late)


@pytest.mark.parametrize("status", [200, 400, 503])
def test_replies_of_the_service_pass_with_one_request_id(status):
    service = JSONResponse({"error": "busy"}, status, {"retry-after": "1", "x-request-id": "part-7"})
    service.raw_headers.append((b"x-request-id", b"part-7"))
    got, headers, body = reply_of(service)
    assert (got, json.loads(body)) == (status, {"error": "busy"})
    assert [value for name, value in headers if name == "x-request-id"] == ["part-7"]
    assert dict(headers)["retry-after"] == "1"


def test_text_that_is_no_error_and_answers_of_the_proxy_pass():
    assert reply_of(PlainTextResponse("requests_total 3"))[2] == b"requests_total 3"
    assert reply_of(PlainTextResponse("draining", 503), path="/-/healthz")[::2] == (503, b"draining")


def test_the_proxy_is_given_the_middleware():
    assert [item.cls for item in middlewares()] == [JsonErrors]
