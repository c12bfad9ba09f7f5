"""A service whose files cannot grow: what it was fitted with goes on being served, and errors say what is wrong."""

import sys
from pathlib import Path

from backend.network.weights import Weights
from tests.integration.conftest import running

_LARGEST_FILE = 100_000  # bytes; the memory bank of an image has 24,576
_LIMITED = (
    "import os, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def limited_command(_port: int) -> list[str]:
    return [sys.executable, "-c", _LIMITED, str(_LARGEST_FILE), "-m", "backend", "serve"]


def test_fit_fails_on_a_full_disk_and_the_old_model_is_served(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    """A fit that the disk cannot hold is answered 500. The old model keeps its calibration; a smaller fit is stored."""
    environment = {"INPUT_SIZE": "56", "LOG_LEVEL": "error", "COVERAGE_PROCESS_CONFIG": ""}  # whose file would not fit
    with running(limited_command, tmp_path, weights, **environment) as server:
        gui, roi = server.gui, ("Full", "Disk")
        assert gui.fit(*roi, crops[:2], memory_fit="true").status == 200
        assert gui.calibrate(*roi, [0.4], None).status == 200
        before = gui.infer(*roi, crops[2]).json

        refused = gui.fit(*roi, crops[:5], memory_fit="true")
        assert refused.status == 500
        assert refused.json["error"] == "the model cannot be stored (File too large); check the models folder"
        after = gui.infer(*roi, crops[2]).json
        assert after["calibration"] == "applied"
        assert {**after, "request_id": ""} == {**before, "request_id": ""}
        names = {path.name for path in (server.models / "Full" / "Disk").iterdir()} - {".lock"}
        (scores,) = (name for name in names if name.endswith(".scores.json"))  # its name has a hash
        assert names == {"memory.npz", "index.faiss", "calib.json", scores, ".versions"}
        assert {path.name for path in (server.models / "Full" / "Disk" / ".versions").iterdir()} == {"1"}
        assert gui.fit(*roi, crops[3:5], memory_fit="true").status == 200, "a smaller one is stored"
