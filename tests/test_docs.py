"""The documents say what the code does."""

import re
from pathlib import Path

import pytest

from backend.config import Settings

ROOT = Path(__file__).parents[1]
MANUAL = (ROOT / "backend" / "README_backend.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_manual_lists_every_setting_with_its_default(name: str) -> None:
    row = re.search(rf"^\| `{name.upper()}` \| ?(.*?) ?\| (.+) \|$", MANUAL, re.MULTILINE)
    assert row is not None
    default = Settings.model_fields[name].default
    said = row[1].strip("`")
    if name == "weights_cache":
        assert said == "the user's cache folder"
    elif isinstance(default, bool):
        assert said == str(default).lower()
    elif isinstance(default, float | int):
        assert float(said) == default
    else:
        assert said == str(default or "")


def test_the_manual_lists_no_setting_that_does_not_exist() -> None:
    table = MANUAL.split("## Settings")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", table, re.MULTILINE))
    assert listed == {name.upper() for name in Settings.model_fields}


def test_the_readmes_link_to_files_that_exist() -> None:
    for document in (ROOT / "README.md", ROOT / "backend" / "README_backend.md"):
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
        assert all((document.parent / link).exists() for link in links)
