"""Files are written whole or not at all, and read only where they are small."""

import os
from pathlib import Path

import pytest

from backend.common import files
from backend.common.files import make_folder, read_small, write_atomic


def test_a_small_file_is_read_and_a_large_one_is_not(tmp_path):
    file = tmp_path / "calib.json"
    file.write_bytes(b"12345")
    assert read_small(file, 5) == b"12345"
    with pytest.raises(ValueError, match=r"calib\.json is larger than 4 bytes"):
        read_small(file, 4)


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    file = tmp_path / "calib.json"
    write_atomic({file: b"old"})
    write_atomic({file: b"new and longer"})
    assert file.read_bytes() == b"new and longer"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_else(tmp_path, monkeypatch, step):
    file = tmp_path / "calib.json"
    file.write_bytes(b"old")
    other = tmp_path / "other.json"

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="No space left"):
        write_atomic({file: b"new", other: b"new"})
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    steps = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), real_fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda old, new: (steps.append(new.name), real_replace(old, new))[1])
    write_atomic({tmp_path / "index.faiss": b"index", tmp_path / "memory.npz": b"memory"})
    assert steps[:4] == ["sync", "sync", "index.faiss", "memory.npz"], "and the last name commits the others"


def test_new_folders_are_on_the_disk_before_anything_is_written_into_them(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    make_folder(tmp_path / "role" / "roi")
    assert (tmp_path / "role" / "roi").is_dir()
    assert set(synced) == {tmp_path, tmp_path / "role"}, "each in the folder that names it"
    make_folder(tmp_path / "role" / "roi")
    assert len(synced) == 2, "once"
