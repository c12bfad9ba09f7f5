"""The hub as a source of weights, played by a server of the test that speaks the hub's protocol."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save

from backend.weights import CANONICAL_NAME, CANONICAL_SHA256, HUB_SHA256, Weights, sha256_of
from tests.hub_format import transformers_names
from tests.integration.conftest import ROOT


@pytest.fixture
def hub_file(weights: Weights) -> bytes:
    """The published file of ``facebook/dinov2-small``, written from the tensors under their names there."""
    content = save(transformers_names(load_file(weights.path)), metadata={"format": "pt"})
    assert hashlib.sha256(content).hexdigest() == HUB_SHA256
    return content


class Hub:
    def __init__(self, content: bytes) -> None:
        self.requests: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(handler) -> None:  # noqa: N805
                self.requests.append(f"{handler.command} {handler.path}")
                handler.send_response(200)
                handler.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                handler.send_header("X-Repo-Commit", "0" * 40)
                handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                if handler.command == "GET":
                    handler.wfile.write(content)

            do_GET = do_HEAD = answer  # noqa: N815

            def log_message(handler, *_: object) -> None:  # noqa: N805
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def find_weights(self, cache: Path) -> subprocess.CompletedProcess[str]:
        endpoint = f"http://127.0.0.1:{self.server.server_port}"
        environment = {name: value for name, value in os.environ.items() if name not in ("WEIGHTS", "HF_HUB_OFFLINE")}
        return subprocess.run(
            [sys.executable, "-m", "backend", "weights"],
            cwd=ROOT,
            env={
                **environment,
                "WEIGHTS_CACHE": str(cache),
                "HF_ENDPOINT": endpoint,
                # Were the hub not to serve, pip would find nothing either.
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": "",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    content = request.getfixturevalue("hub_file")
    hub = Hub(content if request.param == "genuine" else content[:-1] + b"\x01")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.mark.parametrize("hub", ["genuine"], indirect=True)
def test_weights_come_from_the_hub_once_and_are_cached_in_canonical_form(hub: Hub, tmp_path: Path) -> None:
    found = hub.find_weights(tmp_path)
    assert found.returncode == 0, found.stderr
    assert "(hub, sha256 " in found.stdout
    assert sha256_of(tmp_path / CANONICAL_NAME) == CANONICAL_SHA256
    asked = len(hub.requests)
    assert asked
    again = hub.find_weights(tmp_path)
    assert "(cache, sha256 " in again.stdout
    assert len(hub.requests) == asked
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", CANONICAL_NAME]


@pytest.mark.parametrize("hub", ["forged"], indirect=True)
def test_a_forged_hub_file_is_refused_and_nothing_is_kept(hub: Hub, tmp_path: Path) -> None:
    found = hub.find_weights(tmp_path)
    assert found.returncode != 0
    assert "does not have the published sha256" in found.stderr
    assert "set WEIGHTS to it" in found.stderr
    assert not (tmp_path / CANONICAL_NAME).exists()
