"""Real browsers: Chromium by playwright, and Firefox, which opens a page that posts what it found."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from backend.network.weights import Weights
from harness.browser import FIREFOX, HEADLESS, installed
from harness.pages import PageServer
from harness.server import Server, serving
from tests.console.line import FULL, INFER, Parts, Serve, prepare

PAGES = Path(__file__).parent / "pages"
"""What the browsers are shown."""
_PAGE_S = 180
_STOP_S = 20

Visit = Callable[[PageServer, str], None]
"""Opens a page of the server in a browser, and waits until it posted ``/results/done``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--renew-looks`: take the screenshots anew that `test_looks` compares with."""
    parser.addoption("--renew-looks", action="store_true", help="keep what the console looks like now as what it shall")


def _program(names: tuple[str, ...]) -> str:
    found = installed(names)
    if found is None:
        pytest.fail(f"none of {', '.join(names)} is installed: apt-get install chromium-headless-shell firefox-esr")
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A playwright browser."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=_program(HEADLESS), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def launch(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Launches another Chromium, with these options of its command line beside the usual ones."""
    with contextlib.ExitStack() as browsers:

        def launch(*options: str) -> Any:
            browser = chromium.browser_type.launch(executable_path=_program(HEADLESS), args=["--no-sandbox", *options])
            return browsers.enter_context(contextlib.closing(browser))

        yield launch


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def visit(request: pytest.FixtureRequest) -> Visit:
    """Each browser in turn."""
    if request.param == "firefox":
        return visit_in_firefox
    browser = request.getfixturevalue("chromium")

    def visit(server: PageServer, path: str) -> None:
        with contextlib.closing(browser.new_page()) as page:
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: message.type == "error" and errors.append(message.text))
            page.goto(server.address + path)
            page.get_by_text("done", exact=True).wait_for(timeout=_PAGE_S * 1000)
            assert errors == []  # among them all that the page's policy forbids

    return visit


def visit_in_firefox(server: PageServer, path: str, **preferences: bool) -> None:
    """Open a page in a fresh Firefox.

    Args:
        server: of the page.
        path: of the page.
        preferences: as in about:config, with ``__`` for a dot.
    """
    lines = [f'user_pref("{name.replace("__", ".")}", {str(on).lower()});' for name, on in preferences.items()]
    with tempfile.TemporaryDirectory(prefix="firefox-") as profile:
        (Path(profile) / "user.js").write_text("\n".join(lines), encoding="utf-8")
        command = [_program(FIREFOX), "--headless", "--no-remote", "--profile", profile, server.address + path]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert server.done.wait(_PAGE_S), "the page in Firefox did not come to its end"
        finally:
            process.terminate()
            process.wait(_STOP_S)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Real parts as files."""
    return Parts(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="session")
def serve(weights: Weights) -> Serve:
    """Starts a service in a process of its own, on the real weights; at half the usual size, if the test names none."""
    return partial(serving, WEIGHTS=str(weights.path), DEVICE="cpu", INPUT_SIZE="224")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, serve: Serve, parts: Parts) -> Path:
    """A models folder with a ROI that is fitted and calibrated on `parts`; its tests only read it."""
    folder = tmp_path_factory.mktemp("models")
    with serve(folder=folder) as server:
        prepare(server, parts)
    return folder / "models"


@pytest.fixture
def judging(models: Path, serve: Serve, tmp_path: Path) -> Iterator[Server]:
    """A service on a copy of `models`."""
    shutil.copytree(models, tmp_path / "models")
    with serve(folder=tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def locked(models: Path, serve: Serve) -> Iterator[Server]:
    """A service on `models` that has keys: `FULL` and `INFER`."""
    with serve(MODELS_DIR=str(models), API_KEYS=FULL, INFER_KEYS=INFER) as server:
        yield server
