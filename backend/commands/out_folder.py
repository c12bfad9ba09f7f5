"""The folder of ``--out``."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from backend.common.errors import InvalidRequest


@contextlib.contextmanager
def out_folder(folder: Path) -> Iterator[None]:
    """Make the folder before the long work; if the work fails and the new folder is empty, it is removed.

    Raises:
        InvalidRequest: it cannot be made.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidRequest(f"--out {folder}: the folder cannot be made ({exc.strerror})") from exc
    try:
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # it has files to go on with, or somebody put one there
                folder.rmdir()
        raise
