"""What is installed on Windows, by the markers of the pins: all that it needs, and nothing that is not for it."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
# Distributions without a wheel for Windows.
POSIX_ONLY = {"gunicorn", "uvloop"}


def on_windows(python: str) -> dict[str, str]:
    """What markers are compared with, on a PC with Windows."""
    return {
        **default_environment(),
        "os_name": "nt",
        "sys_platform": "win32",
        "platform_system": "Windows",
        "platform_machine": "AMD64",
        "platform_python_implementation": "CPython",
        "python_version": python,
        "python_full_version": f"{python}.1",
        "extra": "",
    }


def pinned(name: str, python: str) -> dict[str, str]:
    """Version by distribution, of the pins that hold on Windows."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (re.split(r"\s--hash=", line)[0].strip() for line in text.splitlines())
    found: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(("#", "-")):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(on_windows(python)):
                assert canonicalize_name(requirement.name) not in found, f"{line}: two versions at once"
                found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("name", ["backend/requirements.txt", "requirements/hashed.txt"])
@pytest.mark.parametrize("python", PYTHONS)
def test_pins_for_windows_leave_out_what_has_no_wheel_there(name: str, python: str) -> None:
    found = pinned(name, python)
    assert not POSIX_ONLY & found.keys()
    assert {"colorama", "fastapi", "faiss-cpu", "numpy", "openvino", "uvicorn"} <= found.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_what_pinned_distributions_need_on_windows_is_pinned_too(python: str) -> None:
    """By the metadata of what is installed here; colorama is what click and tqdm need there and not here."""
    found = pinned("backend/requirements.txt", python)
    needed: dict[str, set[str]] = {}
    for name, version in found.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for Windows only, or for another Python
            continue
        if installed.version != version:
            continue
        for text in installed.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(on_windows(python)):
                needed.setdefault(canonicalize_name(requirement.name), set()).add(name)
    assert "colorama" in needed
    assert {name: by for name, by in needed.items() if name not in found} == {}


def test_pins_beside_those_of_windows_are_marked_for_posix() -> None:
    """Nothing is left out on Windows but what `POSIX_ONLY` names, and what is for other systems than these."""
    text = (ROOT / "backend" / "requirements.txt").read_text(encoding="utf-8")
    names = {canonicalize_name(line.split("==")[0]) for line in text.splitlines() if "==" in line}
    for_some = set().union(*(pinned("backend/requirements.txt", python) for python in PYTHONS))
    assert names - for_some == {*POSIX_ONLY, "httpx2-jsfetch"}  # the last of which is for browsers
