"""The service of the demo: the running one, or one started for the demo, with its endpoints as calls."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from rich.console import Console

from backend.api.schemas.calibration import CalibrateReply
from backend.api.schemas.inspection import FitReply, InferReply
from backend.api.schemas.state import HealthReply
from backend.common.config import load_settings
from demo.cells import MM_PER_PX, Cell

_ROI = {"role_id": "Demo", "roi_id": "solar-cell", "mm_per_px": MM_PER_PX}
_LOCAL = "127.0.0.1"
_START_S = 180
_STOP_S = 15


class DemoError(Exception):
    """Something the user has to read; nothing else can be done."""


class Client:
    """The endpoints of one service, for the ROI of the demo.

    Args:
        address: ``http://host:port``.
        key: its API key; None where it has none.
    """

    def __init__(self, address: str, key: str | None = None) -> None:
        self.address = address
        headers = {"X-API-Key": key} if key else None
        # Proxies are for the internet, not for a service next door.
        self._http = httpx.Client(base_url=address, headers=headers, timeout=600, trust_env=False)

    def health(self) -> HealthReply | None:
        """``GET /health``; None while nothing that is ready, or some other service, answers."""
        try:
            reply = HealthReply.model_validate_json(self._http.get("/health", timeout=5).content)
        except (httpx.HTTPError, ValidationError):
            return None
        return reply if reply.status == "ok" else None

    def fit_ok(self, cells: Sequence[Cell]) -> FitReply:
        """``POST /fit_ok`` with good cells."""
        files = [("images", (cell.name, cell.png, "image/png")) for cell in cells]
        return FitReply.model_validate(self._post("/fit_ok", data=_ROI, files=files))

    def calibrate_ng(
        self, ok_scores: Sequence[float], ng_scores: Sequence[float], *, area_mm2_thr: float
    ) -> CalibrateReply:
        """``POST /calibrate_ng`` with scores of good and defective cells; regions below `area_mm2_thr` are dropped."""
        body = {**_ROI, "ok_scores": ok_scores, "ng_scores": ng_scores, "area_mm2_thr": area_mm2_thr}
        return CalibrateReply.model_validate(self._post("/calibrate_ng", json=body))

    def infer(self, cell: Cell, *, overlay: bool = False) -> InferReply:
        """``POST /infer`` with one cell; with `overlay` also the cell with colour and regions over it."""
        files = {"image": (cell.name, cell.png, "image/png")}
        fields = {**_ROI, "overlay": str(overlay).lower()}
        reply = InferReply.model_validate(self._post("/infer", data=fields, files=files))
        if overlay and reply.overlay_png_base64 is None:
            raise DemoError(f"{self.address}/infer gives no overlay: this service is of an earlier version")
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _post(self, path: str, **content: Any) -> Any:
        try:
            response = self._http.post(path, **content)
            reply = response.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise DemoError(f"{self.address}{path} gave no reply ({type(exc).__name__}: {exc})") from exc
        if response.is_error:
            raise DemoError(f"{path} replied {response.status_code}: {reply.get('error', reply)}")
        return reply


@contextlib.contextmanager
def open_client(console: Console) -> Iterator[Client]:
    """A client of the service at ``HOST:PORT``, or, where none answers, of one started for the time being.

    Raises:
        ConfigError: the environment holds a value that cannot be used.
        DemoError: the service did not start.
    """
    settings = load_settings()
    key = settings.api_keys.get_secret_value().split(",")[0].strip() if settings.api_keys else None
    host = {"0.0.0.0": _LOCAL, "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - to connect, not to bind
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(
            contextlib.closing(Client(str(httpx.URL(scheme="http", host=host, port=settings.port)), key))
        )
        if health := client.health():
            console.print(f"Using the service at {client.address}; it keeps role Demo, ROI solar-cell.")
        else:
            console.print(f"No service at {client.address}: starting one, with temporary models.")
            client, health = stack.enter_context(_started(console))
        console.print(f"Service {health.version}: {health.model}, {health.runtime} on {health.device}.")
        yield client


@contextlib.contextmanager
def _started(console: Console) -> Iterator[tuple[Client, HealthReply]]:
    # First the weights alone, on this terminal: fetching them can take minutes and shows its own progress.
    weights = subprocess.run([sys.executable, "-m", "backend", "weights"], stdout=subprocess.DEVNULL)
    if weights.returncode:
        raise DemoError("the service found no weights; it said why above")
    with socket.socket() as probe:
        probe.bind((_LOCAL, 0))
        port = probe.getsockname()[1]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roi-anomaly-demo-")))
        log = folder / "service.log"
        environment = {**os.environ, "HOST": _LOCAL, "PORT": str(port), "MODELS_DIR": str(folder / "models")}
        environment |= dict.fromkeys(("API_KEYS", "INFER_KEYS", "API_KEYS_FILE"), "")
        with log.open("wb") as output:
            service = subprocess.Popen(
                [sys.executable, "-m", "backend", "serve"], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        stack.callback(_stop, service)
        client = stack.enter_context(contextlib.closing(Client(f"http://{_LOCAL}:{port}")))
        try:
            with console.status("Loading the network"):
                health = _wait_until_healthy(client, service)
            yield client, health
        except DemoError as exc:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.wait(1)  # a service that dies breaks the connection first
            if service.returncode is None:
                raise
            last_lines = log.read_text(errors="replace").splitlines()[-20:]
            message = f"the service stopped with code {service.returncode}; the end of its log:"
            raise DemoError("\n".join([message, *last_lines])) from exc


def _wait_until_healthy(client: Client, service: subprocess.Popen[bytes]) -> HealthReply:
    deadline = time.monotonic() + _START_S
    while service.poll() is None and time.monotonic() < deadline:
        if health := client.health():
            return health
        time.sleep(0.2)
    raise DemoError(f"the service is not ready after {_START_S} s")


def _stop(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()
