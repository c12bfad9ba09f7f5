"""uvicorn's protocol with our limits, under both event loops: real sockets, and a tiny application."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from backend.api import connections
from backend.api.connections import bounded

LIMIT_S = 0.5
HEAD = b"POST / HTTP/1.1\r\nHost: service\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = 2 << 20


async def echo(scope, receive, send):
    """Replies with the path, the body and what it was asked for; or with as many bytes as the query says."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    n_bytes = int(scope["query_string"] or 0)
    headers = sorted(name.decode() for name, _ in scope["headers"])
    said = json.dumps({"path": scope["path"], "body": body.decode("latin-1"), "headers": headers}).encode()
    content = bytes(n_bytes) or said
    length = str(len(content)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": content})


class Running:
    def __init__(self, loop, timeout_s):
        self.protocol = bounded(timeout_s)
        config = uvicorn.Config(echo, port=0, loop=loop, http=self.protocol, lifespan="off", log_config=None)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_for(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    @property
    def n_connections(self):
        return len(self.server.server_state.connections)

    def connect(self, receive_buffer=None):
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        return contextlib.closing(connection)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(timeout=20)
        return not self.thread.is_alive()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def running(request) -> Iterator[Running]:
    running = Running(request.param, LIMIT_S)
    yield running
    assert running.stop()


@pytest.fixture
def connection(running):
    with running.connect() as connection:
        yield connection


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_to_the_end(connection):
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def read_reply(connection):
    """Status, headers and content of one reply."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (piece := connection.recv(1))
        assert piece, received
    head, _, content = received.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(content) < int(headers["content-length"]):
        content += (piece := connection.recv(int(headers["content-length"]) - len(content)))
        assert piece, content
    return int(line.split()[1]), headers, content


def check_refused(connection, status, words):
    got, headers, content = read_reply(connection)
    error = json.loads(content)
    assert (got, headers["connection"], set(error)) == (status, "close", {"error", "trace", "code"})
    assert words in error["error"]
    assert error["code"] == {400: "malformed_request", 408: "too_slow", 431: "too_large", 503: "busy"}[status]
    assert len(headers["x-request-id"]) == 36
    assert headers["x-content-type-options"] == "nosniff"
    assert read_to_the_end(connection) == b"", "one reply, and no other"
    return headers


def send_without_end(connection, piece):
    """Send until the server has answered."""
    sent = 0
    connection.setblocking(False)
    while True:
        with contextlib.suppress(BlockingIOError):
            sent += connection.send(piece)
        with contextlib.suppress(BlockingIOError):
            connection.recv(1, socket.MSG_PEEK)
            break
        assert sent < 1 << 30
    connection.settimeout(20)
    return sent


# --- heads and what follows a body


@pytest.mark.parametrize(
    ("begun", "piece"),
    [
        (HEAD, b"A: b\r\n" * 10_000),
        (HEAD + b"A: ", b"x" * 60_000),
        (HEAD, b"x" * 60_000),
        (b"GET /", b"x" * 60_000),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n" * 10_000),
        (CHUNKED + b"1\r\nx\r\n0\r\nA: ", b"x" * 60_000),
        (CHUNKED + b"1;", b"x" * 60_000),
    ],
    ids=["headers", "value", "name", "path", "trailers", "trailer", "chunk extension"],
)
def test_what_is_no_body_ends_at_64_kib(connection, begun, piece):
    connection.sendall(begun)
    send_without_end(connection, piece)
    check_refused(connection, 431, "65536 bytes")


@pytest.mark.parametrize(("n_bytes", "status"), [(65_536, 200), (65_537, 431), (200_000, 431)])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_the_limit_is_the_same_however_a_head_is_cut(connection, n_bytes, status, step):
    request = b"GET / HTTP/1.1\r\nHost: service\r\nA: "
    request += b"x" * (n_bytes - len(request) - 4) + b"\r\n\r\n"
    for start in range(0, n_bytes, step):
        connection.sendall(request[start : start + step])
    assert read_reply(connection)[0] == status


def test_bodies_have_no_such_limit(connection):
    body = b"x" * 1_000_000
    connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + body)
    connection.sendall(CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\nA: b\r\n\r\n")
    assert [len(json.loads(read_reply(connection)[2])["body"]) for _ in range(2)] == [1_000_000, 100_000]


def test_many_requests_on_a_connection_are_many_heads(connection):
    request = b"GET / HTTP/1.1\r\nHost: service\r\nA: " + b"x" * 20_000 + b"\r\n\r\n"
    connection.sendall(request * 10)
    assert [read_reply(connection)[0] for _ in range(10)] == [200] * 10


# --- what is no HTTP


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "HTTP/1.1"),
        (b"GET / HTTP/9.9\r\n\r\n", "version"),
        (HEAD + b"Content-Length: -1\r\n\r\n", "Content-Length"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: service\r\n\r\n", "path"),
        (b"CONNECT service:80 HTTP/1.1\r\nHost: service\r\n\r\n", "not a path"),
        (b"CONNECT / HTTP/1.1\r\nHost: service\r\n\r\n", "not a path"),
        (b"CONNECT http://service:80/x HTTP/1.1\r\nHost: service\r\n\r\n", "not a path"),
        (CHUNKED + b"no number\r\n", "HTTP/1.1"),
    ],
    ids=["TLS", "version", "length", "path", "connect", "connect to a path", "connect to an address", "chunk"],
)
def test_what_cannot_be_read_gets_400_in_the_shape_of_all_errors(connection, request_, words):
    connection.sendall(request_)
    check_refused(connection, 400, words)


def test_what_cannot_be_read_waits_for_the_replies_before_it(connection):
    connection.sendall(HEAD + b"Content-Length: 1\r\n\r\nx" + b"\x16\x03\x01")
    assert read_reply(connection)[::2][0] == 200
    assert read_to_the_end(connection) == b""


def test_a_body_that_cannot_be_read_is_refused_after_the_replies_before_it(connection):
    connection.sendall((HEAD + b"Content-Length: 1\r\n\r\nx") * 2 + CHUNKED + b"no number\r\n")
    assert [read_reply(connection)[0] for _ in range(2)] == [200, 200]
    check_refused(connection, 400, "HTTP/1.1")


def test_few_requests_wait_for_the_replies_before_theirs(connection):
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 5000)
    replies = read_to_the_end(connection)
    assert replies.count(b"HTTP/1.1 200 ") == replies.count(b"HTTP/1.1 ") == 17, "the first, and those that wait"


# --- upgrades


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("cut", ["whole", "after the head", "everywhere"])
def test_a_request_that_asks_for_another_protocol_is_served_as_it_is(connection, protocol, framing, cut):
    head = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    if framing == "length":
        head, body = head + b"Content-Length: 5\r\n\r\n", b"hello"
    else:
        head, body = head + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"
    for request in (head + body, HEAD + b"Content-Length: 3\r\n\r\nend"):
        for piece in {
            "whole": [request],
            "after the head": [request[: len(head)], request[len(head) :]],
            "everywhere": [bytes([byte]) for byte in request],
        }[cut]:
            connection.sendall(piece)
    first, second = (json.loads(read_reply(connection)[2]) for _ in range(2))
    assert (first["body"], second["body"]) == ("hello", "end")
    assert "upgrade" not in first["headers"]
    assert "http2-settings" in first["headers"]


# --- replies that are not read


def unread(running, n_bytes=LARGE):
    connection = running.connect(receive_buffer=1 << 16)
    with connection as open_connection:
        open_connection.sendall(b"GET /?%d HTTP/1.1\r\nHost: service\r\n\r\n" % n_bytes)
        yield open_connection


@pytest.mark.slow
def test_a_reply_that_is_not_read_ends_its_connection(running):
    with contextlib.contextmanager(unread)(running) as connection:
        assert connection.recv(1)
        wait_for(lambda: running.n_connections == 0)
        assert len(read_to_the_end(connection)) < LARGE


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_reply_that_is_read_slowly_arrives(loop):
    # The system tells of what was read in lumps of up to 200 kB: on a busy machine, too, one has to come in time.
    running = Running(loop, 4 * LIMIT_S)
    start, arrived = time.monotonic(), 0
    with contextlib.contextmanager(unread)(running, 3 * LARGE) as connection:
        while arrived < 3 * LARGE and (piece := connection.recv(1 << 14)):
            arrived += len(piece)
            time.sleep(0.01)
    assert running.stop()
    assert arrived > 3 * LARGE
    assert time.monotonic() - start > 4 * LIMIT_S


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_that_stops_does_not_wait_long_for_readers_however_steady(loop):
    running, arrived = Running(loop, LIMIT_S), 0
    with contextlib.contextmanager(unread)(running) as connection:
        connection.recv(1)
        running.server.should_exit = True
        while piece := connection.recv(1 << 14):
            arrived += len(piece)
            time.sleep(0.01)
    assert running.stop()
    assert arrived < LARGE


# --- connections


def test_a_connection_too_many_gets_503_and_the_others_are_served(running, monkeypatch):
    wait_for(lambda: running.n_connections == 0)
    monkeypatch.setattr(running.protocol, "timeout_s", 20)
    monkeypatch.setattr(running.protocol, "max_connections", 2)
    with running.connect() as first, running.connect():
        wait_for(lambda: running.n_connections == 2)
        with running.connect() as third:
            assert int(check_refused(third, 503, "connections")["retry-after"]) > 0
        first.sendall(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")
        assert read_reply(first)[0] == 200
    wait_for(lambda: running.n_connections == 0)
    with running.connect() as again:
        again.sendall(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")
        assert read_reply(again)[0] == 200


def test_connections_are_at_most_half_of_the_files_that_may_be_open(monkeypatch):
    monkeypatch.setattr(connections, "raise_open_files", lambda: 200)
    assert bounded(1).max_connections == 100
    monkeypatch.setattr(connections, "raise_open_files", lambda: 1 << 62)
    assert bounded(1).max_connections == 1000
