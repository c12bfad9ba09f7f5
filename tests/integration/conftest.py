"""Real servers: uvicorn in a process of its own, and gunicorn with two workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.network.weights import Weights
from harness.gui import Gui
from harness.server import Command, Server, serving, uvicorn_command

SIDE = 8
TOKENS = SIDE**2
PICKS_OF_TWO, PICKS_OF_TEN = ceil(0.02 * 2 * TOKENS), ceil(0.02 * 10 * TOKENS)
"""Patches in the memory bank of so many images, at the contract's coreset rate."""
SMALL = str(14 * SIDE)
"""``INPUT_SIZE`` of tests that do not ask how good the scores are: a quarter of the usual side."""
HALF = "224"
"""``INPUT_SIZE`` of tests in which a request arrives while another one is under way."""
FULL = "448"
"""``INPUT_SIZE`` of tests of good scores, and of fits in whose middle something happens."""


@contextmanager
def running(command: Command, folder: Path, weights: Weights, **environment: str) -> Iterator[Server]:
    """A server that answers, and that must end when it is told to."""
    # What the developer's machine is set to must not reach the servers of the tests.
    settings = {"DEVICE": "cpu", "WEIGHTS": str(weights.path), "INPUT_SIZE": SMALL, **environment}
    with serving(command, folder, as_set=False, **settings) as server:
        yield server
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Server]:
    with running(uvicorn_command, tmp_path_factory.mktemp("uvicorn"), weights) as server:
        yield server


@pytest.fixture(scope="session")
def gui(server: Server) -> Gui:
    return server.gui


@pytest.fixture(scope="session")
def crops(images: list[np.ndarray]) -> list[bytes]:
    """Real images as the GUI crops them: PNG in BGRA, here 300×240."""
    resized = [cv2.resize(image, (300, 240), interpolation=cv2.INTER_AREA) for image in images]
    return [cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_BGR2BGRA))[1].tobytes() for image in resized]


@pytest.fixture(scope="session")
def fitted(gui: Gui, crops: list[bytes]) -> tuple[str, str]:
    """A role and roi that were fitted on two crops and never calibrated."""
    reply = gui.fit("Shared", "Fitted", crops[:2])
    assert reply.status == 200, reply.content
    return "Shared", "Fitted"
