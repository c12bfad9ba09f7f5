"""``HISTORY``: extra time of an inference if judgements are kept, measured in turns in one run.

``python -m benchmarks.history`` infers synthetic parts of several sizes over HTTP in this process, with two services
that share a network. One keeps 1000 judgements, the other none.
"""

import tempfile
from functools import partial
from pathlib import Path

import cv2
from starlette.testclient import TestClient

from backend.app import create_app
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from harness.images import solar_cells
from harness.measuring import at_most, interleaved, print_table

_IDS = {"role_id": "Benchmark", "roi_id": "Cell", "mm_per_px": 0.5}
_SIDES = (300, 1024, 3000)
_ROUNDS = 15
_CLAIM = 1.05


def main() -> None:
    """Print the table."""
    configure_logging("error", "console")
    cells = solar_cells(4)
    with tempfile.TemporaryDirectory() as folder:
        without = InspectionService.open(load_settings(models_dir=Path(folder, "without"), log_level="error"))
        settings = load_settings(models_dir=Path(folder, "with"), history=1000, log_level="error")
        keeping = InspectionService(settings, without.features, ModelStore(settings.models_dir))
        clients = {
            name: TestClient(create_app(service.settings, service))
            for name, service in (("without", without), ("with", keeping))
        }
        files = [("images", (f"{number}.png", _png(cell, 300))) for number, cell in enumerate(cells)]
        for client in clients.values():
            client.post("/fit_ok", data=_IDS, files=files).raise_for_status()
        rows = []
        for side in _SIDES:
            part = _png(cells[0], side)
            contenders = {name: partial(_infer, client, part) for name, client in clients.items()}
            seconds = interleaved(contenders, _ROUNDS)
            ratio = seconds["with"] / seconds["without"]
            milliseconds = [f"{1000 * seconds[name]:.1f}" for name in ("without", "with")]
            rows.append((f"{side}×{side}", *milliseconds, at_most(_CLAIM, ratio)))
        for service in (without, keeping):
            service.drift.close()
            service.history.close()
    print_table(f"/infer, median milliseconds of {_ROUNDS}", ("ROI", "HISTORY=0", "HISTORY=1000", "ratio"), rows)


def _infer(client: TestClient, part: bytes) -> None:
    client.post("/infer", data=_IDS, files={"image": ("a.png", part)}).raise_for_status()


def _png(cell: cv2.typing.MatLike, side: int) -> bytes:
    return cv2.imencode(".png", cv2.resize(cell, (side, side), interpolation=cv2.INTER_CUBIC))[1].tobytes()


if __name__ == "__main__":
    main()
