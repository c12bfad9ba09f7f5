"""Earlier versions of a model: ``.versions/<number>/`` in its folder, the newest with the highest number.

A version contains the served files, as hard links, so that it takes no space until they are replaced. Its
``version.json`` says when and by what they were replaced. A version appears with one rename, and disappears with one
rename. No id becomes a folder that begins with a dot, so a version is never confused with a model. This module does not
know the contents of a model.
"""

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from backend.common.files import (
    MAX_JSON_FILE_BYTES,
    TEMPORARY_PREFIX,
    delete,
    delete_folder,
    make_folder,
    open_to_read,
    read_small,
    replace,
    sync_folder,
    write_atomic,
)
from backend.disk.calibration_inputs import is_of_inputs

FOLDER = ".versions"
_FACTS_FILE = "version.json"
_NUMBER = re.compile("[1-9][0-9]{0,17}")
_PIECE_BYTES = 1 << 20

Change = Literal["fit", "append", "calibrate", "feedback", "rollback"]


@dataclass(frozen=True)
class VersionFacts:
    """The contents of ``version.json``.

    Attributes:
        kept_at_utc: when the model was replaced, ISO 8601.
        replaced_by: the change that replaced it.
        memory_id: identity of its memory bank.
        coreset_size: embeddings in the memory bank.
        n_embeddings, n_images: numbers that it was built from; None if the fit did not record them.
    """

    kept_at_utc: str
    replaced_by: Change
    memory_id: str
    coreset_size: int
    n_embeddings: int | None = None
    n_images: int | None = None


_FACTS: TypeAdapter[VersionFacts] = TypeAdapter(VersionFacts)


@dataclass(frozen=True)
class Version:
    """A model that was replaced, in a folder of its own."""

    number: int
    facts: VersionFacts
    folder: Path

    def holds(self, files: Sequence[Path]) -> bool:
        """Whether it has these files, by name and content; missing scores do not matter: they judge nothing."""
        names = {path.name for path in self.folder.iterdir()} - {_FACTS_FILE}
        compared = [file for file in files if file.name in names or not is_of_inputs(file.name)]
        return names == {file.name for file in compared} and all(
            same(self.folder / file.name, file) for file in compared
        )


def kept(model: Path) -> list[Version]:
    """The versions in the folder of a model, the newest first; needs no lock."""
    found = []
    for number in _numbers(model):
        folder = model / FOLDER / str(number)
        # Deleted since, or tampered with: pydantic's errors are ValueErrors.
        with contextlib.suppress(OSError, ValueError):
            facts = _FACTS.validate_json(read_small(folder / _FACTS_FILE, MAX_JSON_FILE_BYTES))
            found.append(Version(number, facts, folder))
    return found


def keep(model: Path, files: Sequence[Path], facts: VersionFacts) -> None:
    """Keep the files of a model before they are replaced; the caller holds the lock of its folder.

    Raises:
        OSError: they cannot be kept; nothing remains on the disk.
    """
    versions = model / FOLDER
    make_folder(versions)
    scratch = versions / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    scratch.mkdir()
    try:
        for file in files:
            _link(file, scratch / file.name)
        write_atomic({scratch / _FACTS_FILE: json.dumps(asdict(facts), indent=2).encode()})
        replace(scratch, versions / str(_free_number(model)))
    except BaseException:
        delete_folder(scratch)
        raise
    sync_folder(versions)


def tidy(model: Path, served: Sequence[Path], most: int, spare: int | None = None) -> None:
    """Delete files of killed writers, and all but the newest versions; the caller holds the lock of the folder.

    Args:
        model: folder of the model.
        served: its current files. A newest version with these files was kept for a change that did not happen.
        most: how many versions stay.
        spare: number of a version that also stays.

    Raises:
        OSError: something cannot be deleted.
    """
    for leftover in (model / FOLDER).glob(f"{TEMPORARY_PREFIX}*"):
        delete_folder(leftover)
    for version in kept(model)[:1]:
        if version.holds(served):
            _discard(version.folder)
    for number in _numbers(model)[most:]:
        if number != spare:
            _discard(model / FOLDER / str(number))


def restore_file(kept_file: Path, target: Path) -> None:
    """Replace a file of a model with that of a version, in one rename; the version also keeps it.

    Raises:
        OSError: it cannot be replaced; nothing changed.
    """
    if target.exists() and target.samefile(kept_file):  # a rename between two names of one file does nothing
        return
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        _link(kept_file, temporary)
        replace(temporary, target)
    except BaseException:
        delete(temporary)
        raise
    sync_folder(target.parent)


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same content.

    Raises:
        OSError: one of them cannot be read.
    """
    if one.samefile(other):
        return True
    if one.stat().st_size != other.stat().st_size:
        return False
    with open_to_read(one) as left, open_to_read(other) as right:
        pieces: Callable[[], bytes] = partial(left.read, _PIECE_BYTES)
        return all(piece == right.read(_PIECE_BYTES) for piece in iter(pieces, b""))


def _numbers(model: Path) -> list[int]:
    try:
        names = [path.name for path in (model / FOLDER).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((int(name) for name in names if _NUMBER.fullmatch(name)), reverse=True)


def _free_number(model: Path) -> int:
    """The number after the newest version; a free number if somebody made a folder with the greatest possible one."""
    numbers = _numbers(model)
    above = (number + 1 for number in (*numbers, 0))
    return next(number for number in above if number not in numbers and _NUMBER.fullmatch(str(number)))


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links, or with too many of this file; a full disk shows in the copy too
        shutil.copyfile(file, name)
        with name.open("rb+") as copy:
            os.fsync(copy.fileno())


def _discard(version: Path) -> None:
    doomed = version.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    replace(version, doomed)  # first, so that nobody reads half a version
    delete_folder(doomed)
