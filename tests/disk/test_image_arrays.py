"""What a file keeps of the images of its memory bank comes back for this bank alone."""

import numpy as np
import pytest

from backend.common.errors import StorageError
from backend.disk.image_arrays import read_honest_maps, read_miniatures, read_thumbnails
from backend.disk.memory_file import memory_bytes, memory_id
from tests.factories import memory_of

MEMORY = memory_of(1)
RNG = np.random.default_rng(0)
THUMBNAILS = [b"first", b"", b"third"]
MINIATURES = {0: RNG.integers(0, 256, (64, 64), np.uint8), 2: RNG.integers(0, 256, (64, 64), np.uint8)}
MAPS = {number: RNG.random(MEMORY.token_hw, np.float32) for number in (2, 0)}
READERS = pytest.mark.parametrize("read", [read_thumbnails, read_miniatures, read_honest_maps])


@pytest.fixture
def path(tmp_path):
    identity = memory_id(MEMORY)
    metadata = {"memory_id": identity, "images": [{}, {}, {}]}
    (tmp_path / "memory.npz").write_bytes(memory_bytes(MEMORY, metadata, THUMBNAILS, MINIATURES, MAPS))
    return tmp_path / "memory.npz"


def test_what_is_kept_is_read_again(path):
    assert read_thumbnails(path, memory_id(MEMORY)) == THUMBNAILS
    for read, written in ((read_miniatures, MINIATURES), (read_honest_maps, MAPS)):
        found = read(path, memory_id(MEMORY))
        assert list(found) == list(written)
        assert all(np.array_equal(found[number], written[number]) for number in written)


@READERS
def test_nothing_is_read_for_another_memory_bank_or_without_a_file(path, read):
    assert not read(path, memory_id(memory_of(2)))
    assert not read(path.with_name("missing.npz"), memory_id(MEMORY))


@READERS
def test_a_damaged_file_is_refused(path, read):
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StorageError, match="are damaged: refit this ROI"):
        read(path, memory_id(MEMORY))
