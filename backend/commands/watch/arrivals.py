"""Files that arrive in a folder. They are complete when size and time have not changed for a while."""

import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePath

from backend.commands.folder_names import is_left_out
from backend.commands.image_files import natural_order
from backend.common.image_headers import SUFFIXES

Identity = tuple[int, int]
"""Bytes of a file, and when it was written, in nanoseconds: a file that is written anew is another part."""
_MOST_IGNORED = 1000  # a camera may write a file of settings beside each picture


@dataclass(frozen=True)
class Arrival:
    """A file as it was seen.

    Attributes:
        path: below the folder, with ``/`` between folders.
        identity: of the file.
    """

    path: str
    identity: Identity


def identity_of(path: Path) -> Identity | None:
    """The identity of a file; None if there is none.

    Raises:
        OSError: it cannot be examined.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class Arrivals:
    """The waiting files of a folder.

    Args:
        folder: read with its subfolders; hidden files, system folders and links are not read.
        settle_s: how long a file must stay unchanged, in seconds.
        without: folders below it that are not read.
        is_known: whether a file was already judged.

    Attributes:
        ignored: by path, why a file or folder is ignored; it grows up to a thousand entries.
    """

    def __init__(
        self, folder: Path, settle_s: float, without: Collection[Path], is_known: Callable[[Arrival], bool]
    ) -> None:
        self.folder = folder
        self.ignored: dict[str, str] = {}
        self._settle_s = settle_s
        self._without = {path.resolve() for path in without}
        self._is_known = is_known
        self._since: dict[Arrival, float] = {}
        self._known: set[Arrival] = set()

    def look(self, now: float) -> list[Arrival]:
        """The complete files, in the order in which they were written.

        Args:
            now: monotonic seconds.

        Raises:
            OSError: the folder cannot be read.
        """
        found = self._below(self.folder, PurePath())
        self._known &= set(found)
        self._known |= {arrival for arrival in found if arrival not in self._known and self._is_known(arrival)}
        self._since = {arrival: self._since.get(arrival, now) for arrival in found if arrival not in self._known}
        whole = [arrival for arrival, since in self._since.items() if now - since >= self._settle_s]
        return sorted(whole, key=lambda arrival: (arrival.identity[1], natural_order(PurePath(arrival.path))))

    @property
    def n_waiting(self) -> int:
        """The number of files that were not judged."""
        return len(self._since)

    def take(self, arrival: Arrival) -> None:
        """Record that a file was judged; from now on, `is_known` decides."""
        self._since.pop(arrival, None)

    def put_off(self, arrival: Arrival, until: float) -> None:
        """Postpone a file.

        Args:
            arrival: the file.
            until: when it is complete, if it stays unchanged; on the clock of `now` of `look`.
        """
        self._since[arrival] = until - self._settle_s

    def _below(self, folder: Path, place: PurePath) -> list[Arrival]:
        found = []
        try:
            scanned = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            if place == PurePath():
                raise
            return []  # somebody removed it in this instant
        with scanned as entries:
            for entry in entries:
                path = place / entry.name
                if entry.name.startswith("."):
                    continue
                if (reason := self._reason_against(entry)) is not None:
                    if len(self.ignored) < _MOST_IGNORED:
                        self.ignored.setdefault(path.as_posix(), reason)
                elif entry.is_dir(follow_symlinks=False):
                    if Path(entry.path).resolve() not in self._without:
                        found += self._below(Path(entry.path), path)
                elif (identity := identity_of(Path(entry.path))) is not None:
                    found.append(Arrival(path.as_posix(), identity))
        return found

    @staticmethod
    def _reason_against(entry: "os.DirEntry[str]") -> str | None:
        if entry.is_symlink():
            return "a link"
        if entry.is_dir(follow_symlinks=False):
            return "a folder of the system" if is_left_out(entry.name) else None
        if not entry.is_file(follow_symlinks=False):
            return "not a regular file"
        return None if entry.name.lower().endswith(SUFFIXES) else "its extension is not that of a picture"
