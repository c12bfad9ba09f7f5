"""What a start says: why it cannot listen, and what to try next."""

import errno
import socket

import pytest

from backend.commands import serve


def test_a_port_in_use_is_told_with_what_to_do():
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            second.bind(("127.0.0.1", port))
    told = serve.cannot_listen("127.0.0.1", port, caught.value)
    assert told.startswith(f"cannot listen on HOST=127.0.0.1 PORT={port}: another program uses this port")
    assert "set PORT" in told


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (OSError(errno.EADDRNOTAVAIL, "x"), "this machine does not have this address; set HOST"),
        (OSError(errno.EACCES, "x"), "this user may not use this port; set PORT"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
    ],
)
def test_other_reasons_not_to_listen_are_told(cause, says):
    assert says in serve.cannot_listen("999.1.2.3", 80, cause)


def test_what_to_try_next_names_a_port_that_is_not_the_default(monkeypatch):
    monkeypatch.setattr(serve.sys, "platform", "linux")
    assert "  make demo " in serve.what_next("127.0.0.1", 8000)
    assert "  PORT=8101 make demo " in serve.what_next("127.0.0.1", 8101)


def test_what_to_try_next_on_windows_is_what_windows_has(monkeypatch):
    monkeypatch.setattr(serve.sys, "platform", "win32")
    lines = serve.what_next("127.0.0.1", 8000).strip().splitlines()
    assert len(lines) == 4
    assert "make" not in " ".join(lines)
    assert lines[1].startswith("  curl.exe http://127.0.0.1:8000/health ")
    assert lines[-1].startswith("Open http://127.0.0.1:8000 in a browser")
