"""The network alone, in its own process: the reference for measurements of servers."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from backend.common.config import Settings, load_settings
from backend.features import preprocess
from backend.network.runtimes import open_runtime
from backend.network.weights import find_weights
from harness.images import solar_cells


@contextlib.contextmanager
def bare_forward(**overrides: str) -> Iterator[Callable[[], float]]:
    """The network alone: a call runs one forward pass of the runtime that a server would open and returns its seconds.

    It runs in a second process, so that neither Python's lock nor other threads are in its way.

    Args:
        overrides: settings beside those of the environment.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_forward_on_demand, args=(theirs, load_settings(**overrides)), daemon=True)
    process.start()
    theirs.close()

    def forward() -> float:
        ours.send(None)
        seconds: float = ours.recv()
        return seconds

    try:
        forward()  # the first pass allocates
        yield forward
    finally:
        ours.close()
        process.join()


def _forward_on_demand(connection: Connection, settings: Settings) -> None:
    runtime, _ = open_runtime(settings, find_weights(settings))
    pixels = preprocess(solar_cells(1)[0], settings.input_size)[None]
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            start = time.perf_counter()
            runtime.forward(pixels)
            connection.send(time.perf_counter() - start)
