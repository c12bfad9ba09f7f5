"""The changes of files in a scratch folder, made by the code for models folders."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from backend.common.errors import Conflict
from backend.object_store.manifest import Entry
from backend.object_store.units import Unit, is_stored, unit_of
from backend.object_store.uploading import Kept


class Linked(NamedTuple):
    """A file before the change.

    Attributes:
        stat: of its name in the scratch folder.
        entry: its entry in the manifest.
    """

    stat: os.stat_result
    entry: Entry


def changes_in(
    folder: Path, unit: Unit, before: Mapping[str, Linked], lost: Collection[str]
) -> dict[str, Kept | Path | None]:
    """The changed files of a unit, by path below the folder; None for deleted files.

    Args:
        folder: in the form of a models folder; it may have files of other units.
        unit: whose files.
        before: the files of all units before the change, by path.
        lost: paths of files whose bytes the store has lost: empty files, which are not stored.

    Raises:
        Conflict: files of another unit have changed.
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
