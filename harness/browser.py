"""The browsers that this program starts: which are installed, and the memory of their processes."""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence

import psutil

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
HEADLESS = ("chromium-headless-shell", *CHROMIUM)
"""The headless shell first: it draws no window around each page, which takes a third of the processor time."""
FIREFOX = ("firefox-esr", "firefox")
_SAMPLE_S = 0.2


def installed(names: Sequence[str]) -> str | None:
    """The path of the first of these programs that is installed; None where none is."""
    return next(filter(None, map(shutil.which, names)), None)


def processor_s() -> float:
    """Seconds that the processes which this program started have computed, browsers and services alike."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            times = process.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def peak_mb() -> Iterator[Callable[[], float]]:
    """Tells the most MB that the processes of Chromium had together until then; what they share counts once."""
    over, most = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(_SAMPLE_S):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                    if "chrom" in process.name():
                        total += process.memory_full_info().pss
            most[0] = max(most[0], total / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        thread.join()
