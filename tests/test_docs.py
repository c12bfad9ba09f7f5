"""The documents say what the code does."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import uvicorn

from backend.commands.main import _parser
from backend.commands.records import Conditions, Record, RecordFile
from backend.common.config import Settings

ROOT = Path(__file__).parents[1]
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
COMMAND_LINE = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
PAGES = (*sorted(ROOT.glob("*.md")), ROOT / "backend" / "README_backend.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_manual_lists_every_setting_with_its_default(name: str) -> None:
    row = re.search(rf"^\| `{name.upper()}` \| ?(.*?) ?\| (.+) \|$", SETTINGS, re.MULTILINE)
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
    listed = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", SETTINGS, re.MULTILINE))
    assert listed == {name.upper() for name in Settings.model_fields}


def test_the_manual_lists_every_column_of_a_record(tmp_path: Path) -> None:
    table = COMMAND_LINE.split("| column | |")[1].split("\n\n")[0]
    names = (name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0]))
    by_regions = Conditions(None, "none", 99, None, 1, None, 1, "", "", "", decide_by="region")
    record = Record("1.png", None, by_regions, ms=1, heatmap="m.png", overlay="o.png")
    for file in (tmp_path / "r.jsonl", tmp_path / "r.csv"):
        with RecordFile.opened(file, restart=False) as records:
            records.require(by_regions)
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


def _prose(page: Path) -> str:
    return re.sub(r"^(`{3,}).*?^\1`*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings, by the names that GitHub gives them, and its ids."""
    prose = _prose(page)
    anchors = set(re.findall(r'<a (?:id|name)="([^"]+)"', prose))
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", prose, re.MULTILINE):
        text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(1)))
        anchors.add(next(free for free in names if free not in anchors))
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _prose(page)):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## How a score is made", "how-a-score-is-made"),
        ("### `POST /calibrate_ng` (JSON)", "post-calibrate_ng-json"),
        ("## One, two, four ##", "one-two-four"),
        ("# [Größe](size.md) × 2", "größe--2"),
    ],
)
def test_anchors_are_those_that_github_makes(heading: str, anchor: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f'{heading}\n```\n# no heading\n```\n{heading}\n<a id="own"></a>\n', encoding="utf-8")
    assert _anchors(page) == {anchor, f"{anchor}-1", "own"}


def _curl_examples(page: Path) -> set[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {line for kind, block in blocks if not kind and "curl " in block for line in block.splitlines()}


def test_curl_examples_are_the_same_on_every_page() -> None:
    examples = _curl_examples(ROOT / "backend" / "README_backend.md")
    pages = [ROOT / "docs" / name for name in ("api.md", "operation.md")]
    explained = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert {line for line in examples if line not in explained} == set()
    assert set().union(*map(_curl_examples, pages)) - examples == set()


_ACTIVATE = ". .venv/bin/activate"
_ACTIVATE_ON_WINDOWS = r".venv\Scripts\Activate.ps1"
_COMMAND = re.compile(
    r"roi-anomaly (?:serve|weights|inspect|fit|calibrate|infer|watch|feedback|evaluate|versions|rollback"
    r"|migrate|models)\b"
)
_OF_THE_ENVIRONMENT = re.compile(rf"(?<![/ ])(?:{_COMMAND.pattern}|python -m (?:benchmarks|demo|harness|soak)\b)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_with_commands_says_how_a_terminal_finds_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace(_ACTIVATE_ON_WINDOWS, _ACTIVATE)
    to_copy = re.search(rf"^{_OF_THE_ENVIRONMENT.pattern}", text, re.MULTILINE)
    if to_copy is not None:
        assert 0 <= text.find(_ACTIVATE) < to_copy.start(), "before the first that is copied"
    elif _OF_THE_ENVIRONMENT.search(text) is not None:
        assert _ACTIVATE in text or "command_line.md#command-line" in text


def test_each_window_on_windows_has_the_environment_and_the_models() -> None:
    text = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    install, first, second = (block for block in blocks if re.search(rf"^{_COMMAND.pattern}", block, re.MULTILINE))
    assert _ACTIVATE_ON_WINDOWS in install.splitlines()
    models = first.splitlines()[0]
    assert models.startswith("$env:MODELS_DIR = ")
    assert second.splitlines()[:2] == [_ACTIVATE_ON_WINDOWS, models]


def test_readme_has_the_windows_commands_of_the_windows_page_in_order() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    windows = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8").splitlines()
    block = next(b for b in re.findall(r"^```\n(.*?)^```$", readme, re.M | re.S) if _ACTIVATE_ON_WINDOWS in b)
    lines = block.splitlines()
    places = [windows.index(line) for line in lines]
    assert places == sorted(places)
    assert lines[0].startswith("py ")
    assert lines[-1] == "roi-anomaly serve"
    assert "make" not in block


@pytest.mark.parametrize("page", ["README.md", "docs/windows.md"])
def test_first_requests_are_shown_in_the_order_in_which_they_work(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"^```\n(.*?)^```$", text, re.M | re.S) if "/fit_ok" in block)
    assert re.findall(r":8000/(\w+)", block) == ["fit_ok", "calibrate_ng", "infer"]


def test_the_other_way_to_start_commands_is_named_once() -> None:
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md"}
    named = {name: text.count("python -m backend") for name, text in texts.items() if "python -m backend" in text}
    assert named == {"command_line.md": 1}


def _command_lines() -> list[str]:
    blocks = (re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S) for page in PAGES)
    shell = "".join(block for language, block in itertools.chain.from_iterable(blocks) if not language)
    lines = re.sub(r" *\\\n *", " ", shell).splitlines()
    return [line[match.start() :] for line in lines if (match := _COMMAND.search(line)) and "…" not in line]


def test_every_command_line_of_the_pages_is_one_that_the_parser_takes() -> None:
    lines = _command_lines()
    assert {shlex.split(line)[1] for line in lines} >= {"inspect", "fit", "calibrate", "infer", "evaluate", "migrate"}
    for line in lines:
        _parser().parse_args(shlex.split(line, comments=True)[1:])
