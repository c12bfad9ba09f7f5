"""What is installed: pinned, checked by hash, and past the known holes of what parses uploads."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINNED, HASHED = "backend/requirements.txt", "requirements/hashed.txt"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))?(?: \\)?$", re.MULTILINE)

# The first version past the published advisories, of everything that reads what a client sends or a file holds.
# Newer advisories: `pip-audit -r backend/requirements.txt`, which needs the internet.
PAST_KNOWN_HOLES = {
    "python-multipart": ("0.0.18", "CVE-2024-53981: endless logging over malformed boundaries"),
    "starlette": ("0.49.1", "CVE-2025-62727: quadratic time over Range headers; CVE-2024-47874: unbounded form parts"),
    "fastapi": ("0.109.1", "CVE-2024-24762: quadratic time over Content-Type"),
    "uvicorn": ("0.11.7", "CVE-2020-7695: response splitting; CVE-2020-7694: log injection"),
    "httptools": ("0.6.2", "CVE-2024-27982: request smuggling by its llhttp; CVE-2022-32213 to -32215, too"),
    "h11": ("0.16.0", "CVE-2025-43859: lenient chunked bodies, request smuggling"),
    "gunicorn": ("23.0.0", "CVE-2024-1135, CVE-2024-6827: request smuggling"),
    "pillow": ("11.3.0", "CVE-2025-48379: heap overflow; CVE-2023-4863: libwebp"),
    "opencv-python-headless": ("4.12.0", "CVE-2025-53644: uninitialised pointer over JPEG; CVE-2023-4863: libwebp"),
    "numpy": ("1.22.2", "CVE-2021-41495 and -41496"),
    "pydantic": ("2.4.0", "CVE-2024-3772: quadratic time over e-mail addresses"),
    "filelock": ("3.20.1", "CVE-2025-68146: a link in the place of the lock"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206"),
    "torch": ("2.6.0", "CVE-2025-32434: code in weights loaded with torch.load"),
}


def pins(name: str) -> dict[tuple[str, str], str]:
    """Version by distribution and environment marker."""
    return {(match[1], match[3] or ""): match[2] for match in PIN.finditer((ROOT / name).read_text())}


def test_every_file_that_is_installed_is_checked_against_its_hash() -> None:
    text = (ROOT / HASHED).read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) == len(pins(HASHED))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)
    assert pins(HASHED) == pins(PINNED)


def direct(name: str) -> set[str]:
    """The distributions that a file names itself, without their versions."""
    lines = (re.split(r"\[|==|;", line)[0].strip() for line in (ROOT / name).read_text().splitlines())
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_every_direct_requirement_is_pinned() -> None:
    assert direct("requirements/service.in") <= {name for name, _ in pins(PINNED)}


@pytest.mark.parametrize(
    "name",
    [
        "requirements/service.in",
        "backend/requirements-torch.txt",
        "backend/requirements-mqtt.txt",
        "requirements/cluster.txt",
        "requirements/ray.txt",
        "demo/requirements.txt",
    ],
)
def test_the_licence_of_every_direct_requirement_is_listed(name: str) -> None:
    section = (ROOT / "THIRD_PARTY.md").read_text().split(f"(`{name}`):")[1].split("\n\n")[1]
    assert set(re.findall(r"^\| ([a-z][a-z0-9-]*) \| \S", section, re.MULTILINE)) - {"package"} == direct(name)


@pytest.mark.parametrize("name", PAST_KNOWN_HOLES)
def test_what_parses_uploads_is_past_its_known_holes(name: str) -> None:
    versions = [
        version
        for file in (PINNED, "backend/requirements-torch.txt")
        for (pinned, _), version in pins(file).items()
        if pinned == name
    ]
    floor, why = PAST_KNOWN_HOLES[name]
    assert versions
    assert all(Version(version) >= Version(floor) for version in versions), why


def test_what_builds_the_project_is_pinned_by_hash_and_new_enough() -> None:
    listed = re.findall(r'^requires = \["(.+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    (needed,) = map(Requirement, listed)
    assert pins(HASHED)[needed.name, ""] in needed.specifier


@pytest.mark.parametrize("name", ["Makefile", "docker/Dockerfile"])
def test_the_project_is_installed_with_nothing_downloaded(name: str) -> None:
    installs = re.findall(r"pip install .*", (ROOT / name).read_text())
    (own,) = (line for line in installs if " -r " not in line)
    assert {"--no-index", "--no-deps", "--no-build-isolation"} <= set(own.split())
    (service,) = (line for line in installs if "--require-hashes" in line)
    assert installs.index(service) < installs.index(own), "what builds it comes with the hashes"
