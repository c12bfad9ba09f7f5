"""Requests that no schema generates: bodies that are too large, too deep, too many, too slow, or oddly encoded."""

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from harness.server import Server
from harness.watch import Watch

_JSON = {"Content-Type": "application/json"}
_BOUNDARY = "b0undary"
_FORM = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
_MIB = 1 << 20


@dataclass(frozen=True)
class Body:
    """A request.

    Attributes:
        path: where it goes.
        statuses: what may come back.
        pieces: makes its body; sent in chunks, without a length.
        headers: its headers.
    """

    path: str
    statuses: frozenset[int]
    pieces: "Pieces"
    headers: dict[str, str]


@dataclass(frozen=True)
class Pieces:
    """A body that is made while it is sent: `head`, `times` × `piece`, `tail`."""

    head: bytes = b""
    piece: bytes = b""
    times: int = 0
    tail: bytes = b""

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        for _ in range(self.times):
            yield self.piece
        yield self.tail


_SCORES = b'{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":['


def _scores(scores: bytes = b"0.1", times: int = 0, piece: bytes = b"") -> Pieces:
    return Pieces(_SCORES, piece, times, scores + b"]}")


def _calibration(statuses: set[int], pieces: Pieces) -> Body:
    return Body("/calibrate_ng", frozenset(statuses), pieces, _JSON)


def _part(name: str, content: bytes, rest: str = "") -> bytes:
    return f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode() + content + b"\r\n"


_IDS = _part("role_id", b"a") + _part("roi_id", b"b") + _part("mm_per_px", b"1")
_END = f"--{_BOUNDARY}--\r\n".encode()
_FILE = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode()


def _form(path: str, statuses: set[int], pieces: Pieces, parameters: str = "") -> Body:
    return Body(path, frozenset(statuses), pieces, {"Content-Type": _FORM["Content-Type"] + parameters})


BODIES: dict[str, Body] = {
    "NaN": _calibration({422}, _scores(b"NaN")),
    "Infinity": _calibration({422}, _scores(b"-Infinity")),
    "1e308": _calibration({422}, _scores(b"1e308")),
    "1e999": _calibration({422}, _scores(b"1e999")),
    "an integer of 5000 digits": _calibration({400, 422}, _scores(b"1" * 5000)),
    "truth for a number": _calibration({422}, _scores(b"true")),
    "a text for a number": _calibration({422}, _scores(b'"0.5"')),
    "half a character": _calibration({422}, _scores(b'0.1],"model_key":"\\ud800","x":[')),
    "100,000 lists in one another": _calibration({400}, _scores(b"[" * 100_000 + b"]" * 100_000)),
    "100,000 objects in one another": _calibration({400}, _scores(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    "a million nulls": _calibration({422}, _scores(b"null", 1000, b"null," * 1000)),
    "a million numbers": _calibration({200}, _scores(b"0.5", 9_999, b"0.123456789," * 100)),
    "10 million numbers": _calibration({413, 422}, _scores(b"0.5", 10_000, b"0.123456789," * 1000)),
    "20 million objects that nobody reads": _calibration(
        {413}, Pieces(_SCORES + b'0.1],"x":[', b"{}," * 100_000, 200, b"{}]}")
    ),
    "20 million lists in members that nobody reads": _calibration(
        {413}, Pieces(_SCORES + b"0.1]", b',"x":[]' * 100_000, 200, b"}")
    ),
    "2 MB of JSON for two ids": Body("/rollback", frozenset({413}), Pieces(b'{"x":"', bytes(_MIB), 2, b'"}'), _JSON),
    "300 MB of JSON": _calibration({413}, _scores(b"0.5", 300, b"0.123456789," * 87_381)),
    "a form where JSON belongs": Body("/calibrate_ng", frozenset({422}), Pieces(_IDS + _FILE, bytes(_MIB), 100), _FORM),
    "a body where none belongs": Body("/health", frozenset({200, 405}), Pieces(b"x", bytes(_MIB), 4), {}),
    "a body for an unknown path": Body("/nowhere", frozenset({404}), Pieces(b"x", bytes(_MIB), 300), {}),
    "a file of 300 MB": _form("/infer", {413}, Pieces(_IDS + _FILE, bytes(_MIB), 300, b"\r\n" + _END)),
    "a file of 300 MB in a field that nobody reads": _form(
        "/infer", {413}, Pieces(_IDS + _FILE.replace(b'"image"', b'"other"'), bytes(_MIB), 300, b"\r\n" + _END)
    ),
    "a text of 1 MB": _form("/infer", {400}, Pieces(_IDS + _part("shape", b"x" * _MIB), tail=_END)),
    "a text of 1 MB as a file": _form(
        "/infer", {413}, Pieces(_IDS + _part("shape", b"x" * _MIB, '; filename="a"'), tail=_END)
    ),
    "a kind of shape of 200 KB": _form(
        "/infer",
        {422},
        Pieces(_IDS + _FILE + b"x\r\n" + _part("shape", b'{"kind":"%b"}' % (b"k" * 200_000)), tail=_END),
    ),
    "2000 texts": _form("/infer", {400}, Pieces(_IDS, _part("x", b"y"), 2000, _END)),
    "2000 files": _form("/infer", {400}, Pieces(_IDS, _part("image", b"y", '; filename="a.png"'), 2000, _END)),
    "5000 files for a fit": _form("/fit_ok", {400}, Pieces(_IDS, _part("images", b"y", '; filename="a"'), 5000, _END)),
    "1000 texts of 256 KB": _form(
        "/datasets/ok/upload", {413}, Pieces(_IDS, _part("metas", b"[" * 250_000), 1000, _END)
    ),
    "metadata in deep lists": _form(
        "/datasets/ok/upload", {400, 422}, Pieces(_IDS + _part("metas", b"[" * 60_000 + b"]" * 60_000), tail=_END)
    ),
    "a header of 100 KB in a part": _form("/infer", {400}, Pieces(_part("a" * 100_000, b"x"), tail=_END)),
    "a part that never began": _form("/infer", {400}, Pieces(b"", bytes(_MIB), 50)),
    "role and roi of 10,000 characters": _form(
        "/infer", {422}, Pieces(_part("role_id", b"x" * 10_000) + _part("roi_id", b"/" * 10_000), tail=_END)
    ),
    "a name in half a character": _form(
        "/datasets/ok/upload", {415}, Pieces(_IDS + _part("images", b"x", '; filename="=?utf-7?q?+2AA-?="'), tail=_END)
    ),
    "a name in a charset that is none": _form(
        "/datasets/ok/upload", {415}, Pieces(_IDS + _part("images", b"x", '; filename="=?é?q?a?="'), tail=_END)
    ),
    **{
        f"a form in {charset}": _form("/infer", {400}, Pieces(_IDS, tail=_END), f"; charset={charset}")
        for charset in ("undefined", "idna", "punycode", "hex", "utf-7", "unicode_escape")
    },
    "a boundary of 10,000 characters": Body(
        "/infer", frozenset({400}), Pieces(_IDS), {"Content-Type": f"multipart/form-data; boundary={'b' * 10_000}"}
    ),
    "a form in a line": Body(
        "/infer",
        frozenset({400}),
        Pieces(b"role_id=", b"x" * _MIB, 60),
        {"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "a recipe of 30,000 characters": Body("/health", frozenset({200, 405}), Pieces(), {"X-Recipe-Id": "R" * 30_000}),
    "a header of 30 MB": Body("/health", frozenset({431}), Pieces(), {"X-Recipe-Id": "R" * 30_000_000}),
    "300,000 headers": Body("/health", frozenset({431}), Pieces(), {f"X-{n}": "" for n in range(300_000)}),
    "a request for another protocol": Body(
        "/calibrate_ng", frozenset({200}), _scores(), {**_JSON, "Connection": "close, Upgrade", "Upgrade": "h2c"}
    ),
    "a model of a recipe of 30,000 characters": Body(
        "/calibrate_ng", frozenset({422, 431}), _scores(), {**_JSON, "X-Recipe-Id": "R" * 30_000}
    ),
}


def send_bodies(server: Server, watch: Watch) -> Watch:
    """Send every one of `BODIES`, each on a connection of its own."""
    for what, body in BODIES.items():
        status, content, seconds = exchange(server, body.path, body.headers, body.pieces)
        watch.allowed = body.statuses
        watch.judge(what, body.path, status, seconds, content)
    return watch


def exchange(server: Server, path: str, headers: dict[str, str], pieces: Iterable[bytes]) -> tuple[str, bytes, float]:
    """Send a body in chunks until the reply is there; status, content and the seconds it took.

    Libraries go on sending until the end, and would not notice that a reply came before it.
    """
    address = httpx.URL(server.address)
    lines = {"Host": "localhost", "Transfer-Encoding": "chunked", "Connection": "close", **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    start = time.perf_counter()
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        connection.sendall(head.encode())
        received = b""
        try:
            for piece in pieces:
                if piece:
                    connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                if received := _arrived(connection):
                    break
            else:
                connection.sendall(b"0\r\n\r\n")
        except ConnectionError:  # it closed the connection; its reply may still be there to read
            received += _arrived(connection)
        try:
            while not _is_complete(received) and (more := connection.recv(65536)):
                received += more
        except ConnectionError as exc:
            if not received:
                return f"no reply ({type(exc).__name__})", b"", time.perf_counter() - start
    seconds = time.perf_counter() - start
    status, _, content = received.partition(b"\r\n\r\n")
    return (status.split(b" ")[1].decode() if b" " in status else "no reply"), content, seconds


def _arrived(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    try:
        return connection.recv(65536)
    except BlockingIOError:
        return b""
    finally:
        connection.settimeout(60)


def _is_complete(received: bytes) -> bool:
    head, _, content = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(content) >= int(lengths[0])
