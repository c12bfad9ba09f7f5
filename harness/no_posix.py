"""Runs a module without functions of POSIX systems: ``python -m harness.no_posix MODULE [ARGUMENT ...]``.

The functions that Python for Windows lacks are missing: modules, attributes of `os` and `signal`, and signal handlers
of event loops. The system itself does not change, so a few names that libraries use on this system stay.
"""

import asyncio
import os
import runpy
import signal
import sys
from typing import Any

# Before anything is taken away: they use it on this system.
import numpy  # noqa: F401
import platformdirs  # noqa: F401
import psutil  # noqa: F401

MODULES = (
    *("crypt", "fcntl", "grp", "nis", "ossaudiodev", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios"),
    *("tty", "gunicorn", "uvloop"),
)
OS_NAMES = (
    *("O_CLOEXEC", "O_DIRECT", "O_DIRECTORY", "O_DSYNC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_SYNC"),
    *("O_TMPFILE", "chown", "chroot", "copy_file_range", "ctermid", "eventfd", "fchdir", "fchown", "fdatasync"),
    *("fork", "forkpty", "fpathconf", "fstatvfs", "getegid", "geteuid", "getgid", "getgrouplist", "getgroups"),
    *("getloadavg", "getpgid", "getpgrp", "getpriority", "getrandom", "getsid", "getuid", "getxattr", "initgroups"),
    *("killpg", "lchown", "listxattr", "lockf", "makedev", "memfd_create", "mkfifo", "mknod", "nice", "openpty"),
    *("pathconf", "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn", "posix_spawnp", "pread"),
    *("preadv", "pwrite", "pwritev", "readv", "register_at_fork", "sched_getaffinity", "sched_setaffinity"),
    *("sched_yield", "sendfile", "setgid", "setpgid", "setpriority", "setsid", "setuid", "setxattr", "splice"),
    *("statvfs", "sync", "sysconf", "ttyname", "uname", "wait", "wait3", "wait4", "waitid", "writev"),
)
SIGNALS = (
    *("SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGIO", "SIGKILL", "SIGPIPE", "SIGPROF", "SIGQUIT"),
    *("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "alarm"),
    *("getitimer", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigwait"),
)


def take_away() -> None:
    """Take away from this process what Windows does not have, and give it Ctrl-Break."""
    vars(signal)["SIGBREAK"] = signal.SIGUSR1  # the number of another signal
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # which makes its import fail
    for module, names in ((os, OS_NAMES), (signal, SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for loop in (asyncio.SelectorEventLoop, asyncio.BaseEventLoop):
        loop.add_signal_handler = _not_implemented  # type: ignore[method-assign,assignment]


def _not_implemented(*_arguments: Any) -> None:
    raise NotImplementedError


if __name__ == "__main__":
    take_away()
    # uvicorn adds Ctrl-Break on Windows to the signals that stop it.
    import uvicorn.server

    from backend.common.machine import STOP_SIGNAL

    vars(uvicorn.server)["HANDLED_SIGNALS"] = (*uvicorn.server.HANDLED_SIGNALS, STOP_SIGNAL)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
