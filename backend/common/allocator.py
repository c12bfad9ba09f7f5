"""The C library's allocator, kept from holding on to memory that nobody uses: the service runs for months.

glibc serves threads from up to eight arenas per core, and gives back what lies free at the end of one. Requests run on
changing threads, so that pieces of them stay in every arena, and what lies free between those is held. Elsewhere than
on glibc nothing here does anything.
"""

import ctypes
import platform
from functools import cache

from backend.common.resources import usable_cores

_M_ARENA_MAX = -8  # malloc.h
_FEWEST_ARENAS = 2


def limit_arenas() -> None:
    """Let threads share arenas, one per core they can run on; call before there are many threads."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, max(_FEWEST_ARENAS, usable_cores()))


def return_free_memory() -> None:
    """Give memory that lies free in any arena back to the system; takes milliseconds."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
