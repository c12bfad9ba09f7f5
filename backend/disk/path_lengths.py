"""Paths that are too long for Windows, refused before any work."""

from pathlib import Path

from backend.common.errors import InvalidRequest
from backend.common.machine import longest_path

# What is written below a folder at most: `.versions/.tmp-<32 digits>/.tmp-<32 digits>`.
_BELOW = 86


def refuse_long_paths(folder: Path) -> None:
    """Refuse a folder of a model, a recipe or images whose files would have paths that are too long for the system.

    Args:
        folder: it may be missing.

    Raises:
        InvalidRequest: the paths are too long.
    """
    longest = longest_path()
    length = len(str(folder.absolute())) + _BELOW
    if longest is not None and length > longest:
        raise InvalidRequest(
            f"the files of these ids would have paths of up to {length} characters, and Windows allows {longest}: use "
            "shorter ids, move MODELS_DIR to a shorter path, or turn on long paths in Windows (docs/windows.md)"
        )
