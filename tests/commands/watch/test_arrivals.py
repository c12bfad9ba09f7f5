"""When a file is whole: neither its size nor its time has changed for a while."""

import os

import pytest

from backend.commands.watch.arrivals import Arrivals


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "in"


@pytest.fixture
def put(folder):
    def put(name, content=b"x", at=1_700_000_000):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, (at, at))

    folder.mkdir()
    return put


def arrivals_of(folder, settle_s=1.0, without=(), known=()):
    return Arrivals(folder, settle_s, without, lambda arrival: arrival.path in known)


def names(found):
    return [arrival.path for arrival in found]


def test_a_file_counts_once_it_has_stayed_as_it_is_for_so_long(folder, put):
    arrivals = arrivals_of(folder)
    put("part.png")
    assert names(arrivals.look(100.0)) == []
    assert names(arrivals.look(100.9)) == []
    put("part.png", b"longer")
    assert names(arrivals.look(101.5)) == []
    put("part.png", b"longer", at=1_700_000_001)  # the same size, written anew
    assert names(arrivals.look(102.4)) == []
    assert names(arrivals.look(103.3)) == []
    assert names(arrivals.look(103.4)) == ["part.png"]


def test_clocks_of_other_machines_do_not_matter(folder, put):
    arrivals = arrivals_of(folder)
    put("part.png", at=4_000_000_000)
    arrivals.look(1.0)
    assert names(arrivals.look(2.0)) == ["part.png"]


def test_what_was_written_first_comes_first_then_names_in_natural_order(folder, put):
    arrivals = arrivals_of(folder, settle_s=0)
    for name, at in (("part10.png", 5), ("part9.png", 5), ("a/last.png", 9), ("first.png", 1)):
        put(name, at=at)
    assert names(arrivals.look(0.0)) == ["first.png", "part9.png", "part10.png", "a/last.png"]


def test_what_is_no_picture_hidden_or_elsewhere_is_not_read(folder, put):
    for name in (
        "a.png",
        "b.JPG",
        "c.tif",
        "notes.txt",
        "part.png.part",
        ".b.png",
        ".c/a.png",
        "@eaDir/a.png",
        "ok/a.png",
    ):
        put(name)
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / "linked").symlink_to(folder / "ok")
    os.mkfifo(folder / "pipe.png")
    arrivals = arrivals_of(folder, 0, [folder / "ok"])
    assert sorted(names(arrivals.look(0.0))) == ["a.png", "b.JPG", "c.tif"]
    assert arrivals.ignored == {
        "notes.txt": "its extension is not that of a picture",
        "part.png.part": "its extension is not that of a picture",
        "@eaDir": "a folder of the system",
        "link.png": "a link",
        "linked": "a link",
        "pipe.png": "not a regular file",
    }


def test_what_was_judged_does_not_wait(folder, put):
    put("old.png")
    put("new.png")
    known = ["old.png"]
    arrivals = arrivals_of(folder, 0, known=known)
    (new,) = arrivals.look(0.0)
    assert (new.path, arrivals.n_waiting) == ("new.png", 1)
    known.append("new.png")
    arrivals.take(new)
    assert arrivals.n_waiting == 0
    assert (arrivals.look(1.0), arrivals.n_waiting) == ([], 0)


def test_a_part_that_was_moved_and_is_back_at_once_waits_again(folder, put):
    put("part.bmp")
    arrivals = arrivals_of(folder, 0)
    (part,) = arrivals.look(0.0)
    (folder / "part.bmp").unlink()
    arrivals.take(part)
    put("part.bmp")  # as large, and of the same second, which is all that some file systems note
    assert arrivals.look(0.1) == [part]


def test_a_folder_that_is_removed_while_it_is_looked_at_is_no_error(folder, put, monkeypatch):
    put("a/part.png")
    put("other.png")
    really = os.scandir

    def scandir(path):
        if path == folder / "a":
            (folder / "a" / "part.png").unlink()
            (folder / "a").rmdir()
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(arrivals_of(folder, 0).look(0.0)) == ["other.png"]


def test_names_of_other_files_do_not_pile_up(folder, put, monkeypatch):
    monkeypatch.setattr("backend.commands.watch.arrivals._MOST_IGNORED", 2)
    arrivals = arrivals_of(folder)
    for number in range(4):
        put(f"{number}.xml")
        arrivals.look(number)
    assert list(arrivals.ignored) == ["0.xml", "1.xml"]


def test_a_file_that_is_put_off_waits_on(folder, put):
    put("part.png")
    arrivals = arrivals_of(folder)
    arrivals.look(0.0)
    (part,) = arrivals.look(1.0)
    arrivals.put_off(part, until=6.0)
    assert arrivals.look(5.9) == []
    assert (arrivals.look(6.0), arrivals.n_waiting) == ([part], 1)


def test_a_folder_that_cannot_be_read_is_an_error_and_not_empty(tmp_path):
    with pytest.raises(FileNotFoundError):
        arrivals_of(tmp_path / "gone").look(0.0)
