"""The embeddings of a fit in files, one for each block of the network, where memory does not hold them."""

import tempfile
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from backend.common.arrays import Embeddings
from backend.common.errors import StorageError
from backend.common.files import make_folder


class BlockFiles:
    """Files without names, which the system deletes when the process ends, however it ends.

    They are written as files and read as mapped memory. So a full disk is an error and not the end of the process, and
    the system gives the pages in memory to others when they need them.

    Args:
        folder: made when needed.
        shape: (N, D) of the embeddings of each block.
        n_blocks: number of blocks.

    Attributes:
        parts: float32 [N, D] of each block, for reading only; zeros where nothing was written.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], n_blocks: int) -> None:
        self._folder = folder
        try:
            make_folder(folder)
            self._files = [_nameless(folder) for _ in range(n_blocks)]
            for file in self._files:
                file.truncate(shape[0] * shape[1] * np.float32().nbytes)
            self.parts: list[Embeddings] = [
                np.asarray(np.memmap(file, np.float32, "r", shape=shape)) for file in self._files
            ]
        except OSError as exc:
            raise self._refused(exc) from exc

    def write(self, block: int, first: int, embeddings: Embeddings) -> None:
        """Write some embeddings of a block.

        Args:
            block: its number, from 0.
            first: row of the first of them.
            embeddings: float32 [n, D].

        Raises:
            StorageError: the disk is full, or cannot be written.
        """
        try:
            self._files[block].seek(first * embeddings.shape[1] * embeddings.itemsize)
            self._files[block].write(np.ascontiguousarray(embeddings).data)
            self._files[block].flush()
        except OSError as exc:
            raise self._refused(exc) from exc

    def _refused(self, exc: OSError) -> StorageError:
        return StorageError(f"{self._folder}: the embeddings of a fit cannot be kept there ({exc.strerror})")


def _nameless(folder: Path) -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))
