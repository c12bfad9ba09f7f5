"""The service where Python lacks what only POSIX systems have, as on Windows: it starts, works, and stops."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.network.weights import Weights
from harness import no_posix
from harness.server import ROOT
from tests.integration.conftest import FULL, running

BREAK = signal.SIGUSR1  # which `no_posix` makes Ctrl-Break


def without_posix(_port: int) -> list[str]:
    return [sys.executable, "-m", "harness.no_posix", "backend", "serve"]


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.no_posix", "backend", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "INPUT_SIZE": "112", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_what_is_taken_away_is_away_and_the_rest_is_there(tmp_path: Path) -> None:
    (tmp_path / "asking.py").write_text(
        "import importlib, os, signal\n"
        "from harness.no_posix import MODULES, OS_NAMES, SIGNALS\n"
        "for name in MODULES:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: continue\n"
        "    print('there is', name)\n"
        "print([name for name in OS_NAMES if hasattr(os, name)], [name for name in SIGNALS if hasattr(signal, name)])\n"
        "print(os.replace.__name__, signal.SIGTERM, signal.SIGBREAK)\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-m", "harness.no_posix", "asking"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert found.stdout == f"[] []\nreplace {signal.SIGTERM.value} {BREAK.value}\n"
    assert {"fork", "getuid", "statvfs", "O_DIRECTORY"} <= set(no_posix.OS_NAMES)


def test_service_fits_calibrates_infers_and_stores_without_posix(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    with running(without_posix, tmp_path, weights, INPUT_SIZE="112") as server:
        gui = server.gui
        fitted = gui.fit("Master1", "Pattern", crops[:4])
        assert fitted.status == 200, fitted.content
        fresh = fitted.json["ok_scores"]
        calibrated = gui.calibrate("Master1", "Pattern", fresh, [max(fresh) + 1])
        assert calibrated.status == 200, calibrated.content
        inferred = gui.infer("Master1", "Pattern", crops[4])
        assert inferred.status == 200, inferred.content
        assert inferred.json["threshold"] == calibrated.json["threshold"]
        assert gui.fit("Master1", "Pattern", crops[1:5]).status == 200
        versions = gui.get("/versions?role_id=Master1&roi_id=Pattern")
        assert [version["replaced_by"] for version in versions.json["versions"]] == ["fit", "calibrate"]
    assert (tmp_path / "models" / "Master1" / "Pattern" / "memory.npz").is_file()
    assert "Traceback" not in server.log_text()


def test_ctrl_break_finishes_a_fit_and_refuses_new_work(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with running(without_posix, tmp_path, weights, INPUT_SIZE=FULL) as server, ThreadPoolExecutor(1) as pool:
        fit = pool.submit(server.gui.fit, "Last", "Fit", crops[:4] * 2)
        deadline = time.monotonic() + 20
        while server.gui.get("/runs").json["runs"] == [] and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(server.pid, BREAK)
        while server.gui.get("/health").json["status"] != "draining" and time.monotonic() < deadline:
            time.sleep(0.01)
        refused = server.gui.infer("Last", "Fit", crops[0])
        assert not fit.done(), "or nothing was seen"
        assert refused.status == 503
        reply = fit.result()
        assert reply.status == 200, reply.content
        server.process.wait(20)


def test_commands_fit_infer_and_stop_cleanly_at_ctrl_break(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for number, crop in enumerate(crops[:3]):
        (folder / f"{number}.png").write_bytes(crop)
    settings = {"MODELS_DIR": str(tmp_path / "models"), "WEIGHTS": str(weights.path)}
    out, err = command("fit", "A", "B", folder, "--mm-per-px", 0.2, **settings).communicate()
    assert '"coreset_size"' in out, err
    many = tmp_path / "many"
    many.mkdir()
    for number in range(300):
        (many / f"{number}.png").write_bytes(crops[3])
    records = tmp_path / "records.jsonl"
    process = command("infer", "A", "B", many, "--mm-per-px", 0.2, "--out", records, **settings)
    deadline = time.monotonic() + 60
    while not (records.is_file() and records.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(BREAK)
    out, err = process.communicate()
    assert process.returncode == 143, err
    written = records.read_text(encoding="utf-8").splitlines()
    assert 0 < len(written) < 300
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--help"], ["calibrate", "--help"], ["weights"]])
def test_what_a_code_page_lacks_is_printed_as_an_escape(tmp_path: Path, weights: Weights, arguments: list[str]) -> None:
    """Code page 932, of Japanese Windows, has no ² and no ñ."""
    link = tmp_path / "señal.safetensors"
    link.symlink_to(weights.path)
    settings = {"WEIGHTS": str(link), "WEIGHTS_CACHE": str(tmp_path), "PYTHONIOENCODING": "cp932"}
    process = subprocess.run(
        [sys.executable, "-m", "backend", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        encoding="cp932",
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout
    assert "Traceback" not in process.stderr
