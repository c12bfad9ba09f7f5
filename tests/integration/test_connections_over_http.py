"""Connections that are held without end: ended under both servers that the manual names, and nobody else is."""

import contextlib
import http.client
import json
import shlex
import socket
import time
from collections.abc import Iterator

import pytest

from backend.network.weights import Weights
from harness.gui import image_parts, multipart_body
from harness.server import gunicorn_command, serve_command
from tests.integration.conftest import running

LIMIT_S = 1.0
QUICK = {"BODY_TIMEOUT_S": str(LIMIT_S), "INPUT_SIZE": "14"}
COMPLETE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[int]:
    with running(serve_command, tmp_path_factory.mktemp("slow"), weights, **QUICK) as server:
        yield server.gui.port


@pytest.fixture
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


def read_to_the_end(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def reply_to(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    received = b""
    while not received.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    return received


@pytest.mark.parametrize("begun", [b"GET", b"GET /health HTTP/1.1\r\nHost: local", b"\r\n"])
def test_incomplete_request_head_gets_408_in_the_shape_of_all_errors(connection, begun):
    """A request head that does not become complete within BODY_TIMEOUT_S is answered 408 as every error is."""
    connection.sendall(begun)
    head, _, body = read_to_the_end(connection).partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.1 408 Request Timeout"
    error = json.loads(body)
    assert set(error) == {"error", "trace", "code"}
    assert "1 s (BODY_TIMEOUT_S)" in error["error"]


def test_bytes_now_and_then_gain_no_time(connection):
    start = time.monotonic()
    connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
    connection.settimeout(0.2)
    while time.monotonic() - start < 60:
        try:
            received = connection.recv(65536)
            break
        except TimeoutError:
            connection.sendall(b"x")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - start >= LIMIT_S / 2, "it began with the connection, a moment earlier"


def test_gunicorn_does_the_same(tmp_path, weights):
    with (
        running(gunicorn_command, tmp_path, weights, **QUICK) as server,
        socket.create_connection(("127.0.0.1", server.gui.port), timeout=30) as connection,
    ):
        connection.sendall(b"GET /hea")
        assert read_to_the_end(connection).startswith(b"HTTP/1.1 408 ")
        assert [line["status"] for line in server.log() if line["event"] == "request.refused"] == [408]


def test_a_connection_without_a_byte_is_closed_without_one(connection):
    assert read_to_the_end(connection) == b""


@pytest.mark.parametrize("begun", [b"GET /hea", b"\r\n"])
def test_the_limit_holds_for_each_request_of_a_connection(connection, begun):
    first = reply_to(connection, COMPLETE)
    second = reply_to(connection, COMPLETE)
    connection.sendall(begun)
    third = read_to_the_end(connection)
    assert [reply.split()[1] for reply in (first, second, third)] == [b"200", b"200", b"408"]


def test_a_head_that_comes_in_time_is_served_whatever_its_pieces(connection):
    for byte in COMPLETE[:-1]:
        connection.sendall(bytes([byte]))
    assert reply_to(connection, COMPLETE[-1:]).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_is_worked_on_is_not_ended_by_its_head(connection, port):
    body = b'{"role_id": "A", "roi_id": "B"'
    head = b"POST /calibrate_ng HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(head + b"Content-Length: %d\r\n\r\n" % (len(body) + 4096))
    time.sleep(LIMIT_S / 2)
    connection.sendall(body + b" " * 2048)
    time.sleep(LIMIT_S)
    received = reply_to(connection, b" " * 2048)
    assert received.split()[1] in (b"400", b"422"), "the body had a second more for each KiB"


def test_idle_connections_leave_files_for_those_who_work(tmp_path, weights, crops):
    def limited(port):
        return ["bash", "-c", "ulimit -n 200; exec " + shlex.join(serve_command(port))]

    with running(limited, tmp_path, weights, INPUT_SIZE="14") as server, contextlib.ExitStack() as idle:
        kept = idle.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.gui.port)))
        kept.request("GET", "/health")
        kept.getresponse().read()
        others = [idle.enter_context(socket.create_connection(("127.0.0.1", server.gui.port))) for _ in range(300)]
        others[-1].settimeout(30)
        assert read_to_the_end(others[-1]).startswith(b"HTTP/1.1 503 ")
        parts = [*server.gui.roi("A", "B"), *image_parts(crops[:3])]
        kept.request("POST", "/fit_ok", *multipart_body(parts))
        assert kept.getresponse().status == 200
