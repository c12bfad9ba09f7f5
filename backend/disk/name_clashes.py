"""Folders that a file system opens by other names than their own: it ignores case, or keeps short ones (``MASTER~1``).

No two ids have one folder name, see `layout`. There they would have one folder all the same. What is asked for by name
is there, then, and not listed under that name: it is another's.
"""

from pathlib import Path
from urllib.parse import unquote

from backend.common.errors import InvalidRequest


def refuse_clashes(root: Path, folder: Path) -> None:
    """Refuse a folder, or one above it, that belongs to another id.

    Args:
        root: the models folder.
        folder: below it; need not be there.

    Raises:
        InvalidRequest: it does.
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
