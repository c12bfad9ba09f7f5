"""Embeddings that a fit keeps to go on with: found by the bytes of an image, and never trusted when damaged."""

from dataclasses import replace

import numpy as np
import pytest

from backend.bank.checkpoint import Checkpoint, Kept
from backend.bank.copies import Look
from backend.common.errors import StorageError
from backend.features import ExtractorIdentity

IDENTITY = ExtractorIdentity("model", "0" * 64, 448, "stretch", "float32")
EMBEDDINGS = np.random.default_rng(0).random((4, 3), np.float32)
LOOK = Look("0123456789abcdef" * 4, np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8))
KEPT = Kept(EMBEDDINGS, LOOK)


def test_what_was_put_for_an_image_is_found_by_its_bytes(tmp_path):
    Checkpoint(tmp_path / "fit", IDENTITY).put(b"image", KEPT)
    again = Checkpoint(tmp_path / "fit", IDENTITY)
    found = again.get(b"image")
    assert found is not None
    assert found.embeddings.tobytes() == EMBEDDINGS.tobytes()
    assert found.embeddings.dtype == np.float32
    assert again.get(b"other image") is None


@pytest.mark.parametrize(
    "other",
    [replace(IDENTITY, precision="bfloat16/openvino"), replace(IDENTITY, input_size=336), replace(IDENTITY, model="m")],
    ids=["precision", "input size", "model"],
)
def test_embeddings_of_another_extractor_are_not_found(tmp_path, other):
    Checkpoint(tmp_path, IDENTITY).put(b"image", KEPT)
    assert Checkpoint(tmp_path, other).get(b"image") is None


@pytest.mark.parametrize("kept_bytes", [0, 5, 60, 140])
def test_a_file_that_was_cut_short_counts_as_not_there(tmp_path, kept_bytes):
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    checkpoint.put(b"image", KEPT)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:kept_bytes])
    assert checkpoint.get(b"image") is None


def test_no_file_is_unpickled(tmp_path):
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    checkpoint.put(b"image", KEPT)
    (file,) = tmp_path.iterdir()
    np.save(file, np.array([{"an": "object"}]), allow_pickle=True)
    assert checkpoint.get(b"image") is None


def test_removing_leaves_nothing_and_may_be_repeated(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit", IDENTITY)
    checkpoint.put(b"image", KEPT)
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error_without_its_path(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be kept") as caught:
        Checkpoint(tmp_path / "file" / "fit", IDENTITY).put(b"image", KEPT)
    assert str(tmp_path) not in str(caught.value)
