"""Slow clients: hundreds of connections that send an occasional byte or nothing, or do not read their reply.

``python -m soak.slow [--connections 300]``: they occupy no thread and no place in the queue, get 408 and are closed;
/health and /infer answer other clients as before.
"""

import argparse
import itertools
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import cv2
import httpx
import numpy as np
import psutil

from harness.forms import ROI
from harness.hostile_files import corpus
from harness.measuring import p95
from harness.server import Server, serving
from harness.watch import ENVIRONMENT, Watch

_TIMEOUT_S = 10
_BYTE_EVERY_S = 2.0
_SLOWEST_S = 2.0
_MOST_MB = 700.0
_STORED = {"role_id": ROI["role_id"], "roi_id": ROI["roi_id"], "label": "ok", "filename": "large.png"}
_HEAD = b"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
_BEGINNINGS = {  # what each kind of client sends at once, and how it ends
    "body": (
        _HEAD + b"Content-Length: 100000\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n',
        "408",
    ),
    "header": (_HEAD + b"X-Slow: ", "408"),
    "nothing": (b"", "closed"),
    "reply unread": (f"GET /datasets/file?{urlencode(_STORED)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), "closed"),
}


def soak(server: Server, connections: int, timeout_s: float) -> tuple[Watch, list[tuple[str, object]]]:
    """Hold the connections until the server ends them, and measure what others see meanwhile.

    Args:
        server: whose BODY_TIMEOUT_S is `timeout_s`.
        connections: how many, a quarter of each kind.
        timeout_s: after three times of it they should have ended.
    """
    watch = Watch(server, frozenset({200}), _SLOWEST_S)
    image = corpus()["PNG"]
    process = psutil.Process(server.process.pid)
    with server.client() as client:
        client.post("/fit_ok", data=ROI, files=[("images", ("a.png", image, "image/png"))]).raise_for_status()
        large = ("images", (_STORED["filename"], _noise(), "image/png"))
        client.post("/datasets/ok/upload", data=ROI, files=[large]).raise_for_status()

        def infer() -> httpx.Response:
            return client.post("/infer", data=ROI, files=[("image", ("a.png", image, "image/png"))])

        before = _seconds(watch, client, infer, rounds=50)
        threads = process.num_threads()
        slow = [_Slow.connect(server, kind) for kind in itertools.islice(itertools.cycle(_BEGINNINGS), connections)]
        begin = time.monotonic()
        during: dict[str, list[float]] = {"/health": [], "/infer": []}
        most_threads, ended = threads, Counter[str]()
        while slow and time.monotonic() - begin < 3 * timeout_s + 2 * _BYTE_EVERY_S:
            ended += _drip(slow, {there.raddr.port for there in process.net_connections("tcp") if there.raddr})
            until = time.monotonic() + _BYTE_EVERY_S
            while time.monotonic() < until:
                for endpoint, seconds in _seconds(watch, client, infer, rounds=1).items():
                    during[endpoint] += seconds
                most_threads = max(most_threads, process.num_threads())
        lasted = time.monotonic() - begin
    watch.expect(not slow, f"{len(slow)} connections are still held after {lasted:.0f} s")
    watch.expect(
        set(ended) == {f"{kind}: {end}" for kind, (_, end) in _BEGINNINGS.items()},
        f"the slow connections ended with {dict(ended)}",
    )
    watch.expect(most_threads <= threads + 2, f"{most_threads - threads} more threads while slow clients came")
    figures: list[tuple[str, object]] = [("slow connections, by how they ended", dict(ended))]
    figures.append(("seconds until the last was ended", f"{lasted:.1f} (BODY_TIMEOUT_S={timeout_s:g})"))
    figures.append(("threads before, and most during", f"{threads}, {most_threads}"))
    for endpoint in before:
        p95s = f"{1000 * p95(before[endpoint]):.0f}, {1000 * p95(during[endpoint]):.0f}"
        figures.append((f"{endpoint}: p95 in ms before and during", p95s))
    return watch, figures


def _seconds(
    watch: Watch, client: httpx.Client, infer: Callable[[], httpx.Response], rounds: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"/health": [], "/infer": []}
    for _ in range(rounds):
        for endpoint, send in (("/health", lambda: client.get("/health")), ("/infer", infer)):
            start = time.perf_counter()
            watch.ask("beside slow clients", endpoint, send)
            seconds[endpoint].append(time.perf_counter() - start)
    return seconds


@dataclass(frozen=True)
class _Slow:
    kind: str
    connection: socket.socket

    @classmethod
    def connect(cls, server: Server, kind: str) -> "_Slow":
        address = httpx.URL(server.address)
        connection = socket.create_connection((address.host, address.port or 80), timeout=10)
        beginning, _ = _BEGINNINGS[kind]
        connection.sendall(beginning)
        if kind == "reply unread":
            connection.recv(1)  # no more
        connection.setblocking(False)
        return cls(kind, connection)

    def drip(self, held_ports: set[int]) -> str | None:
        """Send a byte, where there is a beginning; the status if it was answered, or how else it ended.

        Args:
            held_ports: clients' ports whose connections the server holds: who does not read sees no end.
        """
        if self.kind == "reply unread":
            return None if self.connection.getsockname()[1] in held_ports else "closed"
        try:
            received = self.connection.recv(65536)
        except BlockingIOError:
            if self.kind != "nothing":
                self.connection.send(b"x")
            return None
        except ConnectionError as exc:
            return type(exc).__name__
        return received.split(b" ")[1].decode() if received else "closed"


def _noise() -> bytes:
    """An image that is larger than all buffers of a connection."""
    return cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))[1].tobytes()


def _drip(slow: list[_Slow], held_ports: set[int]) -> Counter[str]:
    """Send a byte on each connection; those that ended are closed and taken out. How they ended."""
    ended = Counter[str]()
    for client in slow.copy():
        end = client.drip(held_ports)
        if end is not None:
            ended[f"{client.kind}: {end}"] += 1
            client.connection.close()
            slow.remove(client)
    return ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m soak.slow", description=__doc__)
    parser.add_argument("--connections", type=int, default=300)
    options = parser.parse_args(arguments)
    with serving(**ENVIRONMENT, BODY_TIMEOUT_S=str(_TIMEOUT_S)) as server:
        watch, figures = soak(server, options.connections, _TIMEOUT_S)
        return watch.finish(f"{options.connections} slow clients", _MOST_MB, figures)


if __name__ == "__main__":
    sys.exit(main())
