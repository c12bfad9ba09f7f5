"""The documents say what the code does."""

import json
import re
from pathlib import Path

import pytest
import uvicorn

from backend.commands.records import Conditions, Record, RecordFile
from backend.common.config import Settings

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


def test_the_manual_lists_every_column_of_a_record(tmp_path: Path) -> None:
    table = MANUAL.split("| column | |")[1].split("\n\n")[0]
    names = (name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0]))
    record = Record("1.png", None, Conditions(None, "none", 99, None, 1, None, 1, "", "", ""), ms=1)
    for file in (tmp_path / "r.jsonl", tmp_path / "r.csv"):
        with RecordFile.opened(file, restart=False) as records:
            records.append(record)
    header = (tmp_path / "r.csv").read_text().splitlines()[0]
    assert set(names) == set(json.loads((tmp_path / "r.jsonl").read_text())) | set(header.split(","))


def test_the_nginx_example_agrees_with_the_service_that_it_stands_before() -> None:
    example = (ROOT / "docker" / "nginx.conf").read_text(encoding="utf-8")
    directives = dict(re.findall(r"^ *([a-z_]+) ([^;{]+);", example, re.MULTILINE))
    assert directives["client_max_body_size"] == f"{Settings.model_fields['max_request_mb'].default}m"
    assert f"server 127.0.0.1:{Settings.model_fields['port'].default};" in example
    idle_s = uvicorn.Config("").timeout_keep_alive
    assert int(directives["keepalive_timeout"].removesuffix("s")) < idle_s, "or nginx sends on closed connections"


def test_the_readmes_link_to_files_that_exist() -> None:
    for document in (ROOT / "README.md", ROOT / "backend" / "README_backend.md"):
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
        assert all((document.parent / link).exists() for link in links)
