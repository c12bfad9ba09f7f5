"""The log of a service as texts: events, severities and names of fields. The values of fields are not compared."""

import json
import re
from collections.abc import Iterable
from typing import Any

from harness.contract.blanks import Blanks
from harness.contract.checkout import POLL, Server

_REQUEST = "request"
# Of long work, as often as it takes seconds; and of an end that comes before the last request is quite over.
_BY_CHANCE = re.compile(r".*\.progress|draining")
_IDENTITY = re.compile(r"\d{9,}")  # of an object in the process


def texts_of_log(server: Server, blanks: Blanks) -> dict[str, str]:
    """The log: its requests, all other events once each, and lines that are no JSON.

    Requests are sorted. A reply may come before the end of a body, and its line after that of the next request.

    Args:
        server: whose log it is.
        blanks: of the run; port and process are blanked here.
    """
    entries, others = [], []
    for line in server.log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            others.append(line)
    asked = [entry for entry in entries if entry.get("request_id") != POLL["X-Request-Id"]]
    requests = [
        f"{entry['method']} {entry['endpoint']} {entry['status']}: {_described(entry)}"
        for entry in asked
        if entry["event"] == _REQUEST
    ]
    events = {
        blanks.prose(_plain(_described(entry), server))
        for entry in asked
        if entry["event"] != _REQUEST and not _BY_CHANCE.fullmatch(entry["event"])
    }
    return {
        "requests": _text(sorted(requests)),
        "events": _text(sorted(events)),
        "other lines": blanks.prose(_text(_plain(line, server) for line in others if line)),
    }


def _described(entry: dict[str, Any]) -> str:
    return f"{entry['level']} {entry['event']} {sorted(entry)}"


def _plain(text: str, server: Server) -> str:
    text = text.replace(str(server.port), "<port>").replace(str(server.pid), "<process>")
    return _IDENTITY.sub("<identity>", text)


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
