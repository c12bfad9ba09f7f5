"""What this process may use of the machine, a container or a systemd unit: cores, memory, open files, the allocator."""

import contextlib
import ctypes
import importlib
import os
import platform
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_pool: ThreadPoolExecutor | None = None
# glibc serves threads from up to eight arenas per core, and gives back what lies free at the end of one. Requests run
# on changing threads, so that pieces of them stay in every arena, and what lies free between those is held. The service
# runs for months. Elsewhere than on glibc nothing is done about it.
_M_ARENA_MAX = -8  # malloc.h
_FEWEST_ARENAS = 2
_SOCKETS_OF_SELECT = 512  # that it watches on Windows, see `backend.commands.serve`
_MAX_PATH = 259  # of Windows, 260 with the zero behind it
# What asks a process to stop when its work is done. Windows has SIGTERM by name only; there it is Ctrl-Break.
STOP_SIGNAL: signal.Signals = getattr(signal, "SIGBREAK", signal.SIGTERM)


def usable_cores() -> int:
    """Cores that this process may use: those of its affinity mask, or fewer by a container's quota; at least 1."""
    process = psutil.Process()
    cores = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1
    quota, _, period = _read("cpu.max").partition(" ")  # "max 100000", or microseconds per period
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def free_memory() -> int:
    """Bytes this process can still take without swapping, and without being killed by a container's limit."""
    free = int(psutil.virtual_memory().available)
    limit, used = _read("memory.max").strip(), _read("memory.current").strip()
    if limit.isdigit() and used.isdigit():
        # Files that nobody reads any more count as used until their memory is wanted.
        fields = dict(line.split() for line in _read("memory.stat").splitlines() if line.count(" ") == 1)
        free = min(free, int(limit) - int(used) + int(fields.get("inactive_file", 0)))
    return max(0, free)


def raise_open_files() -> int:
    """Allow this process as many open files and connections as the system permits; returns their number."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows has no such limit, and its event loop one of its own
        return _SOCKETS_OF_SELECT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS allows less than its "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return int(soft) if soft != resource.RLIM_INFINITY else sys.maxsize


def longest_path() -> int | None:
    """Maximum number of characters in the path of a file; None if only the file system has a limit.

    Windows has one unless its setting ``LongPathsEnabled`` is on.
    """
    if sys.platform != "win32":
        return None
    asked = getattr(ctypes.WinDLL("ntdll"), "RtlAreLongPathsEnabled", None)  # not there before Windows 10
    return None if asked is not None and asked() & 0xFF else _MAX_PATH


def limit_threads(threads: int) -> None:
    """Limit the threads of the numeric libraries of this process: BLAS, OpenCV, OpenMP, and `shared_pool`."""
    global _pool
    # Here, since gunicorn's master counts cores and should stay small.
    import cv2
    import threadpoolctl

    with contextlib.suppress(ImportError):
        import faiss  # noqa: F401  (its own BLAS and OpenMP count once they are loaded)
    threadpoolctl.threadpool_limits(threads)
    cv2.setNumThreads(threads)
    # Its threads are the parallelism; OpenMP, whose limit is per thread, adds none.
    _pool = ThreadPoolExecutor(threads, "shared", threadpoolctl.threadpool_limits, (1, "openmp"))


def shared_pool() -> ThreadPoolExecutor:
    """Threads for pieces of one request's work, as many as `limit_threads` said; before that, one per usable core."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(usable_cores(), "shared")
    return _pool


def _read(name: str) -> str:
    try:
        return (_cgroup() / name).read_text(encoding="ascii")
    except OSError:  # no cgroup v2: another system, or no limit of its own
        return ""


def _cgroup() -> Path:
    """The folder with the limits of this process: that of its systemd unit, or the root inside a container."""
    own_cgroup = _OWN_CGROUP.read_text(encoding="utf-8", errors="surrogateescape")
    version_2 = [line for line in own_cgroup.splitlines() if line.startswith("0::/")]
    own = _CGROUP / version_2[0].removeprefix("0::/") if version_2 else _CGROUP
    return own if own.is_dir() else _CGROUP  # a container may be told its path on the machine


def limit_arenas() -> None:
    """Let threads share arenas, one per core they can run on; call before there are many threads."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, max(_FEWEST_ARENAS, usable_cores()))


def return_free_memory() -> None:
    """Return free memory of all arenas to the system; takes milliseconds."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    is_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if is_glibc else None
