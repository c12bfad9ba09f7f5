"""Read by gunicorn on its own when it starts in this folder."""

import os
from typing import Any

from prometheus_client import multiprocess

from backend.resources import usable_cores


def post_fork(server: Any, _worker: Any) -> None:
    """Share the cores between the workers: two that use all of them at once only slow each other down."""
    if os.environ.get("THREADS", "") in ("", "0"):
        os.environ["THREADS"] = str(max(1, usable_cores() // server.cfg.workers))


def child_exit(_server: Any, worker: Any) -> None:
    """Forget the gauges of a worker that is gone, however it went."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(worker.pid)
