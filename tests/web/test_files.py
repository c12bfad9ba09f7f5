"""What the console consists of: its own files, small enough, and in the wheel."""

import gzip
import posixpath
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from backend import web
from backend.web import console_files

FILES = console_files()
ROOT = Path(web.__file__).parents[2]
MOST_BYTES = {"first screen": 80_000, "from the pictures to a line": 150_000, "all": 230_000}
"""Of the files, compressed one at a time as the service sends them; with the largest catalogue, where one is loaded."""
WORKER = "pixels/cut-worker.js"
JOURNEY = ("line", "roi", "samples", "threshold", "inspect", "health")
"""The screens of one ROI. Live, Review and layouts of another program are loaded by those who open them."""


def scripts():
    return {path: content.decode() for path, content in FILES.items() if path.endswith(".js")}


def imported(path):
    """What a script imports before it runs, and what that imports."""
    found, open_ = set(), [path]
    while open_:
        path = open_.pop()
        if path in found:
            continue
        found.add(path)
        names = re.findall(r'^(?:import|export) [^;]*?"(\.[^"]+)";', FILES[path].decode(), re.MULTILINE)
        open_ += [posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) for name in names]
    return found


def test_the_console_is_small_enough_to_be_loaded_over_a_poor_line():
    catalogue = max((path for path in FILES if path.startswith("texts/")), key=lambda path: len(FILES[path]))
    first = imported("main.js") | imported("screens/line.js") | {path for path in FILES if not path.endswith(".js")}
    assert {path for path in first if path.startswith("texts/")} == set()  # the one in use is loaded by its name
    first |= {catalogue}
    journey = first.union(imported(WORKER), *(imported(f"screens/{screen}.js") for screen in JOURNEY))
    assert "screens/live.js" not in journey
    sizes = {
        name: sum(len(gzip.compress(FILES[path])) for path in paths)
        for name, paths in zip(MOST_BYTES, (first, journey, FILES), strict=True)
    }
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES[name]} == {}


def test_every_script_is_checked_for_types():
    assert {path for path, text in scripts().items() if not text.startswith("// @ts-check\n")} == set()


def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_html():
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3\.org/)"
    )
    found = {path: forbidden.findall(content.decode()) for path, content in FILES.items()}
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.slow
def test_the_wheel_contains_every_file_of_the_console(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "copy"
    for name in ("pyproject.toml", "README.md", "backend"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).symlink_to(ROOT / name)
    subprocess.run([*build, "-w", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name.removeprefix("backend/web/") for name in zipfile.ZipFile(wheel).namelist() if "/web/" in name}
    assert packed >= set(FILES)
