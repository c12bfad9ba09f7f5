"""Object stores on this machine, for tests and soaks: moto's server, and ministack's, which nobody of moto wrote.

``pip install -r requirements/dev.txt`` has moto. ministack has conflicting requirements, so `MINISTACK` names the
folder of ``pip install --target FOLDER ministack==1.5.33``.
"""

import contextlib
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from harness.server import free_port

BUCKET = "models"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}
_STARTS_WITHIN_S = 60.0


@contextlib.contextmanager
def moto_store() -> Iterator[str]:
    """The endpoint of moto's server, in this process, with an empty bucket; what it holds is in memory."""
    from moto.server import ThreadedMotoServer  # no command starts it with a port that it chooses

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        make_bucket(endpoint)
        yield endpoint
    finally:
        server.stop()


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
