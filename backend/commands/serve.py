"""``serve`` and ``weights``: the service, and the weights of its network."""

import argparse
import asyncio
import contextlib
import errno
import importlib
import ipaddress
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import structlog
import uvicorn

from backend.api.api_keys import OPEN, ApiKeys, is_loopback
from backend.api.connections import bounded
from backend.commands.arguments import Commands, add_command
from backend.common.config import Settings
from backend.common.errors import ConfigError
from backend.common.machine import STOP_SIGNAL
from backend.network.weights import find_weights

_READY_POLL_S = 0.02
# Who signals a whole group, as systemd does, reaches us through make too.
_SAME_SIGTERM_S = 2.0
_SERVE = """
HOST, PORT and all other settings are environment variables; docs/settings.md lists them. Ctrl-C stops
the service after the current requests."""
_SERVE_EPILOG = """\
example:
  PORT=9000 MODELS_DIR=/srv/models %(prog)s
"""
_WEIGHTS = """
Prints the path of the file. If WEIGHTS is not set, the file is taken from the cache (WEIGHTS_CACHE), or downloaded into
it."""

log: Any = structlog.get_logger(__name__)


def add_to(commands: Commands) -> None:
    """Add both to the command line."""
    add_command(commands, "serve", serve, "serve on HOST:PORT until stopped", _SERVE, _SERVE_EPILOG)
    add_command(commands, "weights", weights, "find and verify the weights of the network", _WEIGHTS)


def serve(settings: Settings, _options: argparse.Namespace) -> None:
    """Serve on ``HOST:PORT`` until stopped.

    Raises:
        ConfigError: the address cannot be bound, or an API key cannot be used.
    """
    if not ApiKeys.of(settings) and not is_loopback(settings.host):
        log.warning("access.open", address=settings.host, reason=OPEN)
    http = bounded(settings.body_timeout_s)
    server = _Server(
        uvicorn.Config(
            "backend.app:app", host=settings.host, port=settings.port, log_config=None, http=http, loop=event_loop()
        )
    )
    try:
        server.run()
    except KeyboardInterrupt:
        return  # Ctrl-C is how to stop it
    except SystemExit as exc:  # uvicorn's way to say that it did not start; the log has the reason
        if server.lifespan.should_exit:
            raise
        raise ConfigError(cannot_listen(settings.host, settings.port, exc.__context__)) from exc
    if not server.started:
        sys.exit(3)


def cannot_listen(host: str, port: int, cause: BaseException | None) -> str:
    """Why the address cannot be bound, and what to do about it.

    >>> cannot_listen("127.0.0.1", 8000, OSError(errno.EADDRINUSE, "in use"))
    'cannot listen on HOST=127.0.0.1 PORT=8000: another program uses this port; stop it, or set PORT to another number'
    """
    advice = {
        errno.EADDRINUSE: "another program uses this port; stop it, or set PORT to another number",
        errno.EADDRNOTAVAIL: "this machine does not have this address; set HOST to one of its addresses, or to "
        "0.0.0.0 for all",
        errno.EACCES: "this user may not use this port; set PORT to another number, 1024 or more",
    }
    number = cause.errno if isinstance(cause, OSError) else None
    reason = advice.get(number) if number is not None else None
    return f"cannot listen on HOST={host} PORT={port}: {reason or cause}"


def event_loop() -> str:
    """The event loop of the service, as uvicorn names it."""
    # The default of Windows stops listening for good at the first connection that is reset before it is accepted.
    return "asyncio:SelectorEventLoop" if sys.platform == "win32" else "auto"


def weights(settings: Settings, _options: argparse.Namespace) -> None:
    """Find and verify the weights, and name the file.

    Raises:
        WeightsError: there are none.
    """
    found = find_weights(settings)
    print(f"{found.path} ({found.source}, sha256 {found.sha256})")


class _Server(uvicorn.Server):
    """Prints the next steps when the service is ready, and ends at once if SIGTERM comes again, seconds later."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        drain = signal.getsignal(STOP_SIGNAL)
        first: float | None = None

        def drain_or_end(number: int, frame: FrameType | None) -> None:
            nonlocal first
            if first is None:
                first = time.monotonic()
                if callable(drain):
                    drain(number, frame)
            elif time.monotonic() - first > _SAME_SIGTERM_S:
                os._exit(128 + number)

        signal.signal(STOP_SIGNAL, drain_or_end)
        self._announcement = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        lifecycle = importlib.import_module("backend.app").app.state.lifecycle
        while lifecycle.status != "ok" and not self.should_exit:
            await asyncio.sleep(_READY_POLL_S)
        if not self.should_exit:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(what_next(self.config.host, port), file=sys.stderr, flush=True)


def reachable_name(host: str) -> str:
    """The name by which this machine reaches a service that listens on `host`.

    >>> reachable_name("0.0.0.0"), reachable_name("::"), reachable_name("192.168.1.7")
    ('localhost', 'localhost', '192.168.1.7')
    """
    with contextlib.suppress(ValueError):  # a name is no address
        if ipaddress.ip_address(host).is_unspecified:
            return "localhost"
    return host


def what_next(host: str, port: int) -> str:
    """The message when the service is ready: requests to try, and finally the address to open.

    >>> print(what_next("0.0.0.0", 8000))
    <BLANKLINE>
    Ready at http://localhost:8000. Next:
      curl http://localhost:8000/health     the state of the service
      make demo                             fit, calibrate and inspect real images
      http://localhost:8000/docs            every endpoint, with examples to try
    Open http://localhost:8000 in a browser: from a folder of pictures to verdicts.
    <BLANKLINE>
    """
    name = reachable_name(host)
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}"
    curl, demo = "curl", "make demo" if port == Settings.model_fields["port"].default else f"PORT={port} make demo"
    if sys.platform == "win32":  # which has no make, and in whose PowerShell curl is another command
        curl, demo = "curl.exe", ""
    return (
        f"\nReady at {address}. Next:\n"
        f"  {f'{curl} {address}/health':<38}the state of the service\n"
        + (f"  {demo:<38}fit, calibrate and inspect real images\n" if demo else "")
        + f"  {f'{address}/docs':<38}every endpoint, with examples to try\n"
        + f"Open {address} in a browser: from a folder of pictures to verdicts.\n"
    )
