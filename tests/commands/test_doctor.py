"""`doctor`: what it measures and recommends, which ROIs it would refit, and what it finds wrong."""

import contextlib
import json
import os
import socket
import time

import pytest

from backend.commands import doctor
from backend.commands.doctor import Measured, examine, recommended
from backend.common.config import Settings
from backend.common.errors import WeightsError
from backend.common.roi_key import RoiKey
from backend.network.openvino_library import ov
from tests.factories import KEY, store_memory


@pytest.fixture
def settings(tmp_path, weights):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Settings(models_dir=tmp_path, weights=weights.path, input_size=28, port=port)


def problems_of(settings):
    return examine(settings, 0.01).problems


@pytest.mark.slow
def test_it_prints_the_machine_each_precision_and_a_recommendation(command_line, settings, monkeypatch):
    for name in ("models_dir", "weights", "input_size", "port"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    status, out, err = command_line("doctor", "--seconds", 1)
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0, out
    assert list(lines) == [
        *("machine", "memory", "OpenVINO", "float32", "bfloat16", "int8", "recommended", "refits", "problems")
    ]
    assert ov.__version__ in lines["OpenVINO"]
    assert "ms for 28 pixels, 1.00 × float32" in lines["float32"]
    assert "0 of 0 ROIs" in lines["refits"]
    assert "measuring" in err

    store_memory(settings.models_dir, 1, extractor={"precision": "bfloat16/openvino"})
    store_memory(settings.models_dir, 2, RoiKey("Master1", "Other"), extractor={"precision": "float32"})
    store_memory(settings.models_dir, 3, RoiKey("Master1", "Older"))
    status, out, _ = command_line("doctor", "--seconds", 1, "--json")
    found = json.loads(out)
    assert (status, found["problems"]) == (0, [])
    assert (found["n_rois"], found["refits"]) == (3, {"float32": 1, "bfloat16": 1, "int8": 2})
    assert found["precisions"]["float32"]["times_float32"] == 1
    assert found["recommended"] in found["precisions"]
    for own in found["precisions"].values():
        assert (own["ms"] is None) == (own["note"] is not None)


@pytest.mark.parametrize(
    ("gains", "wanted"),
    [
        ({"float32": 1.0, "bfloat16": 1.9, "int8": 1.4}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": None, "int8": 1.4}, "int8"),
        ({"float32": 1.0, "bfloat16": None, "int8": 1.1}, "float32"),
        ({"float32": 1.0}, "float32"),
        ({}, None),
    ],
)
def test_it_recommends_the_fastest_or_float32_if_none_is_clearly_faster(gains, wanted):
    measured = {name: Measured(times_float32=gain) for name, gain in gains.items()}
    assert recommended(measured) == wanted


@pytest.fixture
def unmeasured(settings, monkeypatch):
    """Settings whose network is not measured, which takes seconds."""
    monkeypatch.setattr(doctor, "measure", lambda *_: {})
    return settings


def test_a_port_of_another_program_is_a_problem(unmeasured):
    assert problems_of(unmeasured) == []
    with socket.create_server(("127.0.0.1", unmeasured.port)) as taken:
        taken.settimeout(0)
        (problem,) = problems_of(unmeasured.model_copy(update={"port": unmeasured.port}))
    assert f"PORT={unmeasured.port} cannot be used" in problem


def test_an_ipv6_address_is_tried_as_one(unmeasured, monkeypatch):
    """Recorded and not bound: some machines have no IPv6."""
    tried = []

    def record(address, *, family):
        tried.append((address, family))
        return contextlib.nullcontext()

    monkeypatch.setattr(doctor.socket, "create_server", record)
    for host, family in (("::", socket.AF_INET6), ("::1", socket.AF_INET6), ("0.0.0.0", socket.AF_INET)):
        assert problems_of(unmeasured.model_copy(update={"host": host})) == []
        assert tried[-1] == ((host, unmeasured.port), family)


def test_a_clock_that_runs_behind_the_newest_file_is_a_problem(unmeasured):
    store_memory(unmeasured.models_dir, 1)
    assert problems_of(unmeasured) == []
    ahead = time.time() + 7200
    os.utime(unmeasured.models_dir / KEY.role_id / KEY.roi_id / "memory.npz", (ahead, ahead))
    (problem,) = problems_of(unmeasured)
    assert "2.0 h ahead" in problem


def test_weights_memory_disk_and_folder_are_looked_at(unmeasured, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 2**29)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: _Disk())
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)

    def refuse(settings):
        raise WeightsError("no verified weights")

    monkeypatch.setattr(doctor, "find_weights", refuse)
    found = examine(unmeasured, 0.01)
    assert len(found.problems) == 4
    for words in ("0.5 GB of memory", "cannot be written", "0.1 GB of the disk", "no verified weights"):
        assert any(words in problem for problem in found.problems), words
    assert found.recommended is None


class _Disk:
    free = 10**8


def test_a_problem_makes_the_exit_status_1(command_line, unmeasured, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(unmeasured.models_dir))
    monkeypatch.setenv("WEIGHTS", str(unmeasured.weights))
    monkeypatch.setenv("PORT", str(unmeasured.port))
    assert command_line("doctor")[0] == 0
    monkeypatch.setattr(doctor, "free_memory", lambda: 0)
    status, out, _ = command_line("doctor")
    assert (status, out.splitlines()[-1][:8]) == (1, "problem ")
    assert command_line("doctor", "--seconds", "0")[0] == 2
