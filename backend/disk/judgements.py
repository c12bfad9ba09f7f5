"""Stored judgements, for people to look through: an SQLite database for each ROI, shared by all processes.

SQLite has the needed properties: a transaction is complete or absent, whatever stops a process or the machine, and
processes that write at the same time wait for each other. No connection outlives a call, so a forked worker inherits
none.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import structlog

from backend.common.errors import StorageError
from backend.common.files import delete, make_folder, replace
from backend.common.roi_key import RoiKey

FOLDER = ".history"  # no id becomes a hidden folder
SUFFIX = ".sqlite"
_DAMAGED = ".damaged"
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a database
_MAX_FILES = 1000
_PATIENCE_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS judgements (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL, score REAL NOT NULL, threshold REAL, decision TEXT, mm_per_px REAL NOT NULL,
    memory_id TEXT NOT NULL, request_id TEXT, decide_by TEXT, pixel_threshold REAL, thumbnail BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_decision ON judgements (decision, number);
CREATE TABLE IF NOT EXISTS marks (mark TEXT PRIMARY KEY, number INTEGER NOT NULL);
"""
# The columns are the members of `Judgement` and of `KeptJudgement`, in their order.
_INSERT = """
INSERT INTO judgements
    (at, score, threshold, decision, mm_per_px, memory_id, request_id, decide_by, pixel_threshold, thumbnail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_NUMBERED = """
INSERT INTO judgements
    (at, score, threshold, decision, mm_per_px, memory_id, request_id, decide_by, pixel_threshold, number, thumbnail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT = """
SELECT at, score, threshold, decision, mm_per_px, memory_id, request_id, decide_by, pixel_threshold, number
FROM judgements
"""

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Judgement:
    """The judgement of one inference.

    Attributes:
        at: when, in seconds since 1970.
        score: of the image, 0..2.
        threshold: that was applied; None without one.
        decision: ``"ok"`` or ``"ng"``; None without a threshold.
        mm_per_px: millimetres per pixel of the image.
        memory_id: identity of the memory bank that it was compared with.
        request_id: of the request.
        decide_by: ``"region"`` or ``"either"``; None if the score decides.
        pixel_threshold: that regions were found at; None if the score decides.
    """

    at: float
    score: float
    threshold: float | None
    decision: Literal["ok", "ng"] | None
    mm_per_px: float
    memory_id: str
    request_id: str | None
    decide_by: Literal["region", "either"] | None = None
    pixel_threshold: float | None = None


class NewJudgement(NamedTuple):
    """A judgement to store.

    Attributes:
        judgement: of one inference.
        thumbnail: of its image, a JPEG.
        mark: identity of its part, see `mark_of`; None if its client gave no id.
    """

    judgement: Judgement
    thumbnail: bytes
    mark: str | None = None


@dataclass(frozen=True)
class KeptJudgement(Judgement):
    """A judgement that is kept.

    Attributes:
        number: greater than the numbers of all earlier ones.
    """

    number: int = 0


@dataclass(frozen=True)
class JudgementQuery:
    """The requested judgements.

    Attributes:
        decision: None means any.
        before: only smaller numbers; None begins with the newest.
        since, until: the first time and the time after the last, in seconds since 1970.
        limit: maximum number.
    """

    decision: str | None = None
    before: int | None = None
    since: float | None = None
    until: float | None = None
    limit: int = 100


class JudgementFiles:
    """The databases below one models folder.

    Args:
        root: the models folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER

    def path(self, key: RoiKey) -> Path:
        """The database of a ROI."""
        digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:32]}{SUFFIX}"

    def has(self, key: RoiKey) -> bool:
        """Whether judgements of a ROI were ever stored."""
        return self.path(key).exists()

    def add(self, key: RoiKey, judgements: Sequence[NewJudgement], most: int) -> None:
        """Store judgements with their thumbnails, and delete the oldest.

        A judgement is not stored if one with the same mark is kept. A damaged database is moved aside, and a new one is
        begun.

        Args:
            key: the ROI.
            judgements: in the order in which they were made.
            most: how many stay.

        Raises:
            StorageError: they cannot be written; the earlier ones are unchanged.
        """
        path = self.path(key)
        grows = not path.exists()
        last = judgements[-most:]
        try:
            self._add(path, last, most)
        except StorageError as exc:
            if not _is_damaged(exc.__cause__):
                raise
            log.warning("history.set_aside", reason=str(exc), file=f"{path.name}{_DAMAGED}")
            _set_aside(path)
            self._add(path, last, most)
        if grows:
            self._prune()

    def list(self, key: RoiKey, wanted: JudgementQuery) -> "list[KeptJudgement]":
        """Kept judgements of a ROI, the newest first.

        Raises:
            StorageError: they cannot be read.
        """
        path = self.path(key)
        if not path.exists():
            return []
        conditions = {
            "decision = ?": wanted.decision,
            "number < ?": wanted.before,
            "at >= ?": wanted.since,
            "at < ?": wanted.until,
        }
        asked = {condition: value for condition, value in conditions.items() if value is not None}
        where = ["WHERE", " AND ".join(asked)] if asked else []
        query = " ".join([_SELECT, *where, "ORDER BY number DESC LIMIT ?"])
        with _opened(path) as database:
            if _is_empty(database):
                return []
            rows = database.execute(query, (*asked.values(), wanted.limit)).fetchall()
        return [KeptJudgement(*row) for row in rows]

    def thumbnail(self, key: RoiKey, number: int) -> bytes | None:
        """The thumbnail of a kept judgement, a JPEG; None if it is not kept.

        Raises:
            StorageError: it cannot be read.
        """
        path = self.path(key)
        if not path.exists():
            return None
        with _opened(path) as database:
            if _is_empty(database):
                return None
            row = database.execute("SELECT thumbnail FROM judgements WHERE number = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def last(self, key: RoiKey) -> int:
        """The number of the newest stored judgement; 0 if there is none.

        Raises:
            StorageError: they cannot be read.
        """
        newest = self.list(key, JudgementQuery(limit=1))
        return newest[0].number if newest else 0

    def add_numbered(self, path: Path, judgements: Iterable[tuple[KeptJudgement, bytes]]) -> None:
        """Add judgements with numbers to a database, and begin one if there is none.

        Raises:
            StorageError: they cannot be written.
        """
        with _opened(path) as database:
            database.executescript(_SCHEMA)
            database.execute("BEGIN IMMEDIATE")
            database.executemany(_INSERT_NUMBERED, ((*astuple(kept), thumbnail) for kept, thumbnail in judgements))
            database.execute("COMMIT")

    def _add(self, path: Path, judgements: Sequence[NewJudgement], most: int) -> None:
        try:
            make_folder(path.parent)
        except OSError as exc:
            raise StorageError(f"the history cannot be stored ({exc.strerror}); check the models folder") from exc
        with _opened(path) as database:
            database.executescript(_SCHEMA)
            database.execute("BEGIN IMMEDIATE")
            for judgement, thumbnail, mark in judgements:
                if mark and database.execute("SELECT 1 FROM marks WHERE mark = ?", (mark,)).fetchone():
                    continue
                number = database.execute(_INSERT, (*astuple(judgement), thumbnail)).lastrowid
                if mark:
                    database.execute("INSERT INTO marks VALUES (?, ?)", (mark, number))
            database.execute(
                "DELETE FROM judgements WHERE number <= "
                "(SELECT number FROM judgements ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (most,),
            )
            database.execute("DELETE FROM marks WHERE number < (SELECT min(number) FROM judgements)")
            database.execute("COMMIT")

    def _prune(self) -> None:
        """Keep only the databases that were written last."""
        files = sorted(self._folder.glob(f"*{SUFFIX}"), key=_written_at)
        for path in files[: max(0, len(files) - _MAX_FILES)]:
            with contextlib.suppress(OSError):  # the next new one tries again
                _delete(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for a block; uncommitted changes are undone, and it is closed at the end.

    Raises:
        StorageError: the database cannot be opened, read or written.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)) as database:
            yield database
    except sqlite3.Error as exc:
        raise StorageError(f"the history cannot be stored or read ({exc}); check the models folder") from exc


def _is_damaged(cause: BaseException | None) -> bool:
    """Whether SQLite reports that a file is malformed or not a database; full disks and locks have other types."""
    return type(cause) is sqlite3.DatabaseError


def _is_empty(database: sqlite3.Connection) -> bool:
    """Whether a database is empty, because its process died before it stored anything."""
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'judgements'").fetchone() is None


def _set_aside(path: Path) -> None:
    try:
        for suffix in _BESIDE:
            delete(path.with_name(path.name + suffix))
        replace(path, path.with_name(path.name + _DAMAGED))
    except OSError as exc:
        raise StorageError(f"the damaged history cannot be moved aside ({exc.strerror})") from exc


def _written_at(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if nobody can tell."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _delete(path: Path) -> None:
    for suffix in ("", *_BESIDE, _DAMAGED):
        delete(path.with_name(path.name + suffix))
