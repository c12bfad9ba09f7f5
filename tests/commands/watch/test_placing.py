"""Moving and copying: whole or not at all, never over another file, also across file systems."""

import errno
import os

import pytest

from backend.commands.watch import placing
from backend.commands.watch.arrivals import identity_of
from backend.commands.watch.placing import Changed, place

PART = "0123456789abcdef"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in" / "a" / "part.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the part")
    os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return path


def put(source, folder, **options):
    return place(source, identity_of(source), folder, "a/part.png", PART, **{"copy": False, **options})


@pytest.fixture(params=[None, errno.EXDEV, errno.EPERM, errno.ENOTSUP])
def file_system(request, monkeypatch):
    """One that can link, two of them, and those that cannot."""
    really = os.link

    def link(source, target, **options):
        of_part = not os.fspath(source).rpartition("/")[2].startswith(".tmp-")
        if request.param == errno.EXDEV and not of_part:
            return really(source, target, **options)
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("copy", [False, True])
def test_a_file_keeps_its_path_content_and_time(source, tmp_path, file_system, copy):
    before = identity_of(source)
    target = put(source, tmp_path / "ok", copy=copy)
    assert target == tmp_path / "ok" / "a" / "part.png"
    assert (target.read_bytes(), identity_of(target)) == (b"the part", before)
    assert source.exists() == copy
    assert [path.name for path in target.parent.iterdir()] == ["part.png"]


@pytest.mark.parametrize("copy", [False, True])
def test_a_file_that_has_the_name_is_left_as_it_is(source, tmp_path, file_system, copy):
    taken = tmp_path / "ok" / "a" / "part.png"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"another")
    target = put(source, tmp_path / "ok", copy=copy)
    assert target.name == "part-01234567.png"
    assert (taken.read_bytes(), target.read_bytes()) == (b"another", b"the part")


def test_a_file_that_appears_at_the_last_moment_is_left_as_it_is(source, tmp_path, monkeypatch):
    taken = tmp_path / "ok" / "a" / "part.png"
    really = os.link

    def slow(*arguments, **options):
        if not taken.exists():
            taken.write_bytes(b"another")
        return really(*arguments, **options)

    monkeypatch.setattr(os, "link", slow)
    assert put(source, tmp_path / "ok").name == "part-01234567.png"
    assert taken.read_bytes() == b"another"


def test_where_both_names_are_taken_the_file_stays(source, tmp_path):
    for name in ("part.png", "part-01234567.png"):
        (tmp_path / "ok" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ok" / "a" / name).write_bytes(b"another")
    with pytest.raises(FileExistsError):
        put(source, tmp_path / "ok")
    assert source.read_bytes() == b"the part"


@pytest.mark.parametrize("copy", [False, True])
def test_what_was_placed_before_a_crash_stays_and_is_there_once(source, tmp_path, file_system, monkeypatch, copy):
    target = put(source, tmp_path / "ok", copy=True)
    assert put(source, tmp_path / "ok", copy=copy) == target
    assert source.exists() == copy
    assert [path.name for path in target.parent.iterdir()] == ["part.png"]


def test_after_a_crash_between_link_and_delete_one_name_is_left(source, tmp_path):
    target = tmp_path / "ok" / "a" / "part.png"
    target.parent.mkdir(parents=True)
    os.link(source, target)
    assert put(source, tmp_path / "ok") == target
    assert not source.exists()
    assert target.read_bytes() == b"the part"


def test_a_file_that_was_moved_before_a_crash_is_found_where_it_is(source, tmp_path):
    identity = identity_of(source)
    target = put(source, tmp_path / "ok")
    assert place(source, identity, tmp_path / "ok", "a/part.png", PART, copy=False) == target


def test_a_file_that_was_written_anew_is_not_placed(source, tmp_path):
    identity = identity_of(source)
    source.write_bytes(b"another part")
    with pytest.raises(Changed):
        place(source, identity, tmp_path / "ok", "a/part.png", PART, copy=False)
    assert not (tmp_path / "ok").exists()
    assert source.read_bytes() == b"another part"


@pytest.mark.parametrize("across", [False, True])
def test_a_file_that_is_replaced_while_its_place_is_synced_is_kept(source, tmp_path, monkeypatch, across):
    really_link, really_sync = os.link, placing.sync_folder

    def link(source, target, **options):
        if across and not source.name.startswith(".tmp-"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return really_link(source, target, **options)

    def sync(folder):
        if folder == tmp_path / "ok" / "a" and source.read_bytes() != b"the next part":
            (tmp_path / "next").write_bytes(b"the next part")
            (tmp_path / "next").replace(source)
        really_sync(folder)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(placing, "sync_folder", sync)
    assert put(source, tmp_path / "ok").read_bytes() == b"the part"
    assert source.read_bytes() == b"the next part"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_changes_as_it_is_linked_is_not_placed(source, tmp_path, monkeypatch, in_place):
    really = os.link

    def link(_source, target, **options):
        if not in_place:
            source.unlink()
        source.write_bytes(b"the next part")
        return really(_source, target, **options)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Changed):
        put(source, tmp_path / "ok")
    assert list((tmp_path / "ok" / "a").iterdir()) == []
    assert source.read_bytes() == b"the next part"


def test_a_copy_that_was_cut_off_is_made_anew(source, tmp_path):
    torn = tmp_path / "ok" / "a" / f".tmp-{PART}"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"the p")
    assert put(source, tmp_path / "ok", copy=True).read_bytes() == b"the part"
    assert not torn.exists()


def test_a_full_disk_leaves_the_file_where_it_was(source, tmp_path, monkeypatch):
    def full(_source, target):
        target.write_bytes(b"the")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(placing.shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left"):
        put(source, tmp_path / "ok", copy=True)
    assert source.read_bytes() == b"the part"
    assert list((tmp_path / "ok" / "a").iterdir()) == []
