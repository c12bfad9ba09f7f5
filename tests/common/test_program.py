"""Help and messages name the command that the user typed."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from backend.common.program import program

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sysconfig.get_path("scripts")) / "roi-anomaly"


@pytest.mark.parametrize(
    ("first", "called"),
    [
        ("/srv/.venv/bin/roi-anomaly", "roi-anomaly"),
        ("/srv/backend/__main__.py", "python -m backend"),
        ("backend/__main__.py", "python -m backend"),
        ("/srv/.venv/bin/gunicorn", "roi-anomaly"),
        ("/srv/pytest/__main__.py", "roi-anomaly"),
        ("", "roi-anomaly"),
    ],
)
def test_the_program_is_called_as_it_was_started(first, called):
    assert program([first, "fit"]) == called


def test_a_process_without_arguments_is_called_by_the_command():
    assert program([]) == "roi-anomaly"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "called"),
    [([str(SCRIPT)], "roi-anomaly"), ([sys.executable, "-m", "backend"], "python -m backend")],
    ids=["script", "module"],
)
def test_help_can_be_copied_as_it_is_printed(command, called):
    shown = [
        subprocess.run([*command, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for words in ([], ["infer"])
    ]
    assert f"`{called} COMMAND --help`" in shown[0]
    assert f"usage: {called} infer " in shown[1]
    examples = re.findall(r"^  (.* Master1 .*)$", shown[1], re.MULTILINE)
    assert len(examples) == 5
    assert all(line.startswith(f"{called} infer Master1 Pattern ") for line in examples)
