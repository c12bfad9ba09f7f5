"""The journal: what was judged, what is owed, and who has it."""

import errno
import sqlite3
from unittest.mock import Mock

import pytest

from backend.commands.watch import journal as journals
from backend.commands.watch.arrivals import Arrival
from backend.commands.watch.journal import Journal, Message, Owed
from backend.common.errors import InvalidRequest, StorageError

ARRIVAL = Arrival("a/M\udce4rz.png", (3, 17))  # a name that is not UTF-8


def owed_of(part_id, arrival=ARRIVAL, at=5):
    return Owed(part_id, arrival, {"id": part_id, "verdict": "ok"}, at)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def journal(path):
    journal = Journal(path)
    yield journal
    journal.close()


def test_what_is_owed_outlives_the_process(path):
    journal = Journal(path)
    journal.add(owed_of("1"), ["webhook", "mqtt"])
    journal.add(owed_of("2"), ["webhook"])
    journal.close()
    journal = Journal(path)
    assert journal.owed() == [owed_of("1"), owed_of("2")]
    assert journal.n_messages() == {"webhook": 2, "mqtt": 1}
    journal.close()


def test_what_is_done_is_known_while_its_file_is_there(journal):
    journal.add(owed_of("1"), [])
    assert journal.is_known(ARRIVAL)
    journal.done("1", is_gone=False)
    assert (journal.owed(), journal.is_known(ARRIVAL)) == ([], True)
    assert not journal.is_known(Arrival(ARRIVAL.path, (3, 18)))
    assert not journal.is_known(Arrival(ARRIVAL.path, (4, 17)))
    journal.add(owed_of("2"), [])
    journal.done("2", is_gone=True)
    journal.done("1", is_gone=True)
    assert not journal.is_known(ARRIVAL)


def test_messages_are_kept_in_order_until_they_are_delivered(journal):
    for part_id in "123":
        journal.add(owed_of(part_id), ["webhook"])
    first = journal.next_message("webhook")
    assert first == Message(first.number, "1", '{"id": "1", "verdict": "ok"}')
    assert journal.next_message("webhook") == first
    journal.delivered(first)
    assert journal.next_message("webhook").id == "2"
    assert journal.next_message("mqtt") is None


def test_a_second_process_is_refused(journal, path):
    with pytest.raises(InvalidRequest, match="another `watch` runs on this folder"):
        Journal(path)
    journal.add(owed_of("1"), [])


def test_a_journal_of_another_version_is_refused(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(InvalidRequest, match="another version"):
        Journal(path)


def test_a_file_that_is_no_journal_is_an_error_and_stays_as_it_is(path):
    path.write_bytes(b"something else" * 100)
    with pytest.raises(StorageError, match="cannot be read or written"):
        Journal(path)
    assert path.read_bytes() == b"something else" * 100


def test_a_month_later_files_that_are_gone_are_forgotten(journal, tmp_path, monkeypatch):
    (tmp_path / "there.png").write_bytes(b"x")
    there, gone = Arrival("there.png", (1, 1)), Arrival("gone.png", (1, 1))
    for part_id, arrival in (("1", there), ("2", gone)):
        journal.add(owed_of(part_id, arrival), [])
        journal.done(part_id, is_gone=False)
    journal.forget_files_that_are_gone(tmp_path)
    assert journal.is_known(gone)  # a share that is not mounted looks empty
    monkeypatch.setattr(journals, "_KEPT_S", -1)
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "lstat", Mock(side_effect=OSError(errno.ESTALE, "Stale file handle")))
        journal.forget_files_that_are_gone(tmp_path)
    assert journal.is_known(gone)
    journal.forget_files_that_are_gone(tmp_path)
    assert (journal.is_known(there), journal.is_known(gone)) == (True, False)


def test_a_transaction_that_fails_leaves_nothing(journal):
    journal.add(owed_of("1"), ["webhook"])
    with pytest.raises(StorageError):
        journal.add(owed_of("1"), ["webhook"])
    assert journal.n_messages() == {"webhook": 1}
    journal.add(owed_of("2"), ["webhook"])
