"""What became of files in a scratch folder, which the code for models folders has changed."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from backend.common.errors import Conflict
from backend.object_store.manifest import Entry
from backend.object_store.units import Unit, is_stored, unit_of
from backend.object_store.uploading import Kept


class Linked(NamedTuple):
    """A file that was there before.

    Attributes:
        stat: of its name in the scratch folder.
        entry: what it is.
    """

    stat: os.stat_result
    entry: Entry


def changes_in(
    folder: Path, unit: Unit, before: Mapping[str, Linked], lost: Collection[str]
) -> dict[str, Kept | Path | None]:
    """The files of a unit that are others than before, by path below the folder; None if one went.

    Args:
        folder: as a models folder; files of other units may be there, too.
        unit: whose files.
        before: those that were there, of all units, by path.
        lost: paths of those of them whose bytes the store has lost: empty files, which are not stored.

    Raises:
        Conflict: files of another unit are others than before.
    """
    kept = {(stat.st_ino, stat.st_mtime_ns): entry for stat, entry in before.values()}
    changes: dict[str, Kept | Path | None] = dict.fromkeys(before)
    for file in folder.rglob("*"):
        path = file.relative_to(folder).as_posix()
        if not is_stored(path) or not file.is_file():
            continue
        stat, known = file.stat(), before.get(path)
        identity = stat.st_ino, stat.st_mtime_ns
        if known and identity == (known.stat.st_ino, known.stat.st_mtime_ns):
            del changes[path]
        elif lost and not stat.st_size:
            continue
        elif identity in kept and stat.st_nlink > 1:  # where there are no links, the number of a copy may come again
            changes[path] = Kept(kept[identity], file)
        else:
            changes[path] = file
    if foreign := [path for path in changes if unit_of(path) != unit]:
        raise Conflict(f"{min(foreign)} was changed by others meanwhile; nothing was stored: send it again")
    return changes
