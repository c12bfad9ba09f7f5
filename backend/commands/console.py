"""Output of commands: results to stdout, messages and progress bars to stderr."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from backend.common.errors import StorageError
from backend.common.telemetry import OnProgress

_STEERING = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"}


def shown(text: str) -> str:
    r"""The text in valid UTF-8: a byte of a file name that is not UTF-8 becomes an escape: ``\udce4`` is E4.

    >>> shown("M\udce4rz.png"), shown("März.png")
    ('M\\udce4rz.png', 'März.png')
    """
    return text.encode(errors="backslashreplace").decode()


def on_a_terminal(text: str) -> str:
    r"""The text as `shown`, without control characters for terminals, because names of files may have any character.

    >>> on_a_terminal("a\x1b[2J.png")
    'a\\x1b[2J.png'
    """
    return shown(text).translate(_STEERING)


def print_line(text: str) -> None:
    """Print to stdout at once; characters that its encoding lacks, such as odd bytes in file names, become escapes.

    Raises:
        StorageError: it cannot be written.
    """
    encoding = sys.stdout.encoding
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as exc:
        # Or the interpreter would try once more as it ends, and complain in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StorageError(f"standard output cannot be written ({exc.strerror})") from exc


def say(text: str) -> None:
    """Print a message to stderr at once."""
    print(on_a_terminal(text), file=sys.stderr, flush=True)


def count(number: int, name: str) -> str:
    """A number with its noun.

    >>> count(1, "image"), count(3, "image")
    ('1 image', '3 images')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of the others.

    >>> some(["a", "b"]), some(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def progress_bar(step: str, total: int, done: int = 0, unit: str = "image") -> "tqdm[Any]":
    """A progress bar on stderr; without a terminal, a line every ten seconds.

    Nothing is shown if there is nothing to do.
    """
    return tqdm(
        desc=step,
        total=total,
        initial=done,
        unit=unit,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        disable=total == 0,
    )


@contextlib.contextmanager
def step_bars() -> Iterator[OnProgress]:
    """A progress bar for each step of a fit."""
    with contextlib.ExitStack() as bars:
        bar: Any = None
        shown_step = ""

        def on_progress(step: str, done: int, total: int) -> None:
            nonlocal bar, shown_step
            if bar is None or shown_step != step:
                bars.close()
                shown_step = step
                bar = bars.enter_context(progress_bar(step, total, unit="embedding" if step == "coreset" else "image"))
            bar.update(done - bar.n)

        yield on_progress
