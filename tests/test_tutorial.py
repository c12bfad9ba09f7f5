"""The tutorial is the same on Linux and on Windows, and its images can be written."""

import re
from pathlib import Path

import cv2
import pytest

from demo.folders import write_folders

ROOT = Path(__file__).parents[1]
_PAIR = re.compile(r"^```\n(.*?)^```\n```powershell\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


def _on_windows(line: str) -> str:
    """The line of a shell as PowerShell takes it."""
    if line == ". .venv/bin/activate":
        return r".venv\Scripts\Activate.ps1"
    words = [word if "://" in word else word.replace("/", "\\") for word in line.split(" ")]
    commands = {"curl": "curl.exe", "cp": "Copy-Item"}
    return " ".join([commands.get(words[0], words[0]), *words[1:]])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (". .venv/bin/activate", r".venv\Scripts\Activate.ps1"),
        ("cp a/* b", r"Copy-Item a\* b"),
        (
            "curl -F image=@a/1.png http://127.0.0.1:8000/infer",
            r"curl.exe -F image=@a\1.png http://127.0.0.1:8000/infer",
        ),
    ],
)
def test_a_line_for_windows_differs_by_paths_and_commands_alone(line: str, expected: str) -> None:
    assert _on_windows(line) == expected


def test_each_block_of_the_tutorial_has_its_lines_for_windows_below() -> None:
    pairs = _PAIR.findall(TUTORIAL)
    assert 4 * len(pairs) == len(re.findall(r"^```", TUTORIAL, re.MULTILINE)) > 0, "each block has its pair"
    for linux, windows in pairs:
        assert windows.splitlines() == [_on_windows(line) for line in linux.splitlines()]


def test_the_folders_of_the_tutorial_hold_what_it_says(tmp_path: Path) -> None:
    counts = write_folders(tmp_path / "cells")
    assert {path.name: count for path, count in counts.items()} == {"good": 40, "bad": 3, "parts": 12, "new-lamp": 12}
    files = {path.name: {file.name for file in path.iterdir()} for path in counts}
    assert {name: len(names) for name, names in files.items()} == {"good": 40, "bad": 3, "parts": 12, "new-lamp": 12}
    assert len(set().union(*files.values())) == 67, "no image lies in two folders"
    named = set(re.findall(r"cells/(\S+)/(cell\d+\.png)", TUTORIAL))
    assert {(folder, name) for folder, name in named if name not in files[folder]} == set()


def test_the_new_lamp_is_a_reflection_in_darker_light(tmp_path: Path) -> None:
    path = next(
        iter(sorted((next(folder for folder in write_folders(tmp_path) if folder.name == "new-lamp")).iterdir()))
    )
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    assert image[60:120, 60:120].mean() > image[180:240, 180:240].mean() + 60
