"""Layouts and pictures of recipes in an object store."""

import pytest

from backend.common.errors import LayoutChanged, LayoutNotFound, PictureNotFound
from backend.disk.gui_layouts import etag_of

LARGE = b'{"a": "%s"}' % (b"x" * 9000)


def accepting(etag):
    def accept(there):
        if there != etag:
            raise LayoutChanged("another one", there)

    return accept


@pytest.mark.parametrize("content", [b'{"a": 1}', LARGE], ids=["in the manifest", "in a blob"])
def test_layout_comes_back_byte_for_byte_on_every_replica(replica, content):
    one, other = replica(), replica()
    with pytest.raises(LayoutNotFound):
        other.layouts.read("line 1")
    assert one.layouts.write("line 1", content, accepting(None)) == etag_of(content)
    assert other.layouts.read("line 1") == content


def test_layout_that_another_replica_replaced_is_not_overwritten(replica):
    """The condition is judged again where another replica was faster between the look and the write."""
    one, other = replica(), replica()
    etag = one.layouts.write("line 1", b'{"a": 1}', accepting(None))
    calls = []

    def accept(there):
        if not calls:
            other.layouts.write("line 1", b'{"a": 2}', accepting(etag))
        calls.append(there)
        accepting(etag)(there)

    with pytest.raises(LayoutChanged):
        one.layouts.write("line 1", b'{"a": 3}', accept)
    assert calls == [etag, etag_of(b'{"a": 2}')]
    assert one.layouts.read("line 1") == b'{"a": 2}'


def test_pictures_are_listed_read_replaced_and_deleted_by_any_replica(replica):
    one, other = replica(), replica()
    one.layouts.write_picture("line 1", "ä/b", b"\x89PNG one")
    other.layouts.write_picture("line 1", "c", b"\x89PNG" * 3000)
    other.layouts.write_picture("line 1", "ä/b", b"\x89PNG two")
    assert one.layouts.pictures("line 1") == {"c": 12000, "ä/b": len(b"\x89PNG two")}
    assert one.layouts.read_picture("line 1", "ä/b") == b"\x89PNG two"
    one.layouts.delete_picture("line 1", "c")
    with pytest.raises(PictureNotFound):
        other.layouts.read_picture("line 1", "c")
    with pytest.raises(PictureNotFound):
        other.layouts.delete_picture("line 1", "c")
