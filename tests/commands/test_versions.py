"""The commands `versions` and `rollback`."""

import json

import pytest

from backend.common.config import Settings
from backend.disk import memory_file
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import memory_of, served


class TestCommands:
    @pytest.fixture
    def run(self, changed, features, monkeypatch, command_line):
        for name in Settings.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv("MODELS_DIR", str(changed))
        return command_line

    def test_versions_are_printed_the_newest_first(self, run, changed, monkeypatch):
        monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("that needs no network"))
        status, printed, _ = run("versions", "Master1", "Pattern")
        versions = [json.loads(line) for line in printed.splitlines()]
        assert status == 0
        assert [(version["version"], version["calibrated"]) for version in versions] == [
            (3, False),
            (2, True),
            (1, False),
        ]
        assert versions[1]["threshold"] == 0.4
        assert run("versions", "Master1", "Nowhere") == (
            0,
            "",
            f"no earlier model of 'Master1', 'Nowhere' is kept; {changed} has Master1 Pattern\n",
        )
        assert run("versions", "Master1", "Pattern", "--recipe", "line 1")[:2] == (0, "")

    def test_a_roll_back_prints_what_is_served_and_refuses_what_there_is_not(self, run, changed, features, monkeypatch):
        def opened(settings):
            return InspectionService(settings, features, ModelStore(settings.models_dir))

        monkeypatch.setattr(InspectionService, "open", opened)
        monkeypatch.setattr("backend.service.roll_back.differences_from", lambda _features, _fitted: [])
        status, printed, _ = run("rollback", "Master1", "Pattern", "--version", "2")
        assert status == 0
        assert json.loads(printed) == {
            "version": 2,
            "memory_id": memory_file.memory_id(memory_of(1)),
            "calibration": "applied",
            "threshold": 0.4,
            "coreset_size": 20,
            "token_shape": [4, 5],
        }
        assert served(changed) == (1, 0.4)
        assert run("rollback", "Master1", "Pattern")[0] == 0
        assert served(changed) == (2, 0.6)
        assert "has no version 9" in run("rollback", "Master1", "Pattern", "--version", "9")[2]
        assert "no model of its own" in run("rollback", "Master1", "Pattern", "--recipe", "line 1")[2]
        assert run("rollback", "Master1", "Pattern", "--version", "0")[0] == 2
