"""Embeddings in files: written and read back, without a name, and with a clear error where the disk refuses."""

import errno
import os

import numpy as np
import pytest

from backend.bank.block_files import BlockFiles
from backend.common.errors import StorageError


def test_blocks_read_what_was_written_and_leave_no_file(tmp_path):
    folder = tmp_path / "kept"
    files = BlockFiles(folder, (6, 3), 2)
    written = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    for block, of_block in enumerate(written):
        for first in (2, 0, 4, 2):  # in any order, and again
            files.write(block, first, of_block[first : first + 2])
    assert np.array_equal(files.parts, written)
    assert not files.parts[0].flags.writeable
    if os.name == "posix":
        assert list(folder.iterdir()) == []


def test_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file: the embeddings of a fit cannot be kept there"):
        BlockFiles(tmp_path / "file", (6, 3), 1)


class FullDisk:
    def seek(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    files = BlockFiles(tmp_path, (6, 3), 1)
    monkeypatch.setattr(files, "_files", [FullDisk()])
    with pytest.raises(StorageError, match="No space left on device"):
        files.write(0, 0, np.zeros((2, 3), np.float32))
