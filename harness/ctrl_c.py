"""Ctrl-C as in a terminal. Tests may run in a background job of a shell, which ignores it."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def ctrl_c_is_heard() -> Iterator[None]:
    """Let Ctrl-C end this process, and those that are started meanwhile, unless they handle it themselves.

    Call it in the main thread. It replaces ``preexec_fn``, which is not safe in a process with threads.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
