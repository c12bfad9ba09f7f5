"""What the clients of `soak.cluster` note about replies."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from harness.forms import Form
from harness.images import png, solar_cells
from harness.steady_load import SteadyLoad
from soak.cluster import Result

_SCORE = 0.25
_NOT_READY = (503, {"error": "not ready", "code": "not_ready", "trace": ""})


@contextmanager
def answering(*replies: tuple[int, object]) -> Iterator[str]:
    """A service that gives these replies one after the other, and the last one again and again."""
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = left.pop(0) if len(left) > 1 else left[0]
            content = json.dumps(body).encode() if isinstance(body, dict) else str(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("reply", "failed", "wrong"),
    [
        ((200, {"score": _SCORE}), [], []),
        ((200, {"score": _SCORE + 1e-4}), [], [(200, "")]),
        (_NOT_READY, [(503, "not_ready")], []),
        ((502, "Bad Gateway"), [(502, "not in the contract's shape: Bad Gateway")], []),
        ((200, "Welcome"), [(200, "not in the contract's shape: Welcome")], []),
        ((200, {"decision": "OK"}), [(200, 'not in the contract\'s shape: {"decision": "OK"}')], []),
    ],
    ids=["right", "other score", "error", "plain text", "OK in plain text", "no score"],
)
def test_every_reply_is_compared_with_the_first(
    reply: tuple[int, object], failed: list[tuple[int, str]], wrong: list[tuple[int, str]]
) -> None:
    form = Form.of("image", [png(solar_cells(1)[0])])
    with answering(reply, (200, {"score": _SCORE})) as address, SteadyLoad(address, form, _SCORE, clients=1) as load:
        load.wait_for_judgements(3)
    assert [(asked.status, asked.code) for asked in load.failed()] == failed
    assert [(asked.status, asked.code) for asked in load.wrong()] == wrong


def test_requests_that_should_not_be_there_are_broken_promises() -> None:
    form = Form.of("image", [png(solar_cells(1)[0])])
    result = Result()
    with answering(_NOT_READY, (200, {"score": _SCORE})) as address, SteadyLoad(address, form, _SCORE, 1) as load:
        load.wait_for_judgements(1)
    result.expect_none(load.wrong(), "got another score")
    result.expect_none(load.failed(), "failed")
    assert result.broken == ["1 request failed: 503 not_ready"]
