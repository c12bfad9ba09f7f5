"""Read by gunicorn on its own when it starts in this folder."""

import os
import sys
from typing import Any

import uvicorn
from prometheus_client import multiprocess

from backend.api.api_keys import OPEN, ApiKeys, is_loopback
from backend.api.connections import bounded
from backend.common.config import load_settings
from backend.common.errors import ConfigError
from backend.common.machine import usable_cores

keepalive = 5  # seconds after a reply, as uvicorn's own; docker/nginx.conf relies on it
graceful_timeout = 24 * 3600  # fits and runs over data sets end when they are done; nothing else holds a worker
control_socket_disable = True  # a door that nobody uses, in the home folder of whoever starts the service


def when_ready(server: Any) -> None:
    """Warn of an address that others reach where no key is needed."""
    try:
        keys = ApiKeys.of(load_settings())
    except ConfigError as exc:
        sys.exit(str(exc))
    for host in _hosts(server):
        if not keys and not is_loopback(host):
            server.log.warning("access.open address=%s: %s", host, OPEN)


def _hosts(server: Any) -> list[str]:
    """What it listens on: addresses, and paths of Unix sockets."""
    return [address[0] if isinstance(address, tuple) else str(address) for address in server.cfg.address]


def post_fork(server: Any, worker: Any) -> None:
    """Share the cores between the workers, which only slow each other down; bound connections; name the address."""
    if isinstance(getattr(worker, "config", None), uvicorn.Config):
        worker.handle_exit = _end_at_once
        worker.config.http = bounded(load_settings().body_timeout_s)
    else:
        server.log.warning("connections have no limits with this kind of worker: use uvicorn.workers.UvicornWorker")
    for host in _hosts(server):
        if not is_loopback(host):
            os.environ["HOST"] = host  # else the application takes the address for loopback
    if os.environ.get("THREADS", "") in ("", "0"):
        os.environ["THREADS"] = str(max(1, usable_cores() // server.cfg.workers))


def _end_at_once(_number: int, _frame: Any) -> None:
    """What SIGQUIT and SIGINT to gunicorn mean for its workers; uvicorn's would go on until they are killed."""
    os._exit(0)


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that is gone, however it went."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(worker.pid)
