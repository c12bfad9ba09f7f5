"""Nothing leaves the machine, and nothing is left in the home folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.network.weights import Weights
from harness.gui import Gui
from harness.no_network import sitecustomize as no_network
from harness.server import ROOT, gunicorn_command, serve_command, serving, uvicorn_command
from tests.integration.conftest import SMALL

WATCH = str(Path(no_network.__file__).parent)
# What OpenVINO takes for a build machine, where it reports nothing.
BUILD_MACHINE = ("CI", "TF_BUILD", "JENKINS_URL")


class Watch:
    """The environment of a process that is watched, and what it did."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.record = folder / "record"
        self.environment = {
            "PYTHONPATH": WATCH,
            no_network.RECORD: str(self.record),
            **dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"), str(self.home)),
            **dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), str(self.home / "xdg")),
        }

    def attempts(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    for name in (*BUILD_MACHINE, "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Watch(tmp_path)


@pytest.mark.parametrize(
    "command",
    [serve_command, *(pytest.param(other, marks=pytest.mark.long) for other in (uvicorn_command, gunicorn_command))],
)
def test_a_server_at_work_stays_on_the_machine(
    watch: Watch, tmp_path: Path, weights: Weights, crops: list[bytes], command
) -> None:
    settings = {"DEVICE": "cpu", "WEIGHTS": str(weights.path), **watch.environment}
    with serving(command, tmp_path, as_set=False, **settings) as server:
        _inspect(server.gui, crops)
        assert server.gui.get("/docs").status == server.gui.get("/metrics").status == 200
        server.stop()
    assert watch.attempts() == []
    assert watch.files() == []


def _inspect(gui: Gui, crops: list[bytes]) -> None:
    fit = gui.fit("Quiet", "Roi", crops[:3])
    assert fit.status == 200, fit.content
    calibration = gui.calibrate("Quiet", "Roi", [0.4, 0.5], None)
    assert calibration.status == 200, calibration.content
    inference = gui.infer("Quiet", "Roi", crops[3])
    assert inference.status == 200, inference.content


def test_the_commands_stay_on_the_machine(watch: Watch, tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    for number, crop in enumerate(crops[:5]):
        folder = tmp_path / "set" / ("train/good" if number < 3 else f"test/{('good', 'dent')[number - 3]}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(crop)
    settings = {
        "DEVICE": "cpu",
        "WEIGHTS": str(weights.path),
        "MODELS_DIR": str(tmp_path / "models"),
        "INPUT_SIZE": SMALL,
    }
    good, defects = str(tmp_path / "set" / "train" / "good"), str(tmp_path / "set" / "test" / "dent")
    roi = ("Quiet", "Roi")
    scale = ("--mm-per-px", "0.2")
    for arguments in (
        ("fit", *roi, good, *scale),
        ("calibrate", *roi, "--ok", good, "--ng", defects, *scale),
        ("infer", *roi, defects, *scale),
        ("evaluate", str(tmp_path / "set"), "--out", str(tmp_path / "report")),
    ):
        done = watch.run("-m", "backend", *arguments, **settings)
        assert done.returncode == 0, done.stderr
    assert watch.attempts() == []
    assert watch.files() == []


@pytest.mark.parametrize(
    "module", ["backend.app", "backend.network.openvino_library", "backend.network.runtimes.torch", "demo.client"]
)
def test_an_import_stays_on_the_machine(watch: Watch, module: str) -> None:
    done = watch.run("-c", f"import {module}")
    assert done.returncode == 0, done.stderr
    assert watch.attempts() == []
    assert watch.files() == []


def test_openvino_does_without_its_telemetry(watch: Watch) -> None:
    script = (
        "import sys; sys.modules['openvino_telemetry'] = None; from backend.network.openvino_library import ov; "
        "print(ov.Core().available_devices, ov.tools.ovc.telemetry.__class__.__module__)"
    )
    done = watch.run("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("import socket; socket.getaddrinfo('nowhere.invalid', 80)", "socket.getaddrinfo 'nowhere.invalid'"),
        ("import socket; socket.socket().connect(('192.0.2.1', 80))", "socket.connect '192.0.2.1'"),
        ("import urllib.request; urllib.request.urlopen('http://nowhere.invalid')", "socket.getaddrinfo"),
        ("import openvino_telemetry", "import 'openvino_telemetry'"),
        (
            "import threading, socket\n"
            "threading.Thread(target=socket.gethostbyname, args=('nowhere.invalid',)).start()",
            "socket.gethostbyname 'nowhere.invalid'",
        ),
    ],
)  # fmt: skip
def test_the_watch_sees_what_leaves(watch: Watch, script: str, seen: str) -> None:
    watch.run("-c", script)
    assert len(watch.attempts()) == 1
    assert seen in watch.attempts()[0]


def test_the_watch_lets_loopback_be(watch: Watch) -> None:
    script = (
        "import socket; server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname())"
    )
    assert watch.run("-c", script).returncode == 0
    assert watch.attempts() == []
