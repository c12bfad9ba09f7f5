"""The web console: the files that a browser loads, as they lie here. There is no build step."""

from pathlib import Path

SUFFIXES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What the console consists of, and what browsers are told that it is: the types that Windows knows may be others."""


def console_files() -> dict[str, bytes]:
    """Every file of the console by its path below this folder, such as ``screens/line.js``."""
    folder = Path(__file__).parent
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.suffix in SUFFIXES
    }
