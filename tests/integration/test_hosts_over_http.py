"""Host names and web pages of other origins, as real servers meet them on the addresses that they are bound to."""

import socket
from pathlib import Path

import pytest

from backend.network.weights import Weights
from harness.gui import Gui, Head
from harness.server import gunicorn_command, serve_command, uvicorn_command
from tests.integration.conftest import running

FACTORY = {"Host": "factory.example"}


def bound_to_all(port: int) -> list[str]:
    return [word.replace("127.0.0.1", "0.0.0.0") for word in gunicorn_command(port, workers=1)]


def check_loopback_only(gui: Gui) -> None:
    refused = gui.send("GET", "/health", headers=FACTORY)
    assert (refused.status, refused.json["code"]) == (400, "wrong_host")
    assert "set ALLOWED_HOSTS" in refused.json["error"]
    assert gui.send("GET", "/health", headers={"Host": f"localhost:{gui.port}"}).status == 200


@pytest.mark.parametrize("command", [serve_command, gunicorn_command])
def test_a_server_on_loopback_serves_loopback_names_only(tmp_path: Path, weights: Weights, command: object) -> None:
    with running(command, tmp_path, weights, INPUT_SIZE="14") as server:
        check_loopback_only(server.gui)
        with socket.create_connection((server.gui.host, server.gui.port), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")  # names no host
            assert connection.recv(1000).split()[1] == b"200"


@pytest.mark.parametrize("command", [serve_command, bound_to_all])
def test_a_server_on_all_addresses_serves_any_name(tmp_path: Path, weights: Weights, command: object) -> None:
    """Also over loopback, which a proxy on the same machine comes over, and the machine's own name on some systems."""
    settings = {"HOST": "0.0.0.0"} if command is serve_command else {}
    with running(command, tmp_path, weights, INPUT_SIZE="14", **settings) as server:
        assert server.gui.send("GET", "/health", headers=FACTORY).status == 200


def test_a_form_of_a_foreign_page_changes_nothing(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with running(uvicorn_command, tmp_path, weights, INPUT_SIZE="112") as server:
        gui = server.gui
        check_loopback_only(gui)
        for sent in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            foreign = Gui(gui.host, gui.port, sent)
            for reply in (foreign.fit("A", "B", crops[:1]), foreign.infer("A", "B", crops[0])):
                assert (reply.status, reply.json["code"]) == (403, "origin_not_allowed")
        assert not server.models.exists()
        own = {"Origin": f"http://{gui.host}:{gui.port}", "Sec-Fetch-Site": "same-origin"}
        assert Gui(gui.host, gui.port, own).fit("A", "B", crops[:1]).status == 200
        assert Head(gui.host, gui.port).fit("A", "C", crops[:1]).status == 200
