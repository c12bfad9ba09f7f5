"""Help describes every command, and errors name the folder that they are about."""

import argparse
import tempfile

import pytest

from backend.commands.main import _parser
from backend.common.errors import StorageError
from backend.service.inspection import InspectionService
from tests.commands.parts import ROI

COMMANDS = [
    command
    for action in _parser()._actions
    if isinstance(action, argparse._SubParsersAction)
    for command in action.choices
]


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help_describes_every_command(run, command):
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert f"usage: roi-anomaly {' '.join(command)}".rstrip() in out
    if command and command[0] in ("fit", "calibrate", "infer"):
        assert f"roi-anomaly {command[0]} Master1 Pattern" in out, "an example"


@pytest.mark.parametrize("url", [None, "s3://factory/models"])
def test_an_error_of_the_models_folder_says_which_one_it_is(run, work, monkeypatch, url):
    def full(_settings):
        raise StorageError("the model cannot be stored (No space left on device); check the models folder")

    monkeypatch.setattr(InspectionService, "open", full)
    if url is not None:
        monkeypatch.setenv("MODELS_URL", url)
    status, _, err = run("infer", *ROI, "parts")
    assert status == 1
    folder = work / "models" if url is None else tempfile.gettempdir()
    assert str(folder) in err
    assert ("MODELS_DIR" in err, "MODELS_URL" in err) == (url is None, url is not None)
