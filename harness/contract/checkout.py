"""A running checkout: its command line and its servers, each in its own process that knows only this checkout."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.gui import Gui

POLL = {"X-Request-Id": "poll"}  # what is asked until something is there, and so a number of times that nobody knows
_LOCAL = "127.0.0.1"
_START_S = 120
_STOP_S = 60
_COMMAND_S = 300
_COUNTED, _COUNT_S = "stale_calibrations", 3.0
_POLL_S = 0.05
# Nothing else of the environment reaches a checkout: settings are environment variables.
_INHERITED = ("HOME", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "WEIGHTS", "WEIGHTS_CACHE", "XDG_CACHE_HOME")
_SETTINGS = {
    "COLUMNS": "100",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEVICE": "cpu",
    "INPUT_SIZE": "112",
    "CORESET_RATE": "0.1",
    "MIN_OK_SAMPLES": "3",
    "KEEP_VERSIONS": "4",
}


@dataclass(frozen=True)
class Outcome:
    """What came of a command."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Server:
    """A service that answers.

    Attributes:
        host, port: where.
        pid: of its process.
        log: what it writes, a JSON object per line, and a few other lines.
    """

    host: str
    port: int
    pid: int
    log: Path


@dataclass(frozen=True)
class Checkout:
    """A folder with the project.

    Attributes:
        folder: the folder.
        weights: safetensors file of the network; None where the project finds one.
    """

    folder: Path
    weights: Path | None = None

    def run(self, *arguments: str, **settings: str) -> Outcome:
        """Run ``python -m backend`` with arguments, and settings beside those that are the same for all."""
        done = subprocess.run(
            [sys.executable, "-m", "backend", *arguments],
            cwd=self.folder,
            env=self._environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_S,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    @contextlib.contextmanager
    def serving(self, log: Path, *, status: str = "ok", **settings: str) -> Iterator[Server]:
        """Serve, and stop whatever happens.

        Args:
            log: where the log goes.
            status: which its health says once it may be asked.
            settings: as of `run`.

        Raises:
            RuntimeError: it does not answer; the message is the end of its log.
        """
        with socket.socket() as probe:
            probe.bind((_LOCAL, 0))
            port = probe.getsockname()[1]
        here = {"LOG_FORMAT": "json", "HOST": _LOCAL, "PORT": str(port)}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "backend", "serve"],
                cwd=self.folder,
                env=self._environment({**here, **settings}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _wait(Gui(_LOCAL, port, POLL), process, log, status)
            yield Server(_LOCAL, port, process.pid, log)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        weights = {} if self.weights is None else {"WEIGHTS": str(self.weights)}
        return {**inherited, **_SETTINGS, **weights, **settings}


def _wait(gui: Gui, process: "subprocess.Popen[bytes]", log: Path, status: str) -> None:
    """Wait until the health says `status`, and a moment longer for what is counted once the service is ready."""
    deadline = time.monotonic() + _START_S
    while f'"status":"{status}"' not in _health(gui):
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(encoding="utf-8", errors="replace")[-4000:]
            raise RuntimeError(f"the service does not answer; the end of its log:\n{end}")
        time.sleep(_POLL_S)
    deadline = time.monotonic() + _COUNT_S
    while _COUNTED not in _health(gui) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _health(gui: Gui) -> str:
    try:
        return gui.get("/health").content.decode()
    except OSError:  # it does not listen yet
        return ""
