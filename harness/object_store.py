"""Object stores on this machine, for tests and soaks: moto's server, and ministack's, which nobody of moto wrote.

``pip install -r requirements/dev.txt`` has moto. ministack has conflicting requirements, so `MINISTACK` names the
folder of ``pip install --target FOLDER ministack==1.5.33``.
"""

import contextlib
import io
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.server import free_port

BUCKET = "models"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}
_STARTS_WITHIN_S = 60.0


@contextlib.contextmanager
def moto_store() -> Iterator[str]:
    """The endpoint of moto's server, in this process, with an empty bucket; what it holds is in memory."""
    # No command of moto starts it with a port that it chooses, or with atomic writes.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = _with_atomic_writes(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        make_bucket(endpoint)
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _with_atomic_writes(app: Any) -> Any:
    """A WSGI app that answers one PUT at a time.

    moto checks a condition first and writes later. So two writers at once may both be told that they won, although one
    write is lost.
    """
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] != "PUT":
            return app(environ, start_response)
        # The body is read before, so that a slow client does not block the others.
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with lock:
            return list(app(environ, start_response))

    return answer


@contextlib.contextmanager
def ministack_store(folder: Path) -> Iterator[str]:
    """The endpoint of ministack's server, in a process of its own, with an empty bucket.

    Args:
        folder: that it is installed in.
    """
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "SERVICES": "s3",
        "LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ministack"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        make_bucket(endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def make_bucket(endpoint: str) -> None:
    """Make the bucket, as soon as the server answers."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT", data=b"")  # noqa: S310 - of this machine
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError as exc:
            if exc.code == 409:
                return
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
