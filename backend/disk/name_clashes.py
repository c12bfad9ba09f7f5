"""Folders that a file system also opens by other names: it ignores case, or keeps short names (``MASTER~1``).

No two ids have the same folder name, see `layout`. On such file systems, they would still share one folder. If a folder
can be opened by a name, but is not listed under this name, it belongs to another id.
"""

from pathlib import Path
from urllib.parse import unquote

from backend.common.errors import InvalidRequest


def refuse_clashes(root: Path, folder: Path) -> None:
    """Refuse a folder, or one above it, that belongs to another id.

    Args:
        root: the models folder.
        folder: below it; it may be missing.

    Raises:
        InvalidRequest: it belongs to another id.
    """
    parent = root
    for name in folder.relative_to(root).parts:
        try:
            if not (parent / name).exists():
                return
            is_its_own = any(entry.name == name for entry in parent.iterdir())
        except OSError:  # whoever opens it says why
            return
        if not is_its_own:
            raise InvalidRequest(
                f"the file system of MODELS_DIR takes {unquote(name)!r} for another stored id: the two differ only "
                "in upper and lower case, or one is a short name of the other; use other ids"
            )
        parent /= name
