"""The finished and pending work of `watch`: a SQLite file, so that a restart loses or repeats nothing.

A part is recorded with its verdict and its messages in one transaction, before anything else happens. Then follow the
line in the results and the move of the file, and finally the record that the part is finished.
"""

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.commands.watch.arrivals import Arrival, identity_of
from backend.common.errors import InvalidRequest, StorageError

_VERSION = 1
_KEPT_S = 30 * 86400
_TABLES = """
CREATE TABLE part (
    id TEXT PRIMARY KEY, path BLOB NOT NULL, bytes INTEGER NOT NULL, written_ns INTEGER NOT NULL,
    judged_at REAL NOT NULL, told TEXT, results_at INTEGER
);
CREATE INDEX part_path ON part (path);
CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX message_channel ON message (channel, number);
"""


@dataclass(frozen=True)
class Owed:
    """A judged part with unfinished work.

    Attributes:
        id: of the part.
        arrival: its file.
        told: the data that is written and sent.
        results_at: bytes of the results before its lines; None if writing was not tried yet.
    """

    id: str
    arrival: Arrival
    told: dict[str, Any]
    results_at: int | None


@dataclass(frozen=True)
class Message:
    """A message that was not delivered yet.

    Attributes:
        number: in the order of sending.
        id: of the part; receivers recognise repeated messages by it.
        body: JSON.
    """

    number: int
    id: str
    body: str


class Journal:
    """The journal of a watched folder. Safe to call from many threads; only one process at a time may open it.

    Args:
        path: the file; it is created if it is missing.

    Raises:
        InvalidRequest: another process uses it, or it has another version.
        StorageError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._told():
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc):  # Python 3.10 has no code for it
                raise
            raise InvalidRequest(
                f"{self._path} is in use: another `watch` runs on this folder. Stop it, or give another --state"
            ) from exc
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            self._db.execute("ROLLBACK")
            raise InvalidRequest(
                f"{self._path} was written by another version of this program ({version}): give another --state"
            )
        if version == 0:
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close it for other processes."""
        with self._lock:
            self._db.close()

    def is_known(self, arrival: Arrival) -> bool:
        """Whether a file was judged."""
        rows = self._rows("SELECT 1 FROM part WHERE path = ? AND bytes = ? AND written_ns = ?", _key(arrival))
        return bool(rows)

    def add(self, owed: Owed, channels: Sequence[str]) -> None:
        """Record a judged part, with a message for each channel."""
        body = json.dumps(owed.told, allow_nan=False)
        with self._writing() as db:
            db.execute(
                "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?)",
                (owed.id, *_key(owed.arrival), time.time(), body, owed.results_at),
            )
            db.executemany(
                "INSERT INTO message (channel, id, body) VALUES (?, ?, ?)", [(name, owed.id, body) for name in channels]
            )

    def done(self, part_id: str, *, is_gone: bool) -> None:
        """Record that a part is finished.

        Args:
            part_id: of the part.
            is_gone: its file is no longer in the folder. A file that is put there again is another part.
        """
        with self._writing() as db:
            if is_gone:
                db.execute("DELETE FROM part WHERE id = ?", (part_id,))
            else:
                db.execute("UPDATE part SET told = NULL WHERE id = ?", (part_id,))

    def begin(self, part_id: str, results_at: int) -> None:
        """Record where the lines of a part begin in the results, before they are written.

        Args:
            part_id: of the part.
            results_at: bytes of the results before them.
        """
        with self._writing() as db:
            db.execute("UPDATE part SET results_at = ? WHERE id = ?", (results_at, part_id))

    def owed(self, most: int = -1) -> list[Owed]:
        """The unfinished parts, in the order of their judgement.

        Args:
            most: maximum number; -1 is all.
        """
        query = "SELECT id, path, bytes, written_ns, told, results_at FROM part WHERE told NOT NULL"
        rows = self._rows(f"{query} ORDER BY rowid LIMIT ?", (most,))
        return [
            Owed(part_id, Arrival(os.fsdecode(path), (size, written_ns)), json.loads(told), results_at)
            for part_id, path, size, written_ns, told, results_at in rows
        ]

    def forget_files_that_are_gone(self, folder: Path) -> None:
        """Delete parts that were judged a month ago and whose files are gone."""
        rows = self._rows("SELECT id, path FROM part WHERE told IS NULL AND judged_at < ?", (time.time() - _KEPT_S,))
        gone = [(part_id,) for part_id, path in rows if _is_gone(folder / os.fsdecode(path))]
        with self._writing() as db:
            db.executemany("DELETE FROM part WHERE id = ?", gone)

    def next_message(self, channel: str) -> Message | None:
        """The oldest message of a channel."""
        rows = self._rows("SELECT number, id, body FROM message WHERE channel = ? ORDER BY number LIMIT 1", (channel,))
        return Message(*rows[0]) if rows else None

    def delivered(self, message: Message) -> None:
        """Delete a message."""
        with self._writing() as db:
            db.execute("DELETE FROM message WHERE number = ?", (message.number,))

    def n_messages(self) -> dict[str, int]:
        """How many messages wait, by channel."""
        return dict(self._rows("SELECT channel, count(*) FROM message GROUP BY channel"))

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._told(), self._lock:
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; at the end of the block, it is on the disk."""
        with self._told(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise StorageError(f"{self._path} cannot be read or written ({exc})") from exc


def _is_gone(path: Path) -> bool:
    try:
        return identity_of(path) is None
    except OSError:
        return False  # nobody can tell, such as of a share that does not answer


def _key(arrival: Arrival) -> tuple[bytes, int, int]:
    return os.fsencode(arrival.path), *arrival.identity
