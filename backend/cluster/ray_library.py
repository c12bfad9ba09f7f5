"""Ray, closed: the environment is settled before its first import, and only here is it imported."""

import contextlib
import importlib
import os
import secrets
import signal
from collections.abc import Iterator, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

from backend.common.errors import ConfigError
from backend.common.machine import STOP_SIGNAL

_CLOSED = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else it reports to its makers
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # else it reports to them that it does not report
    "RAY_AUTH_MODE": "token",  # whoever may send jobs runs code
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else it replaces 127.0.0.1 by the address of the host
}
_QUIET = {
    "RAY_worker_niceness": "0",  # else its workers yield to whatever else the machine does, and do not even start
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # else a proxy that starts slowly is killed three times 5 s later
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # who asks for no GPU keeps the variables of CUDA
    "RAY_DEDUP_LOGS": "0",  # every line of the service's log is one event
}
ADDRESS, TOKEN, TOKEN_PATH = "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def close(environment: MutableMapping[str, str] = os.environ) -> None:
    """Settle what Ray reads when it is imported: nothing is reported, and a token is required.

    Args:
        environment: of this process, which those that Ray starts inherit.
    """
    environment.update(_CLOSED)
    for name, value in _QUIET.items():
        environment.setdefault(name, value)


@cache
def own_token() -> str:
    """The token of the clusters that this process starts. All have the same, because Ray reads it only once."""
    return secrets.token_hex(32)


def import_ray(module: str = "ray") -> Any:
    """Ray, or a module of it.

    Args:
        module: its full name.

    Raises:
        ConfigError: Ray is not installed.
    """
    close()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "ray":
            raise
        raise ConfigError("this needs Ray: pip install -r requirements/ray.txt") from exc


def init(ray: Any, **options: Any) -> None:
    """``ray.init`` without Ray's handlers of signals: it replaces that of SIGTERM.

    Args:
        ray: the module.
        options: of ``ray.init``.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, STOP_SIGNAL)}
    try:
        ray.init(**options)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def asking_nobody(folder: Path) -> Iterator[None]:
    """Keep Ray, where it starts within the block, from asking the metadata services of clouds where it runs.

    Ray 2.60 asks for its usage report, also where that is off; but not if the home folder says what cluster this is.

    Args:
        folder: of Ray, which becomes the home of the one process that asks.
    """
    (folder / "ray_bootstrap_config.yaml").write_text("provider:\n  type: local\n", encoding="utf-8")
    services = import_ray("ray._private.services")
    start = services.start_ray_process

    def start_at_home(command: list[str], process_type: str, *arguments: Any, **options: Any) -> Any:
        if process_type == "dashboard":
            home = {"HOME": str(folder), "USERPROFILE": str(folder)}
            options["env_updates"] = {**(options.get("env_updates") or {}), **home}
        return start(command, process_type, *arguments, **options)

    services.start_ray_process = start_at_home
    try:
        yield
    finally:
        services.start_ray_process = start
