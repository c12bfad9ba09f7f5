"""Clients that record every request and reply, and the text of an exchange."""

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.contract.blanks import Blanks, digest, is_uuid, layout_of, parse, pretty, sized
from harness.gui import Gui, Head, Part, Reply

MISREAD_AS_SUCCESS = ("already trained", "already exists", "ya entrenad", "memoria existente")
NOT_FITTED = "Memoria no encontrada"
_LEFT_OUT = frozenset({"date", "server"})
_LONGEST_TARGET = 200
_LONGEST_ID = 100


@dataclass(frozen=True)
class Exchange:
    """A request and what came back."""

    method: str
    target: str
    reply: Reply


class _Recording(Gui):
    """Keeps every exchange."""

    exchanges: list[Exchange]

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send a request."""
        reply = super().send(method, path, body, headers)
        self.exchanges.append(Exchange(method, path, reply))
        return reply


class _RecordingHead(Head, _Recording):
    """The newest generation, recorded."""


@dataclass
class Client:
    """What a step has at hand.

    Attributes:
        host, port: of the service.
        notes: what later steps need of a reply.
        exchanges: of the step.
        request_id: of its requests, where the client's generation makes none.
    """

    host: str
    port: int
    notes: dict[str, Any] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    request_id: str = ""

    def gui(self, **headers: str) -> Gui:
        """A client without recipes; underscores in the names of headers stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        gui = _Recording(self.host, self.port, {"X-Request-Id": self.request_id, **named})
        gui.exchanges = self.exchanges
        return gui

    def head(self, layout: str = "My Layout 1", **headers: str) -> Head:
        """A client of the newest generation, which names its layout with every request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        head = _RecordingHead(self.host, self.port, named, layout)
        head.exchanges = self.exchanges
        return head

    def json(self, path: str, body: object, **headers: str) -> Reply:
        """Send JSON."""
        return self.gui(**headers).send("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def raw(self, request: bytes) -> None:
        """Send bytes that are no request, on a connection of their own, and read until it is closed."""
        with socket.create_connection((self.host, self.port), timeout=60) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, content = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = first.split(" ")[1] if " " in first else "0"
        self.exchanges.append(Exchange("raw", first, Reply(int(status), headers, content)))


Step = Callable[[Client], object]
"""Sends its requests, mostly one."""


@dataclass
class Collected:
    """What a run of steps showed.

    Attributes:
        texts: by the name of the step.
        n_requests: how many were sent.
        broken: promises that the replies did not keep.
    """

    texts: dict[str, str] = field(default_factory=dict)
    n_requests: int = 0
    broken: list[str] = field(default_factory=list)


def collect(client: Client, steps: Mapping[str, Step], blanks: Blanks) -> Collected:
    """Take the steps, one after the other, and hold their replies to what was promised.

    Those whose name begins with "not fitted" are about a ROI that never was.
    """
    collected = Collected()
    for number, (name, step) in enumerate(steps.items(), start=1):
        client.exchanges, client.request_id = [], f"{number}-{slug(name)}"[:_LONGEST_ID]
        failure = ""
        try:
            step(client)
        except (OSError, AssertionError, LookupError, ValueError) as exc:
            # A service that does not reply as it should is a difference, and no reason to stop.
            failure = f"<the step failed: {type(exc).__name__}>\n"
        shown = [text_of(exchange, blanks) for exchange in client.exchanges]
        collected.texts[name] = "\n".join([*shown, *([failure] if failure else [])])
        collected.n_requests += len(client.exchanges)
        for exchange in client.exchanges:
            found = broken_promises(exchange, not_fitted=name.startswith("not fitted"))
            collected.broken += [f"{name}: {what}" for what in found]
    return collected


def broken_promises(exchange: Exchange, *, not_fitted: bool) -> list[str]:
    """What clients in the field would misread in a reply, before anything of it is blanked.

    Args:
        exchange: the request and its reply.
        not_fitted: whether the reply is to say that the ROI was never fitted.
    """
    text = exchange.reply.content.decode(errors="replace").lower()
    broken = []
    if exchange.target.split("?")[0] == "/fit_ok" and exchange.reply.status >= 400:
        broken = [f"an error of /fit_ok says {phrase!r}" for phrase in MISREAD_AS_SUCCESS if phrase in text]
    if not_fitted and NOT_FITTED.lower() not in text:
        broken.append(f"the reply does not say {NOT_FITTED!r}")
    return broken


def text_of(exchange: Exchange, blanks: Blanks) -> str:
    """An exchange as a text: the request's line, status, headers, body."""
    reply = exchange.reply
    request_id = reply.headers.get("x-request-id", "")
    made = is_uuid(request_id)

    def without_id(text: str) -> str:
        return text.replace(request_id, "<made id>") if made else text

    target = exchange.target
    if len(target) > _LONGEST_TARGET:
        target = f"{target[:_LONGEST_TARGET]}… sha256 {digest(target.encode())}"
    headers = {name: value for name, value in reply.headers.items() if name not in _LEFT_OUT}
    if "content-length" in headers:
        headers["content-length"] = "<length>"
    lines = [f"{exchange.method} {blanks.text(target)}", str(reply.status)]
    lines += sorted(f"{name}: {blanks.text(without_id(value))}" for name, value in headers.items())
    body = _body_text(reply.content, headers.get("content-type", ""), blanks, without_id)
    return "\n".join([*lines, "", *([body] if body else [])]) + "\n"


def _body_text(content: bytes, content_type: str, blanks: Blanks, without_id: Callable[[str], str]) -> str:
    if not content:
        return ""
    if content_type.startswith("application/json"):
        try:
            text = without_id(content.decode())
            value = parse(text)
            # The order of the paths of an OpenAPI document is that of the routers, and tells clients nothing.
            is_document = isinstance(value, dict) and "openapi" in value
            layout = "" if is_document else f"\nwritten as {layout_of(text)}"
            return f"{pretty(blanks.json(value))}{layout}"
        except ValueError:
            return f"<no JSON>\n{content.decode(errors='replace')}"
    if content_type.startswith("text/plain; version="):
        return metrics_text(content.decode())
    if content_type.startswith("text/html"):
        return blanks.prose(content.decode())
    return f"<{sized(content)}>"


# Times, memory, and how often the health was asked until the service was ready.
_MEASURED = re.compile(r'(process|python_gc)_.*|\w+_seconds_(bucket|sum).*|\w+_created.*|\w+\{endpoint="/health".*')


def metrics_text(text: str) -> str:
    r"""Metrics without what is measured.

    >>> print(metrics_text('image_score_count 3.0\nstage_seconds_sum{stage="search"} 0.25'))
    image_score_count 3.0
    stage_seconds_sum{stage="search"} <measured>
    """
    lines = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        lines.append(f"{name} <measured>" if _MEASURED.fullmatch(name) else f"{name} {value}")
    return "\n".join(lines)


def slug(name: str) -> str:
    """A name of which an id may be made.

    >>> slug("not fitted: seed's /infer")
    'not-fitted-seed-s-infer'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def texts_of(**texts: str) -> list[Part]:
    """Text parts of a form."""
    return [Part(name, text.encode()) for name, text in texts.items()]
