"""The files that a process has of the store: together for who reads, and gone with the process."""

import os
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from backend.object_store import local_copy
from backend.object_store.local_copy import LocalCopy, ReadersAndWriter
from backend.object_store.manifest import entry_of
from backend.object_store.units import model_unit
from tests.factories import KEY


def test_nobody_reads_while_files_are_replaced():
    access, writing, seen = ReadersAndWriter(), threading.Event(), []

    def write():
        with access.writing():
            writing.set()
            time.sleep(0.2)
            seen.append("written")

    with access.reading(), access.reading():
        thread = threading.Thread(target=write)
        thread.start()
        assert not writing.wait(0.1), "a reader is there"
        with access.reading():  # who reads already goes on reading, though a writer waits
            pass
    assert writing.wait(5)
    with access.reading():
        seen.append("read")
    thread.join()
    assert seen == ["written", "read"]


def test_files_come_and_go_with_their_times(tmp_path):
    copy = LocalCopy(tmp_path)
    source = copy.incoming()
    source.write_bytes(b"content")
    copy.replace(set(), {"a/b/file": (source, entry_of(model_unit(KEY), b"content", 5_000_000_000))})
    assert (copy.root / "a/b/file").read_bytes() == b"content"
    assert (copy.root / "a/b/file").stat().st_mtime_ns == 5_000_000_000
    copy.replace({"a/b/file"}, {})
    assert not (copy.root / "a/b").exists()
    copy.close()
    assert not tmp_path.exists()


@pytest.mark.slow
def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(local_copy, "_YOUNG_S", 0.0)
    program = "import os; from backend.object_store.local_copy import LocalCopy; copy = LocalCopy(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    one = LocalCopy()
    two = LocalCopy()
    assert len(list(tmp_path.iterdir())) == 2, "those that are in use stay"
    one.close()
    two.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_link_in_a_shared_folder_leads_to_no_folder_of_somebody(tmp_path, monkeypatch):
    shared, other = tmp_path / "tmp", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    (other / "file").write_text("somebody's")
    (shared / "roi-anomaly-models-link").symlink_to(other, target_is_directory=True)
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    monkeypatch.setattr(local_copy, "_YOUNG_S", 0.0)
    LocalCopy().close()
    assert [file.name for file in other.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="files have other owners there")
def test_folder_of_another_user_stays(tmp_path, monkeypatch):
    (tmp_path / "roi-anomaly-models-other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local_copy, "_YOUNG_S", 0.0)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    LocalCopy().close()
    assert [file.name for file in tmp_path.iterdir()] == ["roi-anomaly-models-other"]
    assert list((tmp_path / "roi-anomaly-models-other").iterdir()) == []
