"""Simulates on Linux what Windows refuses for open files: to replace, rename or delete them, or their folders."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

IS_POSSIBLE = Path("/proc/self/fd").is_dir() or sys.platform == "win32"
_IN_USE = 13, "the process cannot access the file because it is being used by another process"


def refusing(action: Callable[..., Any]) -> Callable[..., Any]:
    """`os.replace`, `os.unlink` or another function of files, refused for those that this process has open.

    Args:
        action: its positional arguments are paths.
    """

    def refuse_or_do(*paths: Any, dir_fd: int | None = None, **options: Any) -> Any:
        for path in paths:
            if _is_in_use(path, dir_fd):
                raise PermissionError(*_IN_USE, str(path))
        return action(*paths, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

    return refuse_or_do


def _is_in_use(path: Any, dir_fd: int | None) -> bool:
    try:
        wanted = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:  # not there
        return False
    place = None if dir_fd is not None else Path(path).resolve()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            opened, name = entry.stat(), entry.readlink()
        except OSError:  # closed since
            continue
        if name.is_dir():  # as the standard library has folders open that it deletes from
            continue
        is_it = (opened.st_dev, opened.st_ino) == (wanted.st_dev, wanted.st_ino)
        if is_it or (place is not None and place in name.parents):
            return True
    return False
