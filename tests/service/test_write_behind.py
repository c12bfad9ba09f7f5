"""Writing behind: what waits on, in which order, and what an error costs."""

import pytest
from structlog.testing import capture_logs

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.service import write_behind
from backend.service.write_behind import WriteBehind

ONE, OTHER = RoiKey("Master1", "One"), RoiKey("Master1", "Other")


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 3600.0)


class Disk:
    """What was written, in order; it fails as it is told."""

    def __init__(self):
        self.written = []
        self.errors = {}

    def write(self, key, items):
        if key in self.errors:
            raise self.errors[key]
        self.written += items


def test_items_are_written_by_roi_in_the_order_in_which_they_came():
    disk = Disk()
    behind = WriteBehind("parts", disk.write, 10)
    for key, item in ((ONE, 1), (OTHER, 2), (ONE, 3)):
        behind.add(key, item)
    assert disk.written == []
    behind.close()
    assert disk.written == [1, 3, 2]


def test_an_unforeseen_error_drops_the_items_of_its_roi_alone():
    disk = Disk()
    disk.errors = {ONE: ZeroDivisionError(), OTHER: StorageError("full")}
    behind = WriteBehind("parts", disk.write, 10)
    for key, item in ((OTHER, 1), (ONE, 2)):
        behind.add(key, item)
    with capture_logs() as logs:
        behind.flush()
    assert [entry["event"] for entry in logs] == ["parts.failed", "parts.not_stored"]
    disk.errors = {}
    behind.close()
    assert disk.written == [1]


def test_items_that_wait_on_come_first_and_the_oldest_are_lost():
    disk, lost, meanwhile = Disk(), [], [3, 4]

    def full(_key, _items):
        while meanwhile:
            behind.add(ONE, meanwhile.pop(0))
        raise StorageError("full")

    behind = WriteBehind("parts", lambda *what: full(*what) if meanwhile else disk.write(*what), 3, lost.append)
    for item in (1, 2):
        behind.add(ONE, item)
    behind.flush()
    assert lost == [1]
    behind.close()
    assert disk.written == [2, 3, 4]
